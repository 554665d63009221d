/*
 * range_io.h - operations that change a range of a file, or its size, without a payload (docs/operations.md).
 *
 * All functions retry EINTR and take range locks (range_locks.h) themselves. Offsets and lengths are in bytes; a range
 * ends at or before 2^63 - 1. A range of length 0 succeeds without effect, but aiod_range_allocate() returns -EINVAL.
 * The results are 0 or -errno. Nothing is durable before aiod_io_flush(). They block: for workers. Thread-safe.
 */
#ifndef AIOD_RANGE_IO_H
#define AIOD_RANGE_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/direct.h"
#include "protocol/records.h" /* the flags */

/* Free the space, by punching a hole or by BLKDISCARD. -EOPNOTSUPP if that is not supported. */
int64_t aiod_range_discard(const struct aiod_direct *file, uint64_t offset, uint64_t length);

/*
 * Make the range read as zeroes; a regular file grows as by a write. `flags` are of enum aiod_op_flag; others than these two
 * have no effect. With AIOD_UNMAP the space may be freed. Writes zeroes if there is no faster way; with AIOD_FAST it is
 * -EOPNOTSUPP then, and only the sectors at the edges may have been written. -ENOSPC past the end of a block device. The
 * first `*written` bytes are known to be zeroes: all of them on success.
 */
int64_t aiod_range_write_zeroes(const struct aiod_direct *file, uint64_t offset, uint64_t length, unsigned flags,
                                uint64_t *written);

int64_t aiod_range_truncate(const struct aiod_direct *file, uint64_t size);

/* Reserve space; the file grows unless `keep_size`. Never falls back to writing: -EOPNOTSUPP. */
int64_t aiod_range_allocate(const struct aiod_direct *file, uint64_t offset, uint64_t length, bool keep_size);

#endif
