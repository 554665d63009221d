/* Blocks of the buffer area never overlap, and join again when all have been given back. */
#include <string.h>

#include "../../clients/c/area.h"
#include "check.h"

#define BLOCKS 64u
#define TURNS 200000u

struct block {
    uint64_t offset;
    uint64_t bytes; /* 0: not taken */
};

static uint64_t state = 88172645463325252u;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* The pages that a block of `bytes` has: the next power of two. */
static uint32_t pages_of(uint64_t bytes)
{
    uint32_t pages = 1;

    while (pages * AREA_PAGE_BYTES < bytes) {
        pages *= 2;
    }
    return pages;
}

static void mark(unsigned char *used, const struct block *block, unsigned char from, unsigned char to)
{
    uint64_t page = block->offset / AREA_PAGE_BYTES;

    for (uint32_t i = 0; i < pages_of(block->bytes); i++) {
        CHECK(used[page + i] == from);
        used[page + i] = to;
    }
}

static void any_row_of_gets_and_puts(uint32_t page_count)
{
    unsigned char *used = calloc(page_count, 1);
    struct block blocks[BLOCKS] = {0};
    struct area area;
    uint64_t largest;
    uint64_t whole;

    CHECK(aiod_area_init(&area, page_count * AREA_PAGE_BYTES));
    largest = aiod_area_largest(&area);
    CHECK(largest <= page_count * AREA_PAGE_BYTES && largest * 2 > page_count * AREA_PAGE_BYTES);
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct block *block = &blocks[next_random() % BLOCKS];

        if (block->bytes != 0) {
            mark(used, block, 1, 0);
            aiod_area_put(&area, block->offset);
            block->bytes = 0;
            continue;
        }
        block->bytes = 1 + next_random() % (AREA_PAGE_BYTES << next_random() % 6);
        block->offset = aiod_area_get(&area, block->bytes);
        if (block->offset == UINT64_MAX) {
            block->bytes = 0;
            continue;
        }
        CHECK(block->offset % AREA_PAGE_BYTES == 0);
        CHECK(block->offset / AREA_PAGE_BYTES + pages_of(block->bytes) <= page_count);
        mark(used, block, 0, 1);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].bytes != 0) {
            aiod_area_put(&area, blocks[i].offset);
        }
    }
    whole = aiod_area_get(&area, largest);
    CHECK(whole != UINT64_MAX);
    CHECK(aiod_area_get(&area, largest) == UINT64_MAX);
    aiod_area_put(&area, whole);
    CHECK(aiod_area_get(&area, largest * 2) == UINT64_MAX);
    CHECK(aiod_area_get(&area, UINT64_MAX) == UINT64_MAX);
    aiod_area_destroy(&area);
    free(used);
}

int main(void)
{
    static const uint32_t sizes[] = {1, 2, 7, 64, 100, 255, 4096};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        any_row_of_gets_and_puts(sizes[i]);
    }
    return 0;
}
