/*
 * io.h - what the pool carries out: a client's request (aiod_io), or an open, a close, a name or a last flush
 * (aiod_control).
 *
 * A request that came by message (aiod_message_io) is made and freed on the main loop's thread, one that came by ring is a
 * place in its ring (core/ring/ring.h). A worker has it between submit and completion, and then touches nothing of the session
 * but what its handle may be used for, and what the file's handles share.
 */
#ifndef AIOD_IO_H
#define AIOD_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "util/buffers.h"
#include "path/confined_open.h"
#include "path/directory_ops.h"
#include "pool/request.h"
#include "session/session.h"
#include "pool/task.h"

/* A client's bytes to be written: a frame shared by the writes that name it. The main loop's thread only. */
struct aiod_payload {
    const char *data;
    size_t length;
    unsigned refs;
    void (*release)(struct aiod_payload *payload); /* called with the last reference */
};

/* What a worker needs of a request. Constant until it has completed. */
struct aiod_io {
    struct aiod_task task;
    struct aiod_buffers *buffers; /* for bounce buffers */
    struct aiod_handle *handle;
    enum aiod_op op;
    unsigned flags; /* enum aiod_op_flag */
    uint64_t offset;
    uint64_t length;

    struct aiod_handle *source; /* copy_range */
    uint64_t source_offset;

    char *data;        /* the result's payload: where to */
    uint64_t have;     /* read: bytes that are there already */
    struct iovec *iov; /* the request's payload; one piece needs no allocation */
    size_t iov_count;
    struct iovec one_iov;

    /* Written by the worker before it is done. */
    uint64_t written; /* bytes known to be done when it fails */
};

/* A request that came in a message. */
struct aiod_message_io {
    struct aiod_io io; /* first */

    /* Constant until reaped. */
    struct aiod_session *session;
    uint64_t cookie;
    uint64_t charged;               /* bytes of credit */
    struct aiod_buffer *buffer;     /* io.data is in it */
    struct aiod_payload **payloads; /* io.iov is of them: pieces of consecutive frames, io.iov_count of them */
    struct aiod_payload *one_payload;

    /* The session's requests in flight. */
    struct aiod_message_io *next;
    struct aiod_message_io *previous;
};

struct aiod_control {
    struct aiod_task task;
    enum aiod_op op;
    uint64_t tag; /* 0: nobody waits for the result */

    /* open */
    char *root;
    char *path;
    unsigned flags;
    struct aiod_creation creation;
    struct aiod_opened opened;

    /* close */
    int fd; /* negative: none, others need it still; of an open without a root: what is open already */

    struct aiod_directory_op *directory_op; /* name */

    struct aiod_handle *handle; /* flush */

    struct aiod_identity *as; /* open and name, as that client; NULL: as the daemon */
    struct aiod_rate *rate;   /* of the export that it is of, a reference; NULL: none */
};

/* aiod_request.run of a client's request, by its op. */
int64_t aiod_io_run(struct aiod_request *request);

/* aiod_request.run of an open, a close, a name or a last flush. */
int64_t aiod_control_run(struct aiod_request *request);

void aiod_payload_put(struct aiod_payload *payload);

/* Give back payload and buffer. */
void aiod_io_release(struct aiod_message_io *message);

#endif
