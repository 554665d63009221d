#include "area.h"

#include <stdlib.h>

enum {
    PART, /* not the first page of a block */
    FREE,
    KEPT,
    TAKEN,
};

static void push_free(struct area *area, uint32_t page, unsigned order)
{
    struct area_block *block = &area->blocks[page];

    block->order = (uint8_t)order;
    block->state = FREE;
    block->previous = AREA_NONE;
    block->next = area->free[order];
    if (block->next != AREA_NONE) {
        area->blocks[block->next].previous = page;
    }
    area->free[order] = page;
}

static void remove_free(struct area *area, uint32_t page)
{
    struct area_block *block = &area->blocks[page];

    if (block->previous != AREA_NONE) {
        area->blocks[block->previous].next = block->next;
    } else {
        area->free[block->order] = block->next;
    }
    if (block->next != AREA_NONE) {
        area->blocks[block->next].previous = block->previous;
    }
    block->state = PART;
}

bool aiod_area_init(struct area *area, uint64_t bytes)
{
    uint32_t page = 0;

    *area = (struct area){.page_count = (uint32_t)(bytes / AREA_PAGE_BYTES)};
    area->blocks = calloc(area->page_count + 1u, sizeof(*area->blocks));
    if (area->blocks == NULL) {
        return false;
    }
    for (unsigned order = 0; order < AREA_ORDERS; order++) {
        area->free[order] = area->kept[order] = AREA_NONE;
    }
    while (page < area->page_count) { /* the largest blocks that fit, each at a multiple of its size */
        unsigned order = AREA_ORDERS - 1;

        while ((page & ((1u << order) - 1)) != 0 || (1u << order) > area->page_count - page) {
            order--;
        }
        push_free(area, page, order);
        page += 1u << order;
    }
    return true;
}

void aiod_area_destroy(struct area *area)
{
    free(area->blocks);
}

static unsigned order_of(uint64_t bytes)
{
    unsigned order = 0;

    while (order < AREA_ORDERS && (AREA_PAGE_BYTES << order) < bytes) {
        order++;
    }
    return order;
}

/* Take a free block of `order`, splitting a larger one; AREA_NONE: there is none. */
static uint32_t split(struct area *area, unsigned order)
{
    unsigned from = order;
    uint32_t page;

    while (from < AREA_ORDERS && area->free[from] == AREA_NONE) {
        from++;
    }
    if (from == AREA_ORDERS) {
        return AREA_NONE;
    }
    page = area->free[from];
    remove_free(area, page);
    while (from > order) {
        from--;
        push_free(area, page + (1u << from), from);
    }
    return page;
}

/* Join the block with its buddies as far as they are free. */
static void join(struct area *area, uint32_t page, unsigned order)
{
    while (order + 1 < AREA_ORDERS) {
        uint32_t buddy = page ^ (1u << order);

        if (buddy >= area->page_count || area->blocks[buddy].state != FREE || area->blocks[buddy].order != order) {
            break;
        }
        remove_free(area, buddy);
        area->blocks[page].state = PART;
        page &= ~(1u << order);
        order++;
    }
    push_free(area, page, order);
}

/* Have nothing kept any more. */
static void join_kept(struct area *area)
{
    for (unsigned order = 0; order < AREA_ORDERS; order++) {
        while (area->kept[order] != AREA_NONE) {
            uint32_t page = area->kept[order];

            area->kept[order] = area->blocks[page].next;
            join(area, page, order);
        }
        area->kept_count[order] = 0;
    }
}

uint64_t aiod_area_get(struct area *area, uint64_t bytes)
{
    unsigned order = order_of(bytes);
    uint32_t page;

    if (order >= AREA_ORDERS) {
        return UINT64_MAX;
    }
    page = area->kept[order];
    if (page != AREA_NONE) {
        area->kept[order] = area->blocks[page].next;
        area->kept_count[order]--;
    } else {
        page = split(area, order);
        if (page == AREA_NONE) {
            join_kept(area);
            page = split(area, order);
        }
    }
    if (page == AREA_NONE) {
        return UINT64_MAX;
    }
    area->blocks[page].order = (uint8_t)order;
    area->blocks[page].state = TAKEN;
    return page * AREA_PAGE_BYTES;
}

void aiod_area_put(struct area *area, uint64_t offset)
{
    uint32_t page = (uint32_t)(offset / AREA_PAGE_BYTES);
    struct area_block *block = &area->blocks[page];
    unsigned order = block->order;

    if (area->kept_count[order] == AREA_KEPT_MAX) {
        join(area, page, order);
        return;
    }
    block->state = KEPT;
    block->next = area->kept[order];
    area->kept[order] = page;
    area->kept_count[order]++;
}

uint64_t aiod_area_largest(const struct area *area)
{
    unsigned order = AREA_ORDERS - 1;

    while (order > 0 && (1u << order) > area->page_count) {
        order--;
    }
    return area->page_count == 0 ? 0 : AREA_PAGE_BYTES << order;
}
