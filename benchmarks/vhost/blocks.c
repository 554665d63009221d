#include "blocks.h"

#include <stdio.h>
#include <string.h>

static uint64_t word_of(size_t index, uint64_t block, uint32_t version, uint64_t *state)
{
    if (version == BLOCK_ZEROES) {
        return 0;
    }
    return index == 0 ? block : index == 1 ? version : next_random(state);
}

static uint64_t first_state(uint64_t block, uint32_t version)
{
    return ((block + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ version) | 1;
}

void block_fill(void *data, size_t bytes, uint64_t block, uint32_t version)
{
    uint64_t state = first_state(block, version);
    uint64_t *words = data;

    for (size_t i = 0; i < bytes / sizeof(*words); i++) {
        words[i] = word_of(i, block, version, &state);
    }
}

bool block_check(const void *data, size_t bytes, uint64_t block, uint32_t version)
{
    uint64_t state = first_state(block, version);
    const uint64_t *words = data;

    for (size_t i = 0; i < bytes / sizeof(*words); i++) {
        if (words[i] != word_of(i, block, version, &state)) {
            fprintf(stderr,
                    "block %llu, version %u expected: wrong from byte %zu on; it begins as version %llu of %llu\n",
                    (unsigned long long)block, version, i * sizeof(*words), (unsigned long long)words[1],
                    (unsigned long long)words[0]);
            return false;
        }
    }
    return true;
}
