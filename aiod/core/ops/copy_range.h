/*
 * copy_range.h - COPY_RANGE: by the kernel where it can, else by reading and writing.
 */
#ifndef AIOD_COPY_RANGE_H
#define AIOD_COPY_RANGE_H

#include <stdint.h>

#include "ops/direct.h"

/*
 * Copy up to `length` bytes from `from_offset` of `from` to `offset` of `to`. Enters the ranges of both files. Bytes
 * copied, fewer only where the source ended when it began, or -errno; in either case `*written` bytes from the
 * beginning are known to be copied. -EINVAL: the ranges overlap in one file (one file: the same aiod_range_locks). Any
 * number of threads.
 */
int64_t aiod_copy_range(const struct aiod_direct *to, uint64_t offset, const struct aiod_direct *from,
                        uint64_t from_offset, uint64_t length, uint64_t *written);

#endif
