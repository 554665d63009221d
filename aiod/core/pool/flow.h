/*
 * flow.h - a flow: the queued requests of one session and export, in the order of submission.
 *
 * Protected by the pool's lock. Only fair_queue.c changes it.
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

/* Embedded in the object that submits the requests, which lives longer than they do. All zero at first. */
struct aiod_flow {
    struct aiod_request *first; /* queued, oldest first, by flow_next */
    struct aiod_request *last;
    size_t queued;
    unsigned active; /* active: taken by a worker, and not ended */
    uint64_t active_bytes;
    uint64_t deficit;                         /* bytes that the flow may still take in this turn */
    struct aiod_rate *rates[AIOD_FLOW_RATES]; /* NULL: none */
    uint64_t ticket;                          /* the order of flows that wait for a rate: lower is older */
    bool control;                             /* opens, names and closes: not counted, not charged */
    struct aiod_rate *waits_for;              /* NULL: in the round, if it has queued requests */
    struct aiod_heap_node wait_node;          /* in the heap of flows that wait for the same rate */
    struct aiod_flow *next;                   /* neighbours in the round */
    struct aiod_flow *previous;
};

#endif
