/*
 * fair_queue.h - decides which queued request is next, fairly among flows. A flow holds the requests of one session and
 * export.
 *
 * Algorithm: deficit round robin (Shreedhar and Varghese, Efficient Fair Queueing using Deficit Round Robin, SIGCOMM
 * 1995), weighted by bytes. A flow that becomes busy without active requests is next, as the new flows of RFC 8290: a
 * client with one request at a time does not wait behind clients with thousands.
 *
 * Limits on active requests. The order of the queue does not help against requests that are active already. While
 * several flows submit, each may have only active_max requests and active_bytes_max bytes active, and the last workers
 * are reserved for flows without active requests (aiod_pool_set_shares()).
 *
 * Rates. A flow that has used up a rate (rate.h) of its export or of its user leaves the round and waits for that rate.
 * Waiting flows are ordered by ticket: a flow gets a ticket when it becomes busy, and a new one at the end of each
 * turn. A rate that is ready releases the flow with the oldest ticket into the round, and the next one when a request
 * of that flow has passed and the rate is still ready. No flow passes a rate for which a flow with an older ticket
 * waits. Thousands of waiting flows therefore cost the round nothing, and no flow starves.
 *
 * Exports that hang. While slow_max requests of an export are slow, no request of that export is taken, so that workers
 * remain for other exports. Opens, names and closes of an export are a flow of its own (aiod_rate.control), which is
 * neither counted nor charged.
 *
 * Lanes. Of the requests of a lane (lane.h) one is queued in its flow, or active, and the others wait in the lane.
 *
 * Private to the pool: all functions are called with the pool's lock held. The cost of a step does not depend on the
 * length of the queue, and grows with the logarithm of the number of waiting flows.
 */
#ifndef AIOD_FAIR_QUEUE_H
#define AIOD_FAIR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/flow.h"
#include "pool/lane.h"
#include "pool/rate.h"
#include "pool/request.h"

struct aiod_fair_queue {
    struct aiod_flow own;   /* requests without a flow: never held back */
    struct aiod_flow *turn; /* the flow whose turn it is; the flows that need not wait form a ring; NULL: none */
    size_t round;           /* flows in the ring */
    size_t waiting;         /* requests queued in flows that wait for a rate */
    size_t held;            /* requests queued in waiting flows, and in flows at a limit on active requests */
    size_t in_lanes;        /* requests that wait for the turn of their lane, and are queued in no flow */
    size_t fresh;           /* requests queued in flows that have no active requests and need not wait */
    unsigned active_max;    /* requests; 0: no limit */
    uint64_t active_bytes_max;
    unsigned slow_max;              /* slow requests of one export at which no more of it is taken; 0: no limit */
    const struct aiod_flow *latest; /* the flow that submitted last; only compared */
    uint64_t shared_ns;             /* the time of the last submission by another flow; `shared`: it is recent */
    bool shared;
    uint64_t tickets;       /* the last ticket */
    struct aiod_heap rates; /* rates with waiting flows, by the time when they are ready */
    bool unlimited;         /* rates are ignored */
};

/* Does a rate limit the flow? Then its requests must be picked from the queue, and not be executed inline. */
bool aiod_flow_limited(const struct aiod_flow *flow);

/* The time of the next aiod_fair_queue_release_ready(), when the first rate is ready; UINT64_MAX: no flow waits. */
uint64_t aiod_fair_queue_next_release_ns(const struct aiod_fair_queue *queue);

/* Release flows whose rate limit has refilled. */
void aiod_fair_queue_release_ready(struct aiod_fair_queue *queue, uint64_t now_ns);

/* The limits of `rate` changed: release all its flows, which check the new limits. */
void aiod_fair_queue_release_all(struct aiod_fair_queue *queue, struct aiod_rate *rate);

/* Disable rate limiting: release all waiting flows, for good. */
void aiod_fair_queue_disable_rates(struct aiod_fair_queue *queue);

void aiod_fair_queue_add(struct aiod_fair_queue *queue, struct aiod_request *request);

/* The request leaves the queue. If it has the turn of its lane, it keeps that. */
void aiod_fair_queue_remove(struct aiod_fair_queue *queue, struct aiod_request *request);

/* The request has ended, or will not be started, or is slow: if it has the turn of its lane, it passes the turn on. */
void aiod_fair_queue_leave_lane(struct aiod_fair_queue *queue, struct aiod_request *request);

/* Update `shared`: a flow that has been alone for a while is no longer held back. */
void aiod_fair_queue_update(struct aiod_fair_queue *queue, uint64_t now_ns);

/*
 * The request to take next, still queued. NULL: none may be taken. `only_fresh`: only from flows without active
 * requests.
 */
struct aiod_request *aiod_fair_queue_pick(struct aiod_fair_queue *queue, bool only_fresh, uint64_t now_ns);

/* The same, of requests that can be started (aiod_request.uring), and that are the first of their flow. */
struct aiod_request *aiod_fair_queue_pick_startable(struct aiod_fair_queue *queue, bool only_fresh, uint64_t now_ns);

/*
 * May a worker take this queued request along with the one it carries out? True: its rates have room, and are charged.
 * It need not wait for its turn, because taking it along saves work.
 */
bool aiod_fair_queue_take_along(struct aiod_fair_queue *queue, const struct aiod_request *request, uint64_t now_ns);

/* The request becomes active; it ends. */
void aiod_fair_queue_started(struct aiod_fair_queue *queue, struct aiod_request *request);
void aiod_fair_queue_done(struct aiod_fair_queue *queue, struct aiod_request *request);

/* The request is slow: it counts against its export from now on, and no longer against its flow. */
void aiod_fair_queue_mark_slow(struct aiod_fair_queue *queue, struct aiod_request *request);

/* A slow request ended. */
void aiod_fair_queue_slow_done(struct aiod_fair_queue *queue, struct aiod_request *request);

void aiod_fair_queue_limit(struct aiod_fair_queue *queue, unsigned active_max, uint64_t active_bytes_max);

void aiod_fair_queue_limit_slow(struct aiod_fair_queue *queue, unsigned slow_max);

#endif
