/*
 * io.h - what the pool carries out: a client's request (aiod_io), or an open, a close or a name (aiod_control).
 *
 * Made and freed on the main loop's thread; a worker has it between submit and reap, and then touches nothing of the
 * session but what its handle may be used for, and what the file's handles share.
 */
#ifndef AIOD_IO_H
#define AIOD_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "buffers.h"
#include "confined_open.h"
#include "names.h"
#include "request.h"
#include "session.h"

enum aiod_task_kind {
    AIOD_TASK_IO,
    AIOD_TASK_CONTROL,
};

/* What every entry of the pool's queue starts with. */
struct aiod_task {
    struct aiod_request request; /* first: the pool hands back a pointer to it */
    enum aiod_task_kind kind;
};

/* A client's bytes to be written: a frame shared by the writes that name it. The main loop's thread only. */
struct aiod_payload {
    const char *data;
    size_t length;
    unsigned refs;
    void (*release)(struct aiod_payload *payload); /* called with the last reference */
};

struct aiod_io {
    struct aiod_task task;

    /* Constant until reaped. */
    struct aiod_buffers *buffers; /* for bounce buffers */
    struct aiod_session *session;
    struct aiod_handle *handle;
    uint64_t cookie;
    enum aiod_op op;
    unsigned flags; /* enum aiod_op_flag */
    uint64_t offset;
    uint64_t length;
    uint64_t charged; /* bytes of credit */

    struct aiod_handle *source; /* copy_range */
    uint64_t source_offset;

    struct aiod_buffer *buffer; /* the result's payload: where to */
    uint64_t have;              /* read: bytes that are there already */

    /* The request's payload: pieces of consecutive frames. One needs no allocation. */
    struct iovec *iov;
    struct aiod_payload **payloads; /* iov_count of them */
    size_t iov_count;
    struct iovec one_iov;
    struct aiod_payload *one_payload;

    /* Written by the worker before it is done. */
    uint64_t written; /* bytes known to be done when it fails */

    /* The session's requests in flight. */
    struct aiod_io *next;
    struct aiod_io *previous;
};

struct aiod_control {
    struct aiod_task task;
    enum aiod_op op;
    uint64_t tag; /* 0: nobody waits for the result */

    /* open */
    char *root;
    char *path;
    unsigned flags;
    mode_t mode;
    struct aiod_opened opened;

    /* close */
    int fd; /* negative: none, others need it still */

    struct aiod_naming *naming; /* name */
};

/* aiod_request.run of a client's request, by its op. */
int64_t aiod_io_run(struct aiod_request *request);

/* aiod_request.run of an open, a close or a name. */
int64_t aiod_control_run(struct aiod_request *request);

void aiod_payload_put(struct aiod_payload *payload);

/*
 * Have the request write the `length` bytes of `payloads` that start at `offset` of the first one and go on in those that
 * follow; they are there. Takes a reference of each. 0, or -ENOMEM.
 */
int aiod_io_gather(struct aiod_io *io, struct aiod_payload **payloads, uint64_t offset, uint64_t length);

/* Give back payload and buffer. */
void aiod_io_release(struct aiod_io *io);

#endif
