/*
 * worker_slots.c - a bitmap of the slots in use. Called with the pool's lock held; the functions are declared in
 * pool_state.h.
 */
#include "pool/pool_state.h"

struct aiod_worker *aiod_worker_slots_take(struct aiod_pool *pool)
{
    size_t word = 0;
    size_t bit;

    while (pool->used_slots[word] == UINT64_MAX) {
        word++;
    }
    bit = (size_t)__builtin_ctzll(~pool->used_slots[word]);
    pool->used_slots[word] |= UINT64_C(1) << bit;
    return &pool->workers[word * 64 + bit];
}

void aiod_worker_slots_release(struct aiod_pool *pool, const struct aiod_worker *worker)
{
    size_t slot = (size_t)(worker - pool->workers);

    pool->used_slots[slot / 64] &= ~(UINT64_C(1) << slot % 64);
}

struct aiod_worker *aiod_worker_slots_next(struct aiod_pool *pool, size_t from)
{
    for (size_t word = from / 64; word < AIOD_SLOT_WORDS; word++) {
        uint64_t used = pool->used_slots[word];

        if (word == from / 64) {
            used &= UINT64_MAX << from % 64;
        }
        if (used != 0) {
            return &pool->workers[word * 64 + (size_t)__builtin_ctzll(used)];
        }
    }
    return NULL;
}
