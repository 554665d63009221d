/*
 * flow.h - a flow: the queued requests of one session and export, in the order in which they were queued.
 *
 * Protected by the pool's lock; fair_queue.c alone changes it.
 */
#ifndef AIOD_FLOW_H
#define AIOD_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/heap.h"

struct aiod_rate;
struct aiod_request;

#define AIOD_FLOW_RATES 2u

/* Embedded in the object whose requests these are, which outlives them. All zero at first. */
struct aiod_flow {
    struct aiod_request *first; /* queued, oldest first, by flow_next */
    struct aiod_request *last;
    size_t queued;
    unsigned active; /* in service: taken, and not done yet */
    uint64_t active_bytes;
    uint64_t deficit;                         /* bytes it may take in this turn */
    struct aiod_rate *rates[AIOD_FLOW_RATES]; /* NULL: none */
    uint64_t ticket;                          /* when its turn began; the higher, the later */
    bool control;                             /* opens, names and closes: not counted, not charged, no competitor */
    struct aiod_rate *waits_for;              /* NULL: it is in the round, if it has something queued */
    struct aiod_heap_node wait_node;          /* among those that wait for the same rate */
    struct aiod_flow *next;                   /* the round */
    struct aiod_flow *previous;
};

#endif
