#include "pool/pool_state.h"

struct aiod_worker *aiod_places_take(struct aiod_pool *pool)
{
    size_t word = 0;
    size_t bit;

    while (pool->used_places[word] == UINT64_MAX) {
        word++;
    }
    bit = (size_t)__builtin_ctzll(~pool->used_places[word]);
    pool->used_places[word] |= UINT64_C(1) << bit;
    return &pool->workers[word * 64 + bit];
}

void aiod_places_free(struct aiod_pool *pool, const struct aiod_worker *worker)
{
    size_t place = (size_t)(worker - pool->workers);

    pool->used_places[place / 64] &= ~(UINT64_C(1) << place % 64);
}

struct aiod_worker *aiod_places_next(struct aiod_pool *pool, size_t from)
{
    for (size_t word = from / 64; word < AIOD_PLACE_WORDS; word++) {
        uint64_t used = pool->used_places[word];

        if (word == from / 64) {
            used &= UINT64_MAX << from % 64;
        }
        if (used != 0) {
            return &pool->workers[word * 64 + (size_t)__builtin_ctzll(used)];
        }
    }
    return NULL;
}
