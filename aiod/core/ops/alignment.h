/* alignment.h - the alignment that O_DIRECT needs for memory, offsets and lengths. Thread-safe. */
#ifndef AIOD_ALIGNMENT_H
#define AIOD_ALIGNMENT_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_ALIGNMENT_MAX (UINT32_C(256) << 10)

/* In bytes, powers of two; 1 and 1: no alignment is needed. */
struct aiod_alignment {
    uint32_t memory; /* at most AIOD_BUFFER_ALIGNMENT */
    uint32_t offset; /* of offsets and lengths: one "block"; at most AIOD_ALIGNMENT_MAX */
};

/*
 * Find the alignment for `fd`, which was opened with O_DIRECT and is not in use yet: from statx() or the device, else
 * by test reads, else (no data, or not readable) AIOD_BUFFER_ALIGNMENT. Moves the file position. 0; -EINVAL: the file
 * does not support O_DIRECT, or needs a larger alignment than supported here; -ENOMEM. Blocks: for workers.
 */
int aiod_alignment_find(int fd, struct aiod_alignment *alignment);

static inline bool aiod_is_aligned(uint64_t value, uint32_t alignment)
{
    return (value & (alignment - 1)) == 0;
}

static inline uint64_t aiod_align_down(uint64_t value, uint32_t alignment)
{
    return value & ~(uint64_t)(alignment - 1);
}

static inline uint64_t aiod_align_up(uint64_t value, uint32_t alignment)
{
    return aiod_align_down(value + alignment - 1, alignment);
}

#endif
