/*
 * buffer_pool.h - which parts of the buffer area are in use: a buddy allocator (Knowlton, 1965) that keeps its
 * state outside the area. It knows offsets only.
 *
 * Blocks are 4096 << order bytes. Released blocks are cached, the last one first: its memory is still in the CPU's
 * caches, and halves need not be joined and split again. Protected by the client's lock.
 */
#ifndef LIBAIOD_BUFFER_POOL_H
#define LIBAIOD_BUFFER_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_POOL_PAGE_BYTES UINT64_C(4096)
#define AIOD_POOL_ORDERS 29 /* up to 1 TiB */
#define AIOD_POOL_NONE UINT32_MAX
#define AIOD_POOL_CACHED_MAX 64u /* blocks of one order */

struct aiod_pool_block {
    uint32_t next; /* page numbers */
    uint32_t previous;
    uint8_t order;
    uint8_t state;
};

struct aiod_buffer_pool {
    uint32_t page_count;
    struct aiod_pool_block *blocks;    /* by the number of their first page */
    uint32_t free[AIOD_POOL_ORDERS];   /* doubly linked */
    uint32_t cached[AIOD_POOL_ORDERS]; /* linked by next */
    unsigned cached_count[AIOD_POOL_ORDERS];
};

/* False: out of memory. */
bool aiod_buffer_pool_init(struct aiod_buffer_pool *pool, uint64_t bytes);
void aiod_buffer_pool_destroy(struct aiod_buffer_pool *pool);

/* Returns the offset of a block of at least `bytes`; UINT64_MAX: no such block is free. */
uint64_t aiod_buffer_pool_get(struct aiod_buffer_pool *pool, uint64_t bytes);

/* `offset` is a value that aiod_buffer_pool_get() returned. */
void aiod_buffer_pool_release(struct aiod_buffer_pool *pool, uint64_t offset);

/* The size of the largest block of an unused pool. */
uint64_t aiod_buffer_pool_largest(const struct aiod_buffer_pool *pool);

#endif
