/* Latencies by size: powers of two, each in 64 parts, as in aiod-bench. */
#ifndef VHOST_LATENCY_H
#define VHOST_LATENCY_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define LATENCY_SUB_BITS 6
#define LATENCY_BUCKETS (64u << LATENCY_SUB_BITS)

struct latency {
    uint64_t count;
    uint64_t max_ns;
    uint64_t buckets[LATENCY_BUCKETS];
};

static inline uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void latency_add(struct latency *latency, uint64_t ns)
{
    unsigned top = ns == 0 ? 0 : 63u - (unsigned)__builtin_clzll(ns);
    uint64_t bucket = ns;

    if (top >= LATENCY_SUB_BITS) {
        bucket = ((uint64_t)(top - LATENCY_SUB_BITS + 1) << LATENCY_SUB_BITS) +
                 ((ns >> (top - LATENCY_SUB_BITS)) & ((1u << LATENCY_SUB_BITS) - 1));
    }
    latency->buckets[bucket]++;
    latency->count++;
    latency->max_ns = ns > latency->max_ns ? ns : latency->max_ns;
}

static inline void latency_merge(struct latency *into, const struct latency *from)
{
    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
    into->count += from->count;
    into->max_ns = from->max_ns > into->max_ns ? from->max_ns : into->max_ns;
}

/* The latency that `share` of the requests do not exceed, in microseconds. */
static inline double latency_us(const struct latency *latency, double share)
{
    uint64_t wanted = (uint64_t)((double)latency->count * share);
    uint64_t seen = 0;

    for (size_t i = 0; i < LATENCY_BUCKETS; i++) {
        size_t group = i >> LATENCY_SUB_BITS;
        uint64_t within = i & ((1u << LATENCY_SUB_BITS) - 1);

        seen += latency->buckets[i];
        if (seen > wanted) {
            return (double)(group == 0 ? within : ((1u << LATENCY_SUB_BITS) + within) << (group - 1)) / 1000.0;
        }
    }
    return (double)latency->max_ns / 1000.0;
}

#endif
