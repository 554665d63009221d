/*
 * query_ops.h - operations that change nothing in a file: STAT, EXTENTS, PREFETCH. They block: for workers.
 * Thread-safe.
 */
#ifndef AIOD_QUERY_OPS_H
#define AIOD_QUERY_OPS_H

#include <stdint.h>

#include "ops/alignment.h"
#include "protocol/records.h"

struct stat;

/* Fill `stat` from what the kernel says of a file; a block device has size 0. */
void aiod_query_fill_stat(struct aiod_stat *stat, const struct stat *status, const struct aiod_alignment *alignment);

/*
 * Fill `stat`. `block_size` comes from the file's alignment, else from the device, else it is 1. 0, or -errno. Also
 * works with an O_PATH descriptor; then a block device has size 0 and block_size 1.
 */
int64_t aiod_query_stat(int fd, const struct aiod_alignment *alignment, struct aiod_stat *stat);

/*
 * List data and holes from `offset`, up to `length` bytes, the end of the file, or AIOD_EXTENTS_MAX extents, for which
 * `extents` has room: of struct aiod_extent, at any address, because a client chooses it. Their number, or -errno.
 * Moves the file position: the caller must hold aiod_file.position.
 */
int64_t aiod_query_extents(int fd, uint64_t offset, uint64_t length, void *extents);

/* Start read-ahead of the part of the range that is in the file, at most AIOD_RANGE_BYTES_MAX. 0, or -errno. */
int64_t aiod_query_prefetch(int fd, uint64_t offset, uint64_t length);

#endif
