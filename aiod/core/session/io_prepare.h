/*
 * io_prepare.h - the part of admission that requests by message and by ring share: it follows the checks (operations.h)
 * and precedes the pool.
 *
 * aiod_io_prepare() is the only function that sets the fields of an aiod_io, so that a new field is set for both kinds.
 * The caller owns the request: the main loop, or the thread that takes entries of a ring.
 */
#ifndef AIOD_IO_PREPARE_H
#define AIOD_IO_PREPARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "protocol/records.h"
#include "session/io.h"

/* A request that passed aiod_op_check(), with the memory that it uses. */
struct aiod_io_description {
    const struct aiod_submission *record;
    struct aiod_handle *handle;
    struct aiod_handle *source; /* of a COPY_RANGE; else NULL */
    struct aiod_buffers *buffers;
    uint64_t arrived_ns;
    void (*complete)(struct aiod_request *request); /* as aiod_request.complete */

    char *path;                        /* of an operation on a path, which the request owns then; else NULL */
    struct aiod_directory_op *name;    /* of a NAME by ring, likewise */
    struct aiod_ring_open_file wanted; /* of an operation that opens a file */
    char *data;                        /* memory for the result's payload; NULL: none */
    uint64_t have;                     /* bytes of a read that are in `data` already */

    /* The request's payload; of a READ without `data` the memory for the result, in several pieces. */
    size_t piece_count;
    struct iovec piece;   /* the payload, if it is in one piece */
    struct iovec *pieces; /* the payload, if it is in several */
};

/*
 * Fill `io`, except for the state of its aiod_request: other threads may read the state of a ring's request at any
 * time.
 */
void aiod_io_prepare(struct aiod_io *io, const struct aiod_io_description *description);

/* Does the request move no bytes, so that it completes without I/O? */
bool aiod_io_is_empty(const struct aiod_submission *record);

/* May the read be tried from the page cache where it was submitted? */
bool aiod_io_may_read_inline(const struct aiod_submission *record, const struct aiod_handle *handle,
                             uint64_t inline_read_max);

/*
 * Describe the payload of `message`: `length` bytes from `offset` of the first payload, continued in the following
 * ones. The caller has checked that they exist. Takes a reference of each payload. 0, or -ENOMEM.
 */
int aiod_io_gather(struct aiod_message_io *message, struct aiod_payload **payloads, uint64_t offset, uint64_t length,
                   struct aiod_io_description *description);

#endif
