/*
 * Blocks that can be verified: each has its number, a version, and bytes that follow from both. The version of a block
 * says which of its writes it holds.
 */
#ifndef VHOST_BLOCKS_H
#define VHOST_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Versions that no write has. */
enum {
    BLOCK_UNKNOWN = 0,
    BLOCK_ZEROES = UINT32_MAX,
};

/* xorshift64*, Marsaglia 2003 and Vigna 2016. `state` is not zero. */
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* `bytes` is a multiple of 8, and 16 at least. */
void block_fill(void *data, size_t bytes, uint64_t block, uint32_t version);

/* Whether the block holds this version. Prints what it holds if it does not. */
bool block_check(const void *data, size_t bytes, uint64_t block, uint32_t version);

#endif
