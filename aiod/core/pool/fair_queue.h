/*
 * fair_queue.h - whose request is next: the queue as seen by its queue, one for each session and export.
 *
 * Deficit round robin (Shreedhar, Varghese: Efficient Fair Queueing using Deficit Round Robin, SIGCOMM 1995), weighted by bytes.
 * A flow that comes with nothing in service is next (as the new flows of RFC 8290): who asks for one thing at a time does not
 * wait for those who ask for thousands.
 *
 * Order in the queue alone does not help against what is in service already: so while more than one flow asks, each may have
 * only so much in service (active_max, active_bytes_max); and the last workers are for flows that have nothing in service
 * (aiod_pool_share).
 *
 * A flow whose rate is used up (rate.h: that of its export, and of its user) leaves the round, and waits for that rate in the
 * order of tickets: a flow gets one when it comes, and a new one at the end of each of its turns. When the rate is ready it
 * calls the flow of the oldest ticket back into the round; when a request of that one has passed and the rate is ready still,
 * the next one. A flow does not pass by a rate that an older ticket waits for. So thousands that wait cost those in the round
 * nothing, and none of them waits for ever.
 *
 * Nothing more is taken of an export of which slow_max requests hang until one of them ends: so it leaves workers to the others.
 * Its opens, names and closes are a flow of the export's own (aiod_rate.control), which neither competes nor pays.
 *
 * Private to the pool: everything here with its lock held. A step costs the same however long the queue is, and O(log n) by the
 * flows that wait.
 */
#ifndef AIOD_FAIR_QUEUE_H
#define AIOD_FAIR_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/flow.h"
#include "pool/rate.h"
#include "pool/request.h"

struct aiod_fair_queue {
    struct aiod_flow own;   /* requests of nobody's: never held back */
    struct aiod_flow *turn; /* the round of those that need not wait: whose it is; NULL: there are none */
    size_t round;           /* flows in it */
    size_t waiting;         /* queued in flows that wait for a rate */
    size_t held;            /* queued in those, and in flows that have as much in service as they may */
    size_t fresh;           /* queued in flows that have nothing in service, and need not wait */
    unsigned active_max;    /* requests; 0: no limit */
    uint64_t active_bytes_max;
    unsigned slow_max; /* of an export, requests that hang, beside which nothing more of it is taken; 0: no limit */
    const struct aiod_flow *latest; /* who has asked last; compared only */
    uint64_t shared_ns;             /* when somebody else had asked before; and `shared`: not long ago */
    bool shared;
    uint64_t tickets;       /* given out so far */
    struct aiod_heap rates; /* those that somebody waits for, by when they are ready */
    bool unlimited;         /* rates are not heeded any more */
};

/* Is it limited by a rate? Then nothing of it passes without having been picked. */
bool aiod_flow_limited(const struct aiod_flow *flow);

/* When aiod_fair_queue_release_ready() is wanted: the first of the rates that are waited for is ready; UINT64_MAX: none is waited for. */
uint64_t aiod_fair_queue_next_release_ns(const struct aiod_fair_queue *queue);

/* Each rate that is ready calls the flow whose turn it is. */
void aiod_fair_queue_release_ready(struct aiod_fair_queue *queue, uint64_t now_ns);

/* `rate` has other limits: whoever waits for it looks again. */
void aiod_fair_queue_release_all(struct aiod_fair_queue *queue, struct aiod_rate *rate);

/* Nobody waits for any rate any more. */
void aiod_fair_queue_disable_rates(struct aiod_fair_queue *queue);

void aiod_fair_queue_add(struct aiod_fair_queue *queue, struct aiod_request *request);

/* It is not queued any more. */
void aiod_fair_queue_remove(struct aiod_fair_queue *queue, struct aiod_request *request);

/* Time passes: who is alone is held back no more. */
void aiod_fair_queue_update(struct aiod_fair_queue *queue, uint64_t now_ns);

/* What is to be taken next; still queued. NULL: nothing, or it is held back. `only_fresh`: of flows with nothing in service. */
struct aiod_request *aiod_fair_queue_pick(struct aiod_fair_queue *queue, bool only_fresh, uint64_t now_ns);

/*
 * A worker that carries out another request would do this queued one with it: true if its rates let it pass now, for which they
 * are charged. It saves work, so that it need not wait for its turn.
 */
bool aiod_fair_queue_take_along(struct aiod_fair_queue *queue, const struct aiod_request *request, uint64_t now_ns);

/* It is in service from now on; and until now. */
void aiod_fair_queue_started(struct aiod_fair_queue *queue, struct aiod_request *request);
void aiod_fair_queue_done(struct aiod_fair_queue *queue, struct aiod_request *request);

/* It has been in service for so long that it counts as hanging: no more against its flow, but against its export. */
void aiod_fair_queue_mark_slow(struct aiod_fair_queue *queue, struct aiod_request *request);

/* It has ended all the same. */
void aiod_fair_queue_slow_done(struct aiod_fair_queue *queue, struct aiod_request *request);

void aiod_fair_queue_limit(struct aiod_fair_queue *queue, unsigned active_max, uint64_t active_bytes_max);

void aiod_fair_queue_limit_slow(struct aiod_fair_queue *queue, unsigned slow_max);

#endif
