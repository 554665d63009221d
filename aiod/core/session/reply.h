/*
 * reply.h - the completions for one session in one message: records, payload frames, and the descriptions of failures.
 *
 * Small payloads share frames, because the fixed cost of a frame is many times that of a request. Large payloads are
 * frames of their own and are not copied. Main loop's thread only.
 */
#ifndef AIOD_REPLY_H
#define AIOD_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/request.h"
#include "protocol/records.h"
#include "session/session.h"
#include "util/buffers.h"

#define AIOD_SHARED_PAYLOAD_MAX 65536u /* smaller reads share a frame */
#define AIOD_SHARED_FRAME_MAX (1024u * 1024u)
#define AIOD_REPLY_RECORDS_MAX 256u /* the limit at which a header with a message for each record still fits */

struct aiod_failure {
    uint32_t index; /* the position in records */
    uint32_t handle;
    enum aiod_op op;
    enum aiod_reason reason;
    int error; /* errno */
    uint64_t offset;
    uint64_t length;
};

struct aiod_reply {
    struct aiod_session *session; /* one reference */
    struct aiod_reply *next;
    struct aiod_buffers *buffers;

    struct aiod_completion records[AIOD_REPLY_RECORDS_MAX];
    struct aiod_failure failures[AIOD_REPLY_RECORDS_MAX];
    struct aiod_buffer *frames[AIOD_REPLY_RECORDS_MAX];
    uint32_t record_count;
    uint32_t failure_count;
    uint32_t frame_count;

    /* The frame for small reads. It is added to frames[] with its first read. */
    struct aiod_buffer *shared;
    uint32_t shared_index;
    bool shared_in_frames;
};

/* Create an empty reply. Aborts if there is no memory: the completions could not be delivered. */
struct aiod_reply *aiod_reply_create(struct aiod_session *session, struct aiod_buffers *buffers);

/* Free the reply, and the frames that are still in frames[] (the caller sets the entries that it took to NULL). */
void aiod_reply_destroy(struct aiod_reply *reply);

/*
 * Reserve room for a small read of up to `length` bytes in a shared frame of about `expected` bytes. NULL if there is
 * no memory. Without a following aiod_reply_add_shared() the next call gets the same room.
 */
char *aiod_reply_reserve(struct aiod_reply *reply, uint64_t length, uint64_t expected);

/* Add the completion of a read of `result` bytes, which are in the room of the last aiod_reply_reserve(). */
void aiod_reply_add_shared(struct aiod_reply *reply, uint64_t cookie, int64_t result);

/* Add the completion of a read whose bytes are in `buffer`, which becomes a frame. */
void aiod_reply_add_frame(struct aiod_reply *reply, uint64_t cookie, int64_t result, struct aiod_buffer *buffer);

/* Add a completion without payload; `written` is the number of bytes known to be written by a request that failed. */
void aiod_reply_add(struct aiod_reply *reply, uint64_t cookie, int64_t result, uint64_t written);

/* Describe why the last added completion failed. Sets `failure->index`. */
void aiod_reply_add_failure(struct aiod_reply *reply, const struct aiod_failure *failure);

#endif
