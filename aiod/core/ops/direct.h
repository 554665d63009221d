/*
 * direct.h - reads and writes with any offset, length and memory, on files that may need alignment (O_DIRECT).
 *
 * Aligned transfers go directly to the file. Other transfers are copied through an aligned bounce buffer, in steps of
 * at most AIOD_DIRECT_STEP_BYTES. A write of a part of a block reads the block, changes it, and writes the whole block.
 * A file that needs no alignment (a handle that uses the page cache) always transfers directly.
 *
 * A write whose last block reaches past the end of a regular file makes the file too large for a moment, and then
 * truncates it to the correct size. The range locks (range_locks.h) hide this from all other requests of the engine. If
 * the process is killed at this moment, less than a block of zeroes stays at the end of the file.
 *
 * All functions block and are thread-safe. They take range locks, and under them the lock of the buffer cache.
 */
#ifndef AIOD_DIRECT_H
#define AIOD_DIRECT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "ops/alignment.h"
#include "ops/range_locks.h"
#include "util/buffers.h"

#define AIOD_DIRECT_STEP_BYTES (UINT64_C(256) << 10) /* a multiple of every block size */

static_assert(AIOD_DIRECT_STEP_BYTES % AIOD_ALIGNMENT_MAX == 0, "a step is of whole blocks");

/* An open file and its resources. Constant; used by any number of threads. */
struct aiod_direct {
    int fd; /* with O_DIRECT it must be readable: a write of a part of a block reads the block */
    struct aiod_alignment alignment;
    struct aiod_buffers *buffers;
    struct aiod_range_locks *range_locks; /* of the file */
    /* aligned O_DIRECT writes go in steps, because other clients use the disk too */
    bool in_steps;
    bool on_fuse;
};

/*
 * Read like aiod_io_read(), under a range lock. The number of bytes, which is smaller only at the end of the file, or
 * -errno; -ENOMEM: no bounce buffer. The bytes of `data` behind those that were read may have changed.
 */
int64_t aiod_direct_read(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);

/* The same into the `count` parts of `iov`, which are consumed. */
int64_t aiod_direct_readv(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset);

/*
 * Write like aiod_io_write(), under a range lock. With RWF_DSYNC the corrected size is durable as well. -ENOMEM: no
 * bounce buffer.
 */
int64_t aiod_direct_write(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset, int flags,
                          uint64_t *written);

/*
 * The range lock for a change of `length` bytes at `offset` that may become any number of writes: the bytes, shared; on
 * a file that needs alignment everything from the first block to the end, exclusive.
 */
struct aiod_range_lock aiod_direct_range_lock(const struct aiod_direct *file, uint64_t offset, uint64_t length);

/* The first two functions for a caller that holds such a range lock (for a read: a lock of the bytes). */
int64_t aiod_direct_read_locked(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);
int64_t aiod_direct_write_locked(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset,
                                 int flags, uint64_t *written);

#endif
