/*
 * buffer_pool.c - the buddy allocator of the buffer area.
 */
#include "buffer_pool.h"

#include <stdlib.h>

enum {
    PART, /* not the first page of a block */
    FREE,
    CACHED,
    IN_USE,
};

static void push_free(struct aiod_buffer_pool *pool, uint32_t page, unsigned order)
{
    struct aiod_pool_block *block = &pool->blocks[page];

    block->order = (uint8_t)order;
    block->state = FREE;
    block->previous = AIOD_POOL_NONE;
    block->next = pool->free[order];
    if (block->next != AIOD_POOL_NONE) {
        pool->blocks[block->next].previous = page;
    }
    pool->free[order] = page;
}

static void remove_free(struct aiod_buffer_pool *pool, uint32_t page)
{
    struct aiod_pool_block *block = &pool->blocks[page];

    if (block->previous != AIOD_POOL_NONE) {
        pool->blocks[block->previous].next = block->next;
    } else {
        pool->free[block->order] = block->next;
    }
    if (block->next != AIOD_POOL_NONE) {
        pool->blocks[block->next].previous = block->previous;
    }
    block->state = PART;
}

bool aiod_buffer_pool_init(struct aiod_buffer_pool *pool, uint64_t bytes)
{
    uint32_t page = 0;

    *pool = (struct aiod_buffer_pool){.page_count = (uint32_t)(bytes / AIOD_POOL_PAGE_BYTES)};
    pool->blocks = calloc(pool->page_count + 1u, sizeof(*pool->blocks));
    if (pool->blocks == NULL) {
        return false;
    }
    for (unsigned order = 0; order < AIOD_POOL_ORDERS; order++) {
        pool->free[order] = pool->cached[order] = AIOD_POOL_NONE;
    }
    while (page < pool->page_count) { /* the largest blocks that fit, each aligned to its size */
        unsigned order = AIOD_POOL_ORDERS - 1;

        while ((page & ((1u << order) - 1)) != 0 || (1u << order) > pool->page_count - page) {
            order--;
        }
        push_free(pool, page, order);
        page += 1u << order;
    }
    return true;
}

void aiod_buffer_pool_destroy(struct aiod_buffer_pool *pool)
{
    free(pool->blocks);
}

static unsigned order_of(uint64_t bytes)
{
    unsigned order = 0;

    while (order < AIOD_POOL_ORDERS && (AIOD_POOL_PAGE_BYTES << order) < bytes) {
        order++;
    }
    return order;
}

/* Take a free block of `order`, splitting a larger one if needed. AIOD_POOL_NONE: there is none. */
static uint32_t split(struct aiod_buffer_pool *pool, unsigned order)
{
    unsigned from = order;
    uint32_t page;

    while (from < AIOD_POOL_ORDERS && pool->free[from] == AIOD_POOL_NONE) {
        from++;
    }
    if (from == AIOD_POOL_ORDERS) {
        return AIOD_POOL_NONE;
    }
    page = pool->free[from];
    remove_free(pool, page);
    while (from > order) {
        from--;
        push_free(pool, page + (1u << from), from);
    }
    return page;
}

/* Make the block free, joined with its buddies as far as they are free. */
static void join(struct aiod_buffer_pool *pool, uint32_t page, unsigned order)
{
    while (order + 1 < AIOD_POOL_ORDERS) {
        uint32_t buddy = page ^ (1u << order);

        if (buddy >= pool->page_count || pool->blocks[buddy].state != FREE || pool->blocks[buddy].order != order) {
            break;
        }
        remove_free(pool, buddy);
        pool->blocks[page].state = PART;
        page &= ~(1u << order);
        order++;
    }
    push_free(pool, page, order);
}

/* Make all cached blocks free. */
static void join_cached(struct aiod_buffer_pool *pool)
{
    for (unsigned order = 0; order < AIOD_POOL_ORDERS; order++) {
        while (pool->cached[order] != AIOD_POOL_NONE) {
            uint32_t page = pool->cached[order];

            pool->cached[order] = pool->blocks[page].next;
            join(pool, page, order);
        }
        pool->cached_count[order] = 0;
    }
}

uint64_t aiod_buffer_pool_get(struct aiod_buffer_pool *pool, uint64_t bytes)
{
    unsigned order = order_of(bytes);
    uint32_t page;

    if (order >= AIOD_POOL_ORDERS) {
        return UINT64_MAX;
    }
    page = pool->cached[order];
    if (page != AIOD_POOL_NONE) {
        pool->cached[order] = pool->blocks[page].next;
        pool->cached_count[order]--;
    } else {
        page = split(pool, order);
        if (page == AIOD_POOL_NONE) {
            join_cached(pool);
            page = split(pool, order);
        }
    }
    if (page == AIOD_POOL_NONE) {
        return UINT64_MAX;
    }
    pool->blocks[page].order = (uint8_t)order;
    pool->blocks[page].state = IN_USE;
    return page * AIOD_POOL_PAGE_BYTES;
}

void aiod_buffer_pool_release(struct aiod_buffer_pool *pool, uint64_t offset)
{
    uint32_t page = (uint32_t)(offset / AIOD_POOL_PAGE_BYTES);
    struct aiod_pool_block *block = &pool->blocks[page];
    unsigned order = block->order;

    if (pool->cached_count[order] == AIOD_POOL_CACHED_MAX) {
        join(pool, page, order);
        return;
    }
    block->state = CACHED;
    block->next = pool->cached[order];
    pool->cached[order] = page;
    pool->cached_count[order]++;
}

uint64_t aiod_buffer_pool_largest(const struct aiod_buffer_pool *pool)
{
    unsigned order = AIOD_POOL_ORDERS - 1;

    while (order > 0 && (1u << order) > pool->page_count) {
        order--;
    }
    return pool->page_count == 0 ? 0 : AIOD_POOL_PAGE_BYTES << order;
}
