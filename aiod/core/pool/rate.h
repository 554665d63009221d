/*
 * rate.h - how often something may happen: a token bucket as one number, the time by which its tokens would all be used (GCRA,
 * the virtual scheduling algorithm of ITU-T I.371).
 *
 * A request passes when that time is at most a burst away, whatever its size, and moves it on by its own cost: so a large one
 * passes, and those behind it wait the longer.
 *
 * Belongs to the pool: used with its lock held. What refers to it counts (main loop only).
 */
#ifndef AIOD_RATE_H
#define AIOD_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/flow.h"
#include "util/heap.h"

struct aiod_rate_limits {
    uint64_t per_second;       /* requests; 0: no limit */
    uint64_t bytes_per_second; /* 0: no limit */
    uint64_t burst_ns;         /* of either, what may be saved up */
};

struct aiod_rate {
    unsigned refs;
    struct aiod_rate_limits limits;
    uint64_t requests_until_ns; /* when the tokens of what has passed are there */
    uint64_t bytes_until_ns;

    /* Of fair_queue.c. */
    unsigned slow;               /* of the export whose rate it is: requests that hang in service */
    struct aiod_flow control;    /* of that export: opens, names and closes */
    struct aiod_heap waiting;    /* flows, by their tickets: the oldest is next */
    struct aiod_heap_node ready; /* while some wait: among the rates, by when the next of them may pass */
};

/* No limits, one reference. NULL: no memory. */
struct aiod_rate *aiod_rate_create(void);
void aiod_rate_ref(struct aiod_rate *rate);
void aiod_rate_unref(struct aiod_rate *rate); /* NULL: nothing */

/* Other limits, and no debts. */
void aiod_rate_set(struct aiod_rate *rate, const struct aiod_rate_limits *limits);

/* Has it a limit? Any thread, without the lock. */
bool aiod_rate_is_limited(const struct aiod_rate *rate);

/* When the next request may pass: 0 for at once, else after `now_ns`. */
uint64_t aiod_rate_ready_ns(const struct aiod_rate *rate, uint64_t now_ns);

/* A request of `bytes` passes. */
void aiod_rate_take(struct aiod_rate *rate, uint64_t now_ns, uint64_t bytes);

#endif
