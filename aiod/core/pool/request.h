/*
 * request.h - a request: queued, active, done; and nothing else.
 */
#ifndef AIOD_REQUEST_H
#define AIOD_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "util/heap.h"

struct aiod_flow;
struct aiod_worker;

/* Why a request failed: the numbers are those of every wire. */
enum aiod_reason {
#define AIOD_REASON(number, name, message) AIOD_REASON_##name = (number),
#include "reasons.def"
};

/*
 * What aiod_request.run returns for a request that it has handed to another worker (core/ops/flush.h), who gives it to
 * aiod_pool_finish(). From then on it is not the first worker's any more.
 */
#define AIOD_PARKED INT64_MIN

enum aiod_state {
    AIOD_QUEUED = 1, /* on the pool's queue; may be cancelled */
    AIOD_ACTIVE,     /* a worker has it, or it is parked; completes normally */
    AIOD_DONE,       /* result and reason are final */
};

/*
 * One entry of the pool's queue, embedded in what the submitter wants to have done.
 *
 * The submitter fills the first group, and gives up the whole until the request comes back from aiod_pool_reap(), or
 * `complete` is called.
 */
struct aiod_request {
    /* Filled by the submitter; constant until done. */
    int64_t (*run)(struct aiod_request *request);   /* on a worker, no lock held; result, -errno or AIOD_PARKED */
    uint64_t deadline_ns;                           /* CLOCK_MONOTONIC; 0: none */
    const void *group;                              /* what one worker may carry out at once; NULL: this alone */
    void (*complete)(struct aiod_request *request); /* by whoever ends it, no lock held; NULL: aiod_pool_reap() */
    struct aiod_flow *flow;                         /* whose it is (fair_queue.h); NULL: nobody's */
    uint64_t cost;                                  /* bytes that it moves */

    /* Protected by the pool's lock until done; `state` becomes AIOD_DONE without it. */
    enum aiod_state state;
    struct aiod_request *next;
    struct aiod_request *previous;
    struct aiod_request *flow_next;
    struct aiod_request *flow_previous;
    struct aiod_heap_node late; /* while it is queued and has a deadline */

    /* Protected by the pool's lock while it is in service (active_requests.c). */
    struct aiod_request *active_next;
    struct aiod_request *active_previous;
    const struct aiod_worker *worker; /* who has it in hand, if that one's turn is still `turn` */
    uint64_t turn;
    uint64_t begun_ns; /* when it was taken; started_ns is the worker's by now */
    bool slow;         /* has been found to be, and told of */

    /*
     * Written by the worker (or by who ends it while queued) before the request is pushed on the done list with
     * release order; read by the reaper after it took the list with acquire order.
     */
    int64_t result;
    enum aiod_reason reason;
    bool shared; /* others asked as well when it was taken */
    uint64_t queued_ns;
    uint64_t started_ns; /* 0: never started */
    uint64_t done_ns;
};

#endif
