/*
 * fair_queue.c - deficit round robin with rate limits (fair_queue.h explains the algorithm). Called with the pool's
 * lock held.
 */
#include "pool/fair_queue.h"

#include <stddef.h>

#include "util/os.h"

#define QUANTUM (UINT64_C(64) * 1024) /* bytes that a flow may take per turn */
#define OVERHEAD UINT64_C(4096)       /* bytes added to the cost of each request */
#define SHARED_NS UINT64_C(100000000) /* the workers are shared if two flows submitted within this time */
#define VISITS_MAX 256u               /* limits the search for the next flow, which holds the pool's lock */
/* flows that one rate releases at once, as long as each of them is held back for another reason */
#define RELEASED_MAX 16u
#define RELEASE_INTERVAL_NS UINT64_C(5000000) /* until the next release, if the released flow takes nothing */

static struct aiod_flow *flow_of(struct aiod_fair_queue *queue, const struct aiod_request *request)
{
    return request->flow != NULL ? request->flow : &queue->own;
}

/* Has the flow's export reached the limit of slow requests? */
static bool is_blocked(const struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    return queue->slow_max != 0 && !queue->unlimited && flow->rates[0] != NULL &&
           flow->rates[0]->slow >= queue->slow_max;
}

static bool is_fresh(const struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    return flow->active == 0 && flow->waits_for == NULL && !is_blocked(queue, flow);
}

static bool is_held(const struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    if (flow->waits_for != NULL || is_blocked(queue, flow)) {
        return true;
    }
    if (!queue->shared) {
        return false;
    }
    return (queue->active_max != 0 && flow->active >= queue->active_max) ||
           (queue->active_bytes_max != 0 && flow->active_bytes >= queue->active_bytes_max);
}

/* A change of a flow is framed by these two: they remove its counts from the queue's sums, and add them again. */
static void leave_sums(struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    queue->waiting -= flow->waits_for != NULL ? flow->queued : 0;
    queue->held -= is_held(queue, flow) ? flow->queued : 0;
    queue->fresh -= is_fresh(queue, flow) ? flow->queued : 0;
}

static void enter_sums(struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    queue->waiting += flow->waits_for != NULL ? flow->queued : 0;
    queue->held += is_held(queue, flow) ? flow->queued : 0;
    queue->fresh += is_fresh(queue, flow) ? flow->queued : 0;
}

/* ---- the round --------------------------------------------------------------------------------------------------- */

/* Append the flow to the round. */
static void enter_round(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    if (queue->turn == NULL) {
        flow->next = flow->previous = flow;
        queue->turn = flow;
    } else {
        flow->next = queue->turn;
        flow->previous = queue->turn->previous;
        flow->previous->next = flow;
        flow->next->previous = flow;
    }
    queue->round++;
}

static void leave_round(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    if (queue->turn == flow) {
        queue->turn = flow->next != flow ? flow->next : NULL;
    }
    flow->previous->next = flow->next;
    flow->next->previous = flow->previous;
    queue->round--;
}

/* The flow has requests again. It gets a new ticket; without active requests it is next. */
static void become_busy(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    enter_round(queue, flow);
    flow->ticket = ++queue->tickets;
    flow->deficit = 0;
    if (flow->active == 0) {
        flow->deficit = QUANTUM;
        queue->turn = flow;
    }
}

/* The flow's turn ends: it gets a new quantum, and a ticket behind all others. */
static void next_turn(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    flow->deficit += QUANTUM;
    flow->ticket = ++queue->tickets;
}

static uint64_t cost_of_first(const struct aiod_flow *flow)
{
    return flow->first->cost + OVERHEAD;
}

/* A rule changed for all flows: compute the sums again. */
static void recount(struct aiod_fair_queue *queue)
{
    struct aiod_flow *flow = queue->turn;

    queue->held = queue->waiting;
    queue->fresh = 0;
    for (size_t i = 0; i < queue->round; i++) {
        queue->held += is_held(queue, flow) ? flow->queued : 0;
        queue->fresh += is_fresh(queue, flow) ? flow->queued : 0;
        flow = flow->next;
    }
}

static void set_shared(struct aiod_fair_queue *queue, bool shared)
{
    queue->shared = shared;
    recount(queue);
}

void aiod_fair_queue_update(struct aiod_fair_queue *queue, uint64_t now_ns)
{
    if (queue->shared && now_ns > queue->shared_ns + SHARED_NS) {
        set_shared(queue, false);
    }
}

/* Opens, names, closes and requests without a flow neither count against a flow nor make the workers shared. */
static bool is_counted(const struct aiod_flow *flow)
{
    return flow != NULL && !flow->control;
}

static void note_submitter(struct aiod_fair_queue *queue, const struct aiod_request *request)
{
    if (!is_counted(request->flow) || request->flow == queue->latest) {
        return;
    }
    if (queue->latest != NULL) {
        queue->shared_ns = request->queued_ns;
        if (!queue->shared) {
            set_shared(queue, true);
        }
    }
    queue->latest = request->flow;
}

/* Insert the request into its flow's queue behind `previous`; NULL: as the first one. */
static void insert(struct aiod_flow *flow, struct aiod_request *request, struct aiod_request *previous)
{
    struct aiod_request *next = previous != NULL ? previous->flow_next : flow->first;

    request->flow_previous = previous;
    request->flow_next = next;
    *(previous != NULL ? &previous->flow_next : &flow->first) = request;
    *(next != NULL ? &next->flow_previous : &flow->last) = request;
    flow->queued++;
}

/* ---- lanes ------------------------------------------------------------------------------------------------------- */

static void set_taken(struct aiod_lane *lane, bool taken)
{
    __atomic_store_n(&lane->taken, taken, __ATOMIC_RELAXED);
}

/* Take the turn of the request's lane, or wait there. True: it has the turn, or needs none. */
static bool take_turn(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_lane *lane = request->lane;

    request->waits_in_lane = lane != NULL && lane->taken;
    if (request->waits_in_lane) {
        request->flow_next = NULL;
        request->flow_previous = lane->last;
        *(lane->last != NULL ? &lane->last->flow_next : &lane->first) = request;
        lane->last = request;
        lane->waiting++;
        queue->in_lanes++;
    } else if (lane != NULL) {
        set_taken(lane, true);
    }
    return !request->waits_in_lane;
}

static void stop_waiting_in_lane(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_lane *lane = request->lane;

    *(request->flow_previous != NULL ? &request->flow_previous->flow_next : &lane->first) = request->flow_next;
    *(request->flow_next != NULL ? &request->flow_next->flow_previous : &lane->last) = request->flow_previous;
    request->waits_in_lane = false;
    lane->waiting--;
    queue->in_lanes--;
}

/*
 * The request gets the turn of its lane. It goes to the head of its flow's queue if it is older than the request there,
 * else to the end: the requests of a busy lane do not overtake others for ever. A flow that has left the round because
 * its requests waited in the lane goes on with its turn in the round as far as its deficit allows. It is not new, as in
 * become_busy().
 */
static void add_from_lane(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_flow *flow = flow_of(queue, request);
    bool older = flow->first == NULL || request->queued_ns <= flow->first->queued_ns;

    leave_sums(queue, flow);
    insert(flow, request, older ? NULL : flow->last);
    if (flow->queued == 1) {
        enter_round(queue, flow);
        queue->turn = flow->deficit >= cost_of_first(flow) ? flow : queue->turn;
    }
    enter_sums(queue, flow);
}

void aiod_fair_queue_leave_lane(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_lane *lane = request->lane;

    if (lane == NULL || request->waits_in_lane) {
        return;
    }
    request->lane = NULL;
    if (lane->first != NULL) {
        struct aiod_request *next = lane->first;

        stop_waiting_in_lane(queue, next);
        add_from_lane(queue, next);
    } else {
        set_taken(lane, false);
    }
}

void aiod_fair_queue_add(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_flow *flow = flow_of(queue, request);

    note_submitter(queue, request);
    if (!take_turn(queue, request)) {
        return;
    }
    leave_sums(queue, flow);
    insert(flow, request, flow->last);
    if (flow->queued == 1) {
        become_busy(queue, flow);
    }
    enter_sums(queue, flow);
}

/* ---- rates ------------------------------------------------------------------------------------------------------- */

bool aiod_flow_limited(const struct aiod_flow *flow)
{
    for (unsigned i = 0; i < AIOD_FLOW_RATES; i++) {
        if (flow->rates[i] != NULL && aiod_rate_is_limited(flow->rates[i])) {
            return true;
        }
    }
    return false;
}

static struct aiod_flow *flow_at(struct aiod_heap_node *wait_node)
{
    return (struct aiod_flow *)((char *)wait_node - offsetof(struct aiod_flow, wait_node));
}

/* The flow stops waiting for its rate. The caller decides whether the flow enters the round. */
static void stop_waiting(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    struct aiod_rate *rate = flow->waits_for;

    leave_sums(queue, flow);
    aiod_heap_remove(&rate->waiting, &flow->wait_node);
    flow->waits_for = NULL;
    if (--rate->waiting_flows == 0) {
        rate->throttled_ns += aiod_now_ns() - rate->throttled_since_ns;
    }
    enter_sums(queue, flow);
    if (rate->waiting.root == NULL) {
        aiod_heap_remove(&queue->rates, &rate->ready);
    }
}

/* Choose the waiting flow with the oldest ticket whose deficit pays for its first request. */
static struct aiod_flow *first_waiting(struct aiod_fair_queue *queue, struct aiod_rate *rate)
{
    struct aiod_flow *flow = flow_at(rate->waiting.root);

    for (unsigned i = 0; i < VISITS_MAX && flow->deficit < cost_of_first(flow); i++) {
        next_turn(queue, flow);
        aiod_heap_set(&rate->waiting, &flow->wait_node, flow->ticket);
        flow = flow_at(rate->waiting.root);
    }
    return flow;
}

/* The rate is ready: release the next waiting flow into the round; continue while released flows are held back. */
static void release_waiting(struct aiod_fair_queue *queue, struct aiod_rate *rate, uint64_t now_ns)
{
    struct aiod_flow *flow = NULL;

    for (unsigned i = 0; i < RELEASED_MAX && rate->waiting.root != NULL && (flow == NULL || is_held(queue, flow));
         i++) {
        flow = first_waiting(queue, rate);
        stop_waiting(queue, flow);
        enter_round(queue, flow);
    }
    if (rate->waiting.root != NULL) {
        aiod_heap_set(&queue->rates, &rate->ready, now_ns + RELEASE_INTERVAL_NS);
    }
}

/* Release waiting flows if the rate is ready; else schedule the release. */
static void update_rate(struct aiod_fair_queue *queue, struct aiod_rate *rate, uint64_t now_ns)
{
    uint64_t ready_ns = aiod_rate_ready_ns(rate, now_ns);

    if (rate->waiting.root == NULL) {
        return;
    }
    if (ready_ns == 0) {
        release_waiting(queue, rate, now_ns);
    } else {
        aiod_heap_set(&queue->rates, &rate->ready, ready_ns);
    }
}

static void wait_for(struct aiod_fair_queue *queue, struct aiod_flow *flow, struct aiod_rate *rate, uint64_t ready_ns)
{
    leave_sums(queue, flow);
    leave_round(queue, flow);
    flow->waits_for = rate;
    enter_sums(queue, flow);
    if (rate->waiting.root == NULL) {
        aiod_heap_insert(&queue->rates, &rate->ready, ready_ns);
    }
    aiod_heap_insert(&rate->waiting, &flow->wait_node, flow->ticket);
    if (rate->waiting_flows++ == 0) {
        rate->throttled_since_ns = aiod_now_ns();
    }
}

/* The time when a request of `flow` may pass `rate` (NULL: no rate): not before flows with older tickets. 0: now. */
static uint64_t passes_ns(const struct aiod_flow *flow, const struct aiod_rate *rate, uint64_t now_ns)
{
    uint64_t ready_ns = rate != NULL ? aiod_rate_ready_ns(rate, now_ns) : 0;

    return rate != NULL && ready_ns == 0 && aiod_heap_least(&rate->waiting) < flow->ticket
               ? now_ns + RELEASE_INTERVAL_NS
               : ready_ns;
}

static bool is_charged(const struct aiod_fair_queue *queue, const struct aiod_flow *flow)
{
    return !queue->unlimited && !flow->control;
}

/* Make the flow wait for the rate that is ready last. False: it need not wait. */
static bool wait_for_rate(struct aiod_fair_queue *queue, struct aiod_flow *flow, uint64_t now_ns)
{
    struct aiod_rate *rate = NULL;
    uint64_t ready_ns = 0;

    for (unsigned i = 0; i < AIOD_FLOW_RATES && is_charged(queue, flow); i++) {
        uint64_t at_ns = passes_ns(flow, flow->rates[i], now_ns);

        if (at_ns > ready_ns) {
            ready_ns = at_ns;
            rate = flow->rates[i];
        }
    }
    if (ready_ns == 0) {
        return false;
    }
    wait_for(queue, flow, rate, ready_ns);
    for (unsigned i = 0; i < AIOD_FLOW_RATES; i++) {
        if (flow->rates[i] != NULL && flow->rates[i] != rate) {
            /* That rate may have released this flow, which waits again: it must release the next one. */
            update_rate(queue, flow->rates[i], now_ns);
        }
    }
    return true;
}

/* Charge the flow's rates for one request of `bytes` bytes. */
static void charge(struct aiod_fair_queue *queue, const struct aiod_flow *flow, uint64_t now_ns, uint64_t bytes)
{
    for (unsigned i = 0; i < AIOD_FLOW_RATES && !flow->control; i++) {
        if (flow->rates[i] != NULL) {
            aiod_rate_take(flow->rates[i], now_ns, bytes);
            update_rate(queue, flow->rates[i], now_ns);
        }
    }
}

/* Charge for the flow's first request, and return it. It is still queued. */
static struct aiod_request *take_first(struct aiod_fair_queue *queue, struct aiod_flow *flow, uint64_t now_ns)
{
    uint64_t cost = cost_of_first(flow);

    flow->deficit -= flow->deficit < cost ? flow->deficit : cost;
    if (!flow->first->charged) {
        charge(queue, flow, now_ns, flow->first->cost);
    }
    return flow->first;
}

bool aiod_fair_queue_take_along(struct aiod_fair_queue *queue, const struct aiod_request *request, uint64_t now_ns)
{
    const struct aiod_flow *flow = flow_of(queue, request);

    for (unsigned i = 0; i < AIOD_FLOW_RATES && is_charged(queue, flow); i++) {
        if (flow->rates[i] != NULL && aiod_rate_ready_ns(flow->rates[i], now_ns) != 0) {
            return false;
        }
    }
    charge(queue, flow, now_ns, request->cost);
    return true;
}

uint64_t aiod_fair_queue_next_release_ns(const struct aiod_fair_queue *queue)
{
    return aiod_heap_least(&queue->rates);
}

static struct aiod_rate *rate_at(struct aiod_heap_node *ready)
{
    return (struct aiod_rate *)((char *)ready - offsetof(struct aiod_rate, ready));
}

void aiod_fair_queue_release_ready(struct aiod_fair_queue *queue, uint64_t now_ns)
{
    while (queue->rates.root != NULL && queue->rates.root->key <= now_ns) {
        update_rate(queue, rate_at(queue->rates.root), now_ns);
    }
}

void aiod_fair_queue_release_all(struct aiod_fair_queue *queue, struct aiod_rate *rate)
{
    while (rate->waiting.root != NULL) {
        struct aiod_flow *flow = flow_at(rate->waiting.root);

        stop_waiting(queue, flow);
        enter_round(queue, flow);
    }
}

void aiod_fair_queue_disable_rates(struct aiod_fair_queue *queue)
{
    queue->unlimited = true;
    recount(queue);
    while (queue->rates.root != NULL) {
        aiod_fair_queue_release_all(queue, rate_at(queue->rates.root));
    }
}

/* ---- the choice of the next request ------------------------------------------------------------------------------ */

/* The flow has no queued requests any more. */
static void become_idle(struct aiod_fair_queue *queue, struct aiod_flow *flow)
{
    if (flow->waits_for != NULL) {
        stop_waiting(queue, flow);
    } else {
        leave_round(queue, flow);
    }
}

void aiod_fair_queue_remove(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    struct aiod_flow *flow = flow_of(queue, request);

    if (request->waits_in_lane) {
        stop_waiting_in_lane(queue, request);
        return;
    }
    leave_sums(queue, flow);
    if (request->flow_previous != NULL) {
        request->flow_previous->flow_next = request->flow_next;
    } else {
        flow->first = request->flow_next;
    }
    if (request->flow_next != NULL) {
        request->flow_next->flow_previous = request->flow_previous;
    } else {
        flow->last = request->flow_previous;
    }
    if (--flow->queued == 0) {
        become_idle(queue, flow);
    }
    enter_sums(queue, flow);
}

/* The result of a turn of a flow in the round. */
enum turn_result {
    HELD, /* the flow is held back by its active requests */
    TAKE,
    LATER,   /* the deficit was used up; the flow can be served if no other flow can */
    WAITING, /* the flow left the round to wait for a rate */
};

static enum turn_result begin_turn(struct aiod_fair_queue *queue, struct aiod_flow *flow, bool only_fresh,
                                   bool startable, uint64_t now_ns)
{
    if (is_held(queue, flow) || (only_fresh && flow->active > 0) || (startable && flow->first->uring == NULL)) {
        return HELD;
    }
    if (wait_for_rate(queue, flow, now_ns)) {
        return WAITING;
    }
    if (flow->deficit >= cost_of_first(flow)) {
        return TAKE;
    }
    next_turn(queue, flow);
    return LATER;
}

/*
 * Visits the whole round until a flow is found that may take a request. A flow that is held back has active requests,
 * or belongs to an export that hangs: the number of such flows is limited by the number of workers, and of sessions of
 * such exports.
 */
static struct aiod_request *pick(struct aiod_fair_queue *queue, bool only_fresh, bool startable, uint64_t now_ns)
{
    struct aiod_flow *flow = queue->turn;
    struct aiod_flow *possible = NULL;
    size_t visits = 0;

    while (queue->round > 0 &&
           visits < (possible != NULL || (startable && queue->round > VISITS_MAX) ? VISITS_MAX : queue->round)) {
        struct aiod_flow *previous = flow->previous;

        switch (begin_turn(queue, flow, only_fresh, startable, now_ns)) {
        case TAKE:
            queue->turn = flow;
            return take_first(queue, flow, now_ns);
        case WAITING: /* other flows may have entered the round here */
            flow = previous != flow ? previous->next : queue->turn;
            visits += possible != NULL;
            continue;
        case LATER:
            possible = possible != NULL ? possible : flow;
            if (queue->round == 1) {
                return take_first(queue, flow, now_ns);
            }
            break;
        case HELD:
            break;
        }
        visits++;
        flow = flow->next;
    }
    if (possible != NULL && possible->waits_for == NULL) {
        queue->turn = possible->next;
    }
    return possible != NULL ? take_first(queue, possible, now_ns) : NULL; /* very many flows with large requests */
}

struct aiod_request *aiod_fair_queue_pick(struct aiod_fair_queue *queue, bool only_fresh, uint64_t now_ns)
{
    return pick(queue, only_fresh, false, now_ns);
}

struct aiod_request *aiod_fair_queue_pick_startable(struct aiod_fair_queue *queue, bool only_fresh, uint64_t now_ns)
{
    return pick(queue, only_fresh, true, now_ns);
}

/* ---- active requests --------------------------------------------------------------------------------------------- */

void aiod_fair_queue_started(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    if (is_counted(request->flow)) {
        leave_sums(queue, request->flow);
        request->flow->active++;
        request->flow->active_bytes += request->cost;
        enter_sums(queue, request->flow);
    }
}

void aiod_fair_queue_done(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    if (is_counted(request->flow)) {
        leave_sums(queue, request->flow);
        request->flow->active--;
        request->flow->active_bytes -= request->cost;
        enter_sums(queue, request->flow);
    }
}

static void count_slow(struct aiod_fair_queue *queue, const struct aiod_request *request, unsigned change)
{
    if (request->flow != NULL && request->flow->rates[0] != NULL) {
        request->flow->rates[0]->slow += change;
        recount(queue);
    }
}

void aiod_fair_queue_mark_slow(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    aiod_fair_queue_done(queue, request);
    aiod_fair_queue_leave_lane(queue, request);
    count_slow(queue, request, 1);
}

void aiod_fair_queue_slow_done(struct aiod_fair_queue *queue, struct aiod_request *request)
{
    count_slow(queue, request, -1u);
}

void aiod_fair_queue_limit_slow(struct aiod_fair_queue *queue, unsigned slow_max)
{
    queue->slow_max = slow_max;
    recount(queue);
}

void aiod_fair_queue_limit(struct aiod_fair_queue *queue, unsigned active_max, uint64_t active_bytes_max)
{
    queue->active_max = active_max;
    queue->active_bytes_max = active_bytes_max;
    set_shared(queue, queue->shared);
}
