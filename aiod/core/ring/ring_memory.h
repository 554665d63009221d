/*
 * ring_memory.h - the memory that a ring shares with its client, created by the engine.
 *
 * The client can change its part at any time: a thread that reads an index or an entry copies it once, and uses the
 * copy. The maker's thread creates and destroys the memory (ring_maker.h).
 */
#ifndef AIOD_RING_MEMORY_H
#define AIOD_RING_MEMORY_H

#include <stdint.h>

#include "aiod_ring.h"
#include "util/memory_guard.h"

struct aiod_ring_memory {
    int fd;
    struct aiod_ring_header *header; /* the start of the mapping */
    struct aiod_ring_withdrawal *withdrawal;
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    char *area;
    uint32_t entries;
    uint64_t area_bytes; /* a multiple of 4096 */
    uint64_t bytes;      /* of the whole memory */
    struct aiod_memory_guard guard;
};

/* The size of a ring's memory. 0: `entries` is not a power of two or out of range, or the area is too large. */
uint64_t aiod_ring_memory_bytes(uint32_t entries, uint64_t area_bytes);

/* Create, allocate, seal and map the memory; aiod_ring_memory_bytes() was not 0. 0, or -errno. */
int aiod_ring_memory_create(struct aiod_ring_memory *memory, uint32_t entries, uint64_t area_bytes);

void aiod_ring_memory_destroy(struct aiod_ring_memory *memory);

#endif
