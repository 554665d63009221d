/*
 * alignment.h - what O_DIRECT wants of a file's memory, offsets and lengths.
 */
#ifndef AIOD_ALIGNMENT_H
#define AIOD_ALIGNMENT_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_ALIGNMENT_MAX (UINT32_C(256) << 10)

/* In bytes, powers of two; 1 and 1: none wanted. */
struct aiod_alignment {
    uint32_t memory; /* at most AIOD_BUFFER_ALIGNMENT */
    uint32_t offset; /* of offset and length: a "block"; at most AIOD_ALIGNMENT_MAX */
};

/*
 * What `fd`, opened with O_DIRECT and not used by anybody else yet, wants: what statx or the device says, else what
 * reads that are tried show; where they show nothing (no data, or not readable), AIOD_BUFFER_ALIGNMENT. 0; -EINVAL: the
 * file cannot do O_DIRECT, or wants more than can be had here; -ENOMEM. Moves the file position.
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
