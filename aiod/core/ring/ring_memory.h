/*
 * ring_memory.h - the memory that a ring shares with its client: made, filled and sealed by the engine.
 *
 * Where a client writes, nothing is certain: whoever reads an index or an entry there copies it once, and uses the copy.
 */
#ifndef AIOD_RING_MEMORY_H
#define AIOD_RING_MEMORY_H

#include <stdint.h>

#include "aiod_ring.h"
#include "util/memory_guard.h"

struct aiod_ring_memory {
    int fd;
    struct aiod_ring_header *header; /* the beginning of the mapping */
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    char *area;
    uint32_t entries;
    uint64_t area_bytes; /* a multiple of 4096 */
    uint64_t bytes;      /* of it all */
    struct aiod_memory_guard guard;
};

/* What a ring of so many entries and bytes takes; 0: entries are no power of two or out of range, or the area is too large. */
uint64_t aiod_ring_memory_bytes(uint32_t entries, uint64_t area_bytes);

/* Make, allocate, seal and map it; aiod_ring_memory_bytes() was not 0. 0, or -errno. */
int aiod_ring_memory_create(struct aiod_ring_memory *memory, uint32_t entries, uint64_t area_bytes);

void aiod_ring_memory_destroy(struct aiod_ring_memory *memory);

#endif
