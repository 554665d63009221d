/*
 * range_io.h - what changes a range of a file, or its size, without carrying bytes (docs/operations.md).
 *
 * All retry EINTR, and enter the file's ranges (range_locks.h) themselves. Offsets and lengths are bytes; a range ends at
 * 2^63 - 1 or before. One of length 0 does nothing and succeeds, but aiod_range_allocate() says -EINVAL. Results are 0
 * or -errno. Nothing is durable before aiod_io_flush(). Any number of threads.
 */
#ifndef AIOD_RANGE_IO_H
#define AIOD_RANGE_IO_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/direct.h"

/* Give the room back: by punching a hole or BLKDISCARD. -EOPNOTSUPP where that cannot be done. */
int64_t aiod_range_discard(const struct aiod_direct *file, uint64_t offset, uint64_t length);

/*
 * Have the range read as zeroes and a regular file grow as by a write; with `unmap` the room may be given back. By
 * writing, where there is no faster way. -ENOSPC past the end of a block device. `*written` bytes from the beginning
 * are known to be zeroes: all of them, or on failure perhaps fewer.
 */
int64_t aiod_range_write_zeroes(const struct aiod_direct *file, uint64_t offset, uint64_t length, bool unmap,
                                uint64_t *written);

int64_t aiod_range_truncate(const struct aiod_direct *file, uint64_t size);

/* Reserve room; the file grows, unless `keep_size`. Never by writing: -EOPNOTSUPP. */
int64_t aiod_range_allocate(const struct aiod_direct *file, uint64_t offset, uint64_t length, bool keep_size);

#endif
