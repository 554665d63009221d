/*
 * rate.h - a rate limiter for requests and bytes.
 *
 * Algorithm: a token bucket, represented by the time at which all its tokens would be used up (GCRA, the virtual
 * scheduling algorithm of ITU-T I.371). A request passes if that time is at most one burst ahead, whatever the size of
 * the request, and advances it by the request's cost. A large request therefore passes at once, and later requests wait
 * longer.
 *
 * Belongs to the pool and is used with the pool's lock held. The references are counted by the main loop.
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
    uint64_t burst_ns;         /* unused capacity of either limit that may be saved up */
};

struct aiod_rate {
    unsigned refs;
    struct aiod_rate_limits limits;
    uint64_t requests_until_ns; /* the time at which the requests that passed are paid for */
    uint64_t bytes_until_ns;

    /* Used by fair_queue.c. */
    unsigned waiting_flows;      /* flows that wait for the rate */
    uint64_t throttled_since_ns; /* when the first of them began to wait */
    uint64_t throttled_ns;       /* the time in which flows have waited, until the last one was released */
    unsigned slow;               /* slow requests of the rate's export */
    struct aiod_flow control;    /* opens, names and closes of the rate's export */
    struct aiod_heap waiting;    /* flows, by ticket: the oldest is next */
    struct aiod_heap_node ready; /* in the heap of rates with waiting flows, by the time when the next flow may pass */
};

/* Create a rate without limits, and with one reference. NULL if there is no memory. */
struct aiod_rate *aiod_rate_create(void);
void aiod_rate_ref(struct aiod_rate *rate);
void aiod_rate_unref(struct aiod_rate *rate); /* NULL is ignored */

/* Set new limits, and forget the debts. */
void aiod_rate_set(struct aiod_rate *rate, const struct aiod_rate_limits *limits);

/* Is there a limit? Any thread, without the lock. */
bool aiod_rate_is_limited(const struct aiod_rate *rate);

/* The time when the next request may pass; 0: now. */
uint64_t aiod_rate_ready_ns(const struct aiod_rate *rate, uint64_t now_ns);

/* Charge for a request of `bytes` bytes that passes. */
void aiod_rate_take(struct aiod_rate *rate, uint64_t now_ns, uint64_t bytes);

#endif
