/*
 * query_ops.h - what is asked about a file and changes nothing: STAT, EXTENTS, PREFETCH.
 */
#ifndef AIOD_QUERY_OPS_H
#define AIOD_QUERY_OPS_H

#include <stdint.h>

#include "ops/alignment.h"
#include "protocol/records.h"

/*
 * Fill `stat`; `block_size` is what the file's alignment or the device says, else 1. 0 or -errno. Works on an O_PATH
 * descriptor too, but then a block device has size 0 and block_size 1.
 */
int64_t aiod_query_stat(int fd, const struct aiod_alignment *alignment, struct aiod_stat *stat);

/*
 * What is data and what is a hole from `offset` on, up to `length` bytes, the end of the file, or AIOD_EXTENTS_MAX
 * extents, for which there is room. Their number, or -errno. Moves the file position: the caller lets nothing else use
 * that meanwhile.
 */
int64_t aiod_query_extents(int fd, uint64_t offset, uint64_t length, struct aiod_extent *extents);

/* Ask for read-ahead of what of the range is in the file, AIOD_RANGE_BYTES_MAX at most. 0, or -errno. */
int64_t aiod_query_prefetch(int fd, uint64_t offset, uint64_t length);

#endif
