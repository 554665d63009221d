/*
 * reply.h - the completions of one session on their way out: records, payload frames, and what is said of failures.
 *
 * The main loop's thread only. Small payloads share frames (a message's fixed cost is many times a request's); large ones
 * are frames of their own, never copied.
 */
#ifndef AIOD_REPLY_H
#define AIOD_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buffers.h"
#include "protocol/records.h"
#include "pool/request.h"
#include "session/session.h"

#define AIOD_SHARED_PAYLOAD_MAX 65536u /* reads below this share a frame */
#define AIOD_SHARED_FRAME_MAX (1024u * 1024u)
#define AIOD_REPLY_RECORDS_MAX 256u /* so that a header with as many sentences stays within its limit */

struct aiod_failure {
    uint32_t index; /* in records */
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

    /* Where small reads are put now; one of frames[] from the first read on that was put there. */
    struct aiod_buffer *shared;
    uint32_t shared_index;
    bool shared_in_frames;
};

/* Aborts without memory: completions have no other way out. */
struct aiod_reply *aiod_reply_create(struct aiod_session *session, struct aiod_buffers *buffers);

/* Free it, with the frames that nobody took out of frames[] (by setting the entry to NULL). */
void aiod_reply_destroy(struct aiod_reply *reply);

/*
 * Room for a small read of up to `length` bytes in a shared frame of about `expected` bytes: where to put them, NULL
 * without memory. The room is used by aiod_reply_add_shared(); else it goes to the next one.
 */
char *aiod_reply_room(struct aiod_reply *reply, uint64_t length, uint64_t expected);

/* Add the completion of a read whose `result` bytes were put where aiod_reply_room() said. */
void aiod_reply_add_shared(struct aiod_reply *reply, uint64_t cookie, int64_t result);

/* Add the completion of a read with its bytes in `buffer`, which becomes a frame. */
void aiod_reply_add_frame(struct aiod_reply *reply, uint64_t cookie, int64_t result, struct aiod_buffer *buffer);

/* Add a completion without payload; `written` is what one that failed has done, for all that is known. */
void aiod_reply_add(struct aiod_reply *reply, uint64_t cookie, int64_t result, uint64_t written);

/* Say of the completion added last why it failed. `failure->index` is filled in here. */
void aiod_reply_explain(struct aiod_reply *reply, const struct aiod_failure *failure);

#endif
