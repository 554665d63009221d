/*
 * area.h - who has which part of the buffer area: a buddy allocator (Knowlton, 1965) with its books outside the area.
 *
 * Blocks are 4096 << order bytes. Those given back are kept as they are for a while, the last one first, since its memory
 * is still in the caches and halves need not be joined and split again. Protected by the client's lock.
 */
#ifndef AIOD_AREA_H
#define AIOD_AREA_H

#include <stdbool.h>
#include <stdint.h>

#define AREA_PAGE_BYTES UINT64_C(4096)
#define AREA_ORDERS 29 /* up to 1 TiB */
#define AREA_NONE UINT32_MAX
#define AREA_KEPT_MAX 64u /* of one order */

struct area_block {
    uint32_t next; /* page numbers */
    uint32_t previous;
    uint8_t order;
    uint8_t state;
};

struct area {
    uint32_t page_count;
    struct area_block *blocks;  /* by the number of their first page */
    uint32_t free[AREA_ORDERS]; /* doubly linked */
    uint32_t kept[AREA_ORDERS]; /* linked by next */
    unsigned kept_count[AREA_ORDERS];
};

/* False without memory. */
bool aiod_area_init(struct area *area, uint64_t bytes);
void aiod_area_destroy(struct area *area);

/* Offset of a block of at least `bytes`; UINT64_MAX: there is none now. */
uint64_t aiod_area_get(struct area *area, uint64_t bytes);

/* `offset` as aiod_area_get() returned it. */
void aiod_area_put(struct area *area, uint64_t offset);

/* The largest block that there could be. */
uint64_t aiod_area_largest(const struct area *area);

#endif
