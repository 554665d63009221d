/*
 * request.h - a request and its states: queued, active, done.
 *
 * A request is embedded in the object that it belongs to. Who may touch its fields, and under which lock, stands in the
 * struct.
 */
#ifndef AIOD_REQUEST_H
#define AIOD_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "util/heap.h"

struct aiod_flow;
struct aiod_lane;
struct aiod_request;
struct io_uring_sqe;
struct aiod_worker;

/* Why a request failed: the numbers are those of every wire. */
enum aiod_reason {
#define AIOD_REASON(number, name, message) AIOD_REASON_##name = (number),
#include "reasons.def"
};

/*
 * The result of aiod_request.run if the request was parked: another worker ends it by aiod_pool_finish(), as flushes do
 * (core/ops/flush.h). The first worker must not touch it any more.
 */
#define AIOD_PARKED INT64_MIN

/*
 * How a request is started by io_uring (uring.h). Called without a lock by one thread at a time.
 */
struct aiod_uring_operations {
    /* Fill the entry, except for its user data. False: a worker must run the request. */
    bool (*start)(struct aiod_request *request, struct io_uring_sqe *sqe);
    /* The kernel's result: the request's result, AIOD_URING_AGAIN or AIOD_URING_RUN. */
    int64_t (*ended)(struct aiod_request *request, int result);
    bool also_alone; /* else a polling worker that finds the request alone runs it, which takes less time */
};

#define AIOD_URING_AGAIN (INT64_MIN + 1) /* a part has been transferred: start() the rest */
#define AIOD_URING_RUN (INT64_MIN + 2)   /* nothing has begun, or all may be repeated: a worker must run the request */

enum aiod_state {
    AIOD_QUEUED = 1, /* in the pool's queue; can be cancelled */
    AIOD_ACTIVE,     /* taken by a worker, or parked; completes normally */
    AIOD_DONE,       /* result and reason are final */
};

/*
 * One entry of the pool's queue.
 *
 * The submitter fills the first group, and must not touch the request until aiod_pool_reap() returns it, or `complete`
 * is called.
 */
struct aiod_request {
    /* Filled by the submitter; constant until done. */
    /* called by a worker without a lock; the result, -errno or AIOD_PARKED */
    int64_t (*run)(struct aiod_request *request);
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    /* requests with the same group can be carried out together; NULL: only alone */
    const void *group;
    /* called without a lock by the thread that ends the request; NULL: aiod_pool_reap() returns it */
    void (*complete)(struct aiod_request *request);
    const struct aiod_uring_operations *uring; /* NULL: only run() */
    struct aiod_flow *flow;                    /* the flow it counts for (fair_queue.h); NULL: none */
    uint64_t cost;                             /* bytes that the request moves */
    uint64_t cookie;                           /* of the client; only a probe uses it */

    /* the lane whose turn it needs (lane.h); the pool sets it to NULL when the request passes the turn on; NULL: none */
    struct aiod_lane *lane;

    /* Protected by the pool's lock until done; `state` becomes AIOD_DONE without it. */
    enum aiod_state state;
    struct aiod_request *next;
    struct aiod_request *previous;
    struct aiod_request *flow_next;
    struct aiod_request *flow_previous;
    bool waits_in_lane;         /* queued in its lane: flow_next and flow_previous are its neighbours there */
    struct aiod_heap_node late; /* while the request is queued and has a deadline */

    /* Protected by the pool's lock while the request is active (active_requests.c). */
    struct aiod_request *active_next;
    struct aiod_request *active_previous;
    const struct aiod_worker *worker; /* the worker that works on it, if the worker's turn still equals `turn` */
    uint64_t turn;
    int32_t tid;       /* the thread of that worker; 0: none. Constant when done */
    uint64_t begun_ns; /* when a worker took it (started_ns may be changed by the worker) */
    bool slow;         /* was found to be slow */
    bool started;      /* by io_uring: no worker waits for it */
    bool charged;      /* its rates are charged: it was taken before, and returned to the queue */

    /*
     * Written by the worker, or by the thread that ends a queued request, before the request is pushed on the done list
     * with release order; read by the reaper after it took the list with acquire order.
     */
    int64_t result;
    enum aiod_reason reason;
    bool shared; /* several flows were submitting when it was taken */
    uint64_t queued_ns;
    uint64_t started_ns; /* 0: never started */
    uint64_t done_ns;
    /* when complete() is called: the same thread ends others of the lane next, and calls aiod_idle_polling.announce() then */
    bool more_follow;
};

#endif
