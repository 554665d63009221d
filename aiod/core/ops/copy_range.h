/*
 * copy_range.h - COPY_RANGE: copied by the kernel where possible, else by reads and writes. Blocks: for workers.
 * Thread-safe.
 */
#ifndef AIOD_COPY_RANGE_H
#define AIOD_COPY_RANGE_H

#include <stdint.h>

#include "ops/direct.h"

/*
 * Copy up to `length` bytes from `from_offset` of `from` to `offset` of `to`, under the range locks of both files. The
 * number of copied bytes, which is smaller only if the source ended before, or -errno. In both cases the first
 * `*written` bytes are known to be copied. -EINVAL: the ranges overlap within one file (one file: the same
 * aiod_range_locks).
 */
int64_t aiod_copy_range(const struct aiod_direct *to, uint64_t offset, const struct aiod_direct *from,
                        uint64_t from_offset, uint64_t length, uint64_t *written);

#endif
