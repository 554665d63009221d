/*
 * io.h - the requests that the pool executes: a client's operation (aiod_io), or an open, close, directory operation or
 * last flush (aiod_control).
 *
 * The main loop's thread allocates and frees a request that came by message (aiod_message_io). A request that came by
 * ring is a slot of its ring (core/ring/ring.h). A worker owns the request from its submission to its completion; of
 * the session it uses only the handle's aiod_handle_use and the state that the file's handles share (core/ops/files.h).
 */
#ifndef AIOD_IO_H
#define AIOD_IO_H

#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "path/cached_path.h"
#include "path/confined_open.h"
#include "path/directory_ops.h"
#include "pool/request.h"
#include "pool/task.h"
#include "session/session.h"
#include "util/buffers.h"

/* A frame of payload, shared by the writes that refer to it. Main loop's thread only. */
struct aiod_payload {
    const char *data;
    size_t length;
    unsigned refs;
    void (*release)(struct aiod_payload *payload); /* called with the last reference */
};

/* An operation on a handle. Constant until it has completed; aiod_io_prepare() sets all fields. */
struct aiod_io {
    struct aiod_task task;
    struct aiod_buffers *buffers; /* for bounce buffers */
    struct aiod_handle *handle;
    enum aiod_op op;
    unsigned flags; /* enum aiod_op_flag */
    uint64_t offset;
    uint64_t length;

    struct aiod_handle *source; /* of a COPY_RANGE */
    uint64_t source_offset;

    char *path;                        /* of an operation on a path; aiod_io_release_path() frees it, and `name` */
    struct aiod_directory_op *name;    /* of a NAME by ring */
    struct aiod_ring_open_file wanted; /* of an operation that opens a file */
    struct aiod_opened opened; /* of an OPEN_FILE that has succeeded; a CLOSE_FILE closes its descriptors (-1: none) */

    char *data;    /* memory for the result's payload */
    uint64_t have; /* READ: bytes that `data` holds already */
    struct iovec
        *iov; /* the request's payload, or the pieces of a READ without `data`; one piece needs no allocation */
    size_t iov_count;
    struct iovec one_iov;

    struct aiod_range_lock range; /* while it is started by io_uring (uring_io.h) */
    bool range_held;
    bool compared; /* a WRITE whose latency is counted (async_writes.h) */

    /* Written by the worker before the completion. */
    uint64_t written; /* bytes that are known to be written if the request failed */
};

/* A request that came by message. */
struct aiod_message_io {
    struct aiod_io io; /* first */

    /* Constant until reaped. */
    struct aiod_session *session;
    uint64_t cookie;
    uint64_t charged;               /* bytes of credit */
    struct aiod_buffer *buffer;     /* contains io.data */
    struct aiod_payload **payloads; /* the frames that io.iov refers to; io.iov_count of them */
    struct aiod_payload *one_payload;
    struct aiod_control *unlock; /* waits for the request's end; NULL: none */

    /* Neighbours in the session's list of requests in flight. */
    struct aiod_message_io *next;
    struct aiod_message_io *previous;
};

struct aiod_control {
    struct aiod_task task;
    enum aiod_op op;
    enum aiod_transport transport;
    uint64_t tag; /* 0: the result is not reported */

    /* An open. */
    char *root;
    char *path;
    unsigned flags;
    struct aiod_creation creation;
    struct aiod_opened opened;

    /* A close. */
    int fd; /* close: -1 if the descriptor is still needed; open without a root: the descriptor to adopt */
    struct aiod_ring_request *ring_close; /* aiod_handle.ring_close */

    struct aiod_directory_op *directory_op; /* A directory operation. */

    struct aiod_handle
        *handle; /* A flush, a lock, an unlock; an open that moves the handle to another mount (move_handle.h). */

    /* A lock, an unlock. */
    struct aiod_file_lock lock;
    uint64_t regain;    /* the number of a lock that is to be regained; 0: a new one */
    unsigned waits_for; /* unlock: requests in flight that end before it */

    struct aiod_identity *as; /* open and directory operation: the client's identity; NULL: the daemon's */
    struct aiod_rate *rate;   /* a reference to the export's rate; NULL: none */
};

/* aiod_request.run of an aiod_io. */
int64_t aiod_io_run(struct aiod_request *request);

/* aiod_request.run of an aiod_control. */
int64_t aiod_control_run(struct aiod_request *request);

/*
 * Carry out an operation on a path without blocking, where it was submitted; files of up to `bytes_max` are read. -EAGAIN:
 * a worker has to do it. Adds to `spent` what has to be closed.
 */
int64_t aiod_io_on_path_nowait(struct aiod_io *io, uint64_t bytes_max, struct aiod_spent *spent);

/* Close the descriptors of a CLOSE_FILE; no effect if they are closed. 0, or -errno. */
int64_t aiod_io_close(struct aiod_io *io);

/* Free the path, and what a NAME has; no effect without them. */
void aiod_io_release_path(struct aiod_io *io);

/* A WRITE has been carried out: count its latency, if the handle compares the ways of writing (async_writes.h). */
void aiod_io_count_latency(const struct aiod_io *io, enum aiod_async_writes_way way);

void aiod_payload_put(struct aiod_payload *payload);

/* Release the request's payload and buffer. */
void aiod_io_release(struct aiod_message_io *message);

#endif
