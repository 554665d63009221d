/*
 * direct.h - reads and writes of any offset, length and memory, on a file that may want all three aligned (O_DIRECT).
 *
 * What is aligned goes straight through. The rest is copied through an aligned bounce buffer, in steps of at most
 * AIOD_DIRECT_STEP_BYTES; a write of part of a block reads that block, changes it and writes it whole. On a file that
 * wants no alignment everything goes straight: so this is also the way of a handle that goes through the page cache.
 *
 * A write whose last block reaches past the end of a regular file makes it too large for a moment, and sets the size
 * right afterwards: nothing in the engine that enters the file's ranges (range_locks.h) sees that. A process killed at that
 * moment leaves less than a block of zeroes at the end.
 */
#ifndef AIOD_DIRECT_H
#define AIOD_DIRECT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ops/alignment.h"
#include "util/buffers.h"
#include "ops/range_locks.h"

#define AIOD_DIRECT_STEP_BYTES (UINT64_C(256) << 10) /* a multiple of every block */

static_assert(AIOD_DIRECT_STEP_BYTES % AIOD_ALIGNMENT_MAX == 0, "a step is of whole blocks");

/* An open file and what belongs to it. Constant; any number of threads. */
struct aiod_direct {
    int fd; /* with O_DIRECT it has to be readable too: a write of part of a block reads the block */
    struct aiod_alignment alignment;
    struct aiod_buffers *buffers;
    struct aiod_range_locks *range_locks; /* of the file */
    bool in_steps;                        /* O_DIRECT writes go in steps, since others wait for the disk, too */
};

/*
 * Read as aiod_io_read() does. Enters the file's ranges. Bytes, fewer only at the end of the file, or -errno; -ENOMEM
 * without a bounce buffer. What of `data` is behind the bytes read may have been changed.
 */
int64_t aiod_direct_read(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);

/*
 * Write as aiod_io_write() does. Enters the file's ranges. With RWF_DSYNC the size that was set right is durable as
 * well. -ENOMEM without a bounce buffer.
 */
int64_t aiod_direct_write(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset, int flags,
                          uint64_t *written);

/*
 * What to enter for a change of `length` bytes at `offset` that may turn into any number of writes among them: the
 * bytes, shared; where the file wants alignment, everything from the first block on, exclusive.
 */
struct aiod_range_lock aiod_direct_range_lock(const struct aiod_direct *file, uint64_t offset, uint64_t length);

/* The first two, for who is inside such a range (to read: inside one of the bytes). */
int64_t aiod_direct_read_locked(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);
int64_t aiod_direct_write_locked(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset,
                                 int flags, uint64_t *written);

#endif
