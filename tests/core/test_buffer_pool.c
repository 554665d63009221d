/* Blocks of a buffer pool never overlap, and join again when all of them have been released. */
#include <string.h>

#include "../../clients/c/buffer_pool.h"
#include "check.h"

#define BLOCKS 64u
#define TURNS 200000u

struct block {
    uint64_t offset;
    uint64_t bytes; /* 0: not in use */
};

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* The number of pages of a block of `bytes`: the next power of two. */
static uint32_t pages_of(uint64_t bytes)
{
    uint32_t pages = 1;

    while (pages * AIOD_POOL_PAGE_BYTES < bytes) {
        pages *= 2;
    }
    return pages;
}

static void mark(unsigned char *used, const struct block *block, unsigned char from, unsigned char to)
{
    uint64_t page = block->offset / AIOD_POOL_PAGE_BYTES;

    for (uint32_t i = 0; i < pages_of(block->bytes); i++) {
        CHECK(used[page + i] == from);
        used[page + i] = to;
    }
}

static void blocks_never_overlap_and_join_again(uint32_t page_count)
{
    unsigned char *used = calloc(page_count, 1);
    struct block blocks[BLOCKS] = {0};
    struct aiod_buffer_pool pool;
    uint64_t largest;
    uint64_t whole;

    CHECK(aiod_buffer_pool_init(&pool, page_count * AIOD_POOL_PAGE_BYTES));
    largest = aiod_buffer_pool_largest(&pool);
    CHECK(largest <= page_count * AIOD_POOL_PAGE_BYTES && largest * 2 > page_count * AIOD_POOL_PAGE_BYTES);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct block *block = &blocks[next_random() % BLOCKS];

        if (block->bytes != 0) {
            mark(used, block, 1, 0);
            aiod_buffer_pool_release(&pool, block->offset);
            block->bytes = 0;
            continue;
        }
        block->bytes = 1 + next_random() % (AIOD_POOL_PAGE_BYTES << next_random() % 6);
        block->offset = aiod_buffer_pool_get(&pool, block->bytes);
        if (block->offset == UINT64_MAX) {
            block->bytes = 0;
            continue;
        }
        CHECK(block->offset % AIOD_POOL_PAGE_BYTES == 0);
        CHECK(block->offset / AIOD_POOL_PAGE_BYTES + pages_of(block->bytes) <= page_count);
        mark(used, block, 0, 1);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].bytes != 0) {
            aiod_buffer_pool_release(&pool, blocks[i].offset);
        }
    }
    whole = aiod_buffer_pool_get(&pool, largest);
    CHECK(whole != UINT64_MAX);
    CHECK(aiod_buffer_pool_get(&pool, largest) == UINT64_MAX);
    aiod_buffer_pool_release(&pool, whole);
    CHECK(aiod_buffer_pool_get(&pool, largest * 2) == UINT64_MAX);
    CHECK(aiod_buffer_pool_get(&pool, UINT64_MAX) == UINT64_MAX);
    aiod_buffer_pool_destroy(&pool);
    free(used);
}

int main(void)
{
    static const uint32_t sizes[] = {1, 2, 7, 64, 100, 255, 4096};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        blocks_never_overlap_and_join_again(sizes[i]);
    }
    return 0;
}
