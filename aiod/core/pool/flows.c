#include "pool/flows.h"

#include <stddef.h>

#define QUANTUM (UINT64_C(64) * 1024) /* bytes a turn */
#define OVERHEAD UINT64_C(4096)       /* what a request costs beside its bytes */
#define SHARED_NS UINT64_C(100000000) /* two have asked within this time: neither is alone */
#define VISITS_MAX 256u               /* how long the fairest is looked for: the pool's lock is held meanwhile */
#define CALLED_MAX 16u            /* flows that a rate calls at once, if those before them are held back otherwise */
#define CALL_NS UINT64_C(5000000) /* the next is called after this, should the one called before not take anything */

static struct aiod_flow *flow_of(struct aiod_flows *flows, const struct aiod_request *request)
{
    return request->flow != NULL ? request->flow : &flows->own;
}

/* Hangs as much of its export as may? */
static bool is_blocked(const struct aiod_flows *flows, const struct aiod_flow *flow)
{
    return flows->slow_max != 0 && !flows->unlimited && flow->rates[0] != NULL &&
           flow->rates[0]->slow >= flows->slow_max;
}

static bool is_fresh(const struct aiod_flows *flows, const struct aiod_flow *flow)
{
    return flow->active == 0 && flow->waits_for == NULL && !is_blocked(flows, flow);
}

static bool is_held(const struct aiod_flows *flows, const struct aiod_flow *flow)
{
    if (flow->waits_for != NULL || is_blocked(flows, flow)) {
        return true;
    }
    if (!flows->shared) {
        return false;
    }
    return (flows->active_max != 0 && flow->active >= flows->active_max) ||
           (flows->active_bytes_max != 0 && flow->active_bytes >= flows->active_bytes_max);
}

/* Before a flow changes its counts are taken out of the sums, and put back afterwards. */
static void leave_sums(struct aiod_flows *flows, const struct aiod_flow *flow)
{
    flows->waiting -= flow->waits_for != NULL ? flow->queued : 0;
    flows->held -= is_held(flows, flow) ? flow->queued : 0;
    flows->fresh -= is_fresh(flows, flow) ? flow->queued : 0;
}

static void enter_sums(struct aiod_flows *flows, const struct aiod_flow *flow)
{
    flows->waiting += flow->waits_for != NULL ? flow->queued : 0;
    flows->held += is_held(flows, flow) ? flow->queued : 0;
    flows->fresh += is_fresh(flows, flow) ? flow->queued : 0;
}

/* ---- the round ------------------------------------------------------------------------------------------------------ */

/* As the last one. */
static void join(struct aiod_flows *flows, struct aiod_flow *flow)
{
    if (flows->turn == NULL) {
        flow->next = flow->previous = flow;
        flows->turn = flow;
    } else {
        flow->next = flows->turn;
        flow->previous = flows->turn->previous;
        flow->previous->next = flow;
        flow->next->previous = flow;
    }
    flows->round++;
}

static void part(struct aiod_flows *flows, struct aiod_flow *flow)
{
    if (flows->turn == flow) {
        flows->turn = flow->next != flow ? flow->next : NULL;
    }
    flow->previous->next = flow->next;
    flow->next->previous = flow->previous;
    flows->round--;
}

/* It has something queued again. */
static void come(struct aiod_flows *flows, struct aiod_flow *flow)
{
    join(flows, flow);
    flow->ticket = ++flows->tickets;
    flow->deficit = 0;
    if (flow->active == 0) {
        flow->deficit = QUANTUM;
        flows->turn = flow;
    }
}

/* Its turn is over, and the next one begins behind the others'. */
static void next_turn(struct aiod_flows *flows, struct aiod_flow *flow)
{
    flow->deficit += QUANTUM;
    flow->ticket = ++flows->tickets;
}

static uint64_t cost_of_first(const struct aiod_flow *flow)
{
    return flow->first->cost + OVERHEAD;
}

/* The rules have changed for all: make the sums anew. */
static void add_up(struct aiod_flows *flows)
{
    struct aiod_flow *flow = flows->turn;

    flows->held = flows->waiting;
    flows->fresh = 0;
    for (size_t i = 0; i < flows->round; i++) {
        flows->held += is_held(flows, flow) ? flow->queued : 0;
        flows->fresh += is_fresh(flows, flow) ? flow->queued : 0;
        flow = flow->next;
    }
}

static void set_shared(struct aiod_flows *flows, bool shared)
{
    flows->shared = shared;
    add_up(flows);
}

void aiod_flows_look(struct aiod_flows *flows, uint64_t now_ns)
{
    if (flows->shared && now_ns > flows->shared_ns + SHARED_NS) {
        set_shared(flows, false);
    }
}

/* The engine's own work, and opens, names and closes, neither count against a flow nor compete with others. */
static bool is_counted(const struct aiod_flow *flow)
{
    return flow != NULL && !flow->control;
}

static void note_who_asks(struct aiod_flows *flows, const struct aiod_request *request)
{
    if (!is_counted(request->flow) || request->flow == flows->latest) {
        return;
    }
    if (flows->latest != NULL) {
        flows->shared_ns = request->queued_ns;
        if (!flows->shared) {
            set_shared(flows, true);
        }
    }
    flows->latest = request->flow;
}

void aiod_flows_add(struct aiod_flows *flows, struct aiod_request *request)
{
    struct aiod_flow *flow = flow_of(flows, request);

    note_who_asks(flows, request);
    leave_sums(flows, flow);
    request->flow_next = NULL;
    request->flow_previous = flow->last;
    if (flow->last != NULL) {
        flow->last->flow_next = request;
    } else {
        flow->first = request;
    }
    flow->last = request;
    if (flow->queued++ == 0) {
        come(flows, flow);
    }
    enter_sums(flows, flow);
}

/* ---- rates ---------------------------------------------------------------------------------------------------------- */

bool aiod_flow_limited(const struct aiod_flow *flow)
{
    for (unsigned i = 0; i < AIOD_FLOW_RATES; i++) {
        if (flow->rates[i] != NULL && aiod_rate_is_limited(flow->rates[i])) {
            return true;
        }
    }
    return false;
}

static struct aiod_flow *flow_at(struct aiod_heap_node *place)
{
    return (struct aiod_flow *)((char *)place - offsetof(struct aiod_flow, place));
}

/* It waits for `rate` no more; whether it joins the round is the caller's to say. */
static void stop_waiting(struct aiod_flows *flows, struct aiod_flow *flow)
{
    struct aiod_rate *rate = flow->waits_for;

    leave_sums(flows, flow);
    aiod_heap_remove(&rate->waiting, &flow->place);
    flow->waits_for = NULL;
    enter_sums(flows, flow);
    if (rate->waiting.root == NULL) {
        aiod_heap_remove(&flows->rates, &rate->ready);
    }
}

/* Of those that wait for `rate`, whose turn it is: the oldest ticket that may take its first request in this turn. */
static struct aiod_flow *first_waiting(struct aiod_flows *flows, struct aiod_rate *rate)
{
    struct aiod_flow *flow = flow_at(rate->waiting.root);

    for (unsigned i = 0; i < VISITS_MAX && flow->deficit < cost_of_first(flow); i++) {
        next_turn(flows, flow);
        aiod_heap_set(&rate->waiting, &flow->place, flow->ticket);
        flow = flow_at(rate->waiting.root);
    }
    return flow;
}

/* `rate` is ready: whose turn it is joins the round, and the next one too while that one has as much in service as it may. */
static void call(struct aiod_flows *flows, struct aiod_rate *rate, uint64_t now_ns)
{
    struct aiod_flow *flow = NULL;

    for (unsigned i = 0; i < CALLED_MAX && rate->waiting.root != NULL && (flow == NULL || is_held(flows, flow)); i++) {
        flow = first_waiting(flows, rate);
        stop_waiting(flows, flow);
        join(flows, flow);
    }
    if (rate->waiting.root != NULL) {
        aiod_heap_set(&flows->rates, &rate->ready, now_ns + CALL_NS);
    }
}

/* Whoever waits for `rate` is called: now if it is ready, or when it will be. */
static void look_at(struct aiod_flows *flows, struct aiod_rate *rate, uint64_t now_ns)
{
    uint64_t ready_ns = aiod_rate_ready_ns(rate, now_ns);

    if (rate->waiting.root == NULL) {
        return;
    }
    if (ready_ns == 0) {
        call(flows, rate, now_ns);
    } else {
        aiod_heap_set(&flows->rates, &rate->ready, ready_ns);
    }
}

static void wait_for(struct aiod_flows *flows, struct aiod_flow *flow, struct aiod_rate *rate, uint64_t ready_ns)
{
    leave_sums(flows, flow);
    part(flows, flow);
    flow->waits_for = rate;
    enter_sums(flows, flow);
    if (rate->waiting.root == NULL) {
        aiod_heap_insert(&flows->rates, &rate->ready, ready_ns);
    }
    aiod_heap_insert(&rate->waiting, &flow->place, flow->ticket);
}

/* When `flow` may pass by its `rate`, perhaps NULL: not before an older ticket that waits for it. 0: at once. */
static uint64_t passes_ns(const struct aiod_flow *flow, const struct aiod_rate *rate, uint64_t now_ns)
{
    uint64_t ready_ns = rate != NULL ? aiod_rate_ready_ns(rate, now_ns) : 0;

    return rate != NULL && ready_ns == 0 && aiod_heap_least(&rate->waiting) < flow->ticket ? now_ns + CALL_NS
                                                                                           : ready_ns;
}

static bool pays(const struct aiod_flows *flows, const struct aiod_flow *flow)
{
    return !flows->unlimited && !flow->control;
}

/* Have it wait for that of its rates that is ready last, if it has to. */
static bool has_to_wait(struct aiod_flows *flows, struct aiod_flow *flow, uint64_t now_ns)
{
    struct aiod_rate *rate = NULL;
    uint64_t ready_ns = 0;

    for (unsigned i = 0; i < AIOD_FLOW_RATES && pays(flows, flow); i++) {
        uint64_t at_ns = passes_ns(flow, flow->rates[i], now_ns);

        if (at_ns > ready_ns) {
            ready_ns = at_ns;
            rate = flow->rates[i];
        }
    }
    if (ready_ns == 0) {
        return false;
    }
    wait_for(flows, flow, rate, ready_ns);
    for (unsigned i = 0; i < AIOD_FLOW_RATES; i++) {
        if (flow->rates[i] != NULL && flow->rates[i] != rate) {
            look_at(flows, flow->rates[i], now_ns); /* which may have called it: the next one's turn */
        }
    }
    return true;
}

/* A request of `bytes` of it passes by its rates. */
static void charge(struct aiod_flows *flows, const struct aiod_flow *flow, uint64_t now_ns, uint64_t bytes)
{
    for (unsigned i = 0; i < AIOD_FLOW_RATES && !flow->control; i++) {
        if (flow->rates[i] != NULL) {
            aiod_rate_take(flow->rates[i], now_ns, bytes);
            look_at(flows, flow->rates[i], now_ns);
        }
    }
}

/* The first request of it passes, paid for with what there is. */
static struct aiod_request *take_first(struct aiod_flows *flows, struct aiod_flow *flow, uint64_t now_ns)
{
    uint64_t cost = cost_of_first(flow);

    flow->deficit -= flow->deficit < cost ? flow->deficit : cost;
    charge(flows, flow, now_ns, flow->first->cost);
    return flow->first;
}

bool aiod_flows_take_along(struct aiod_flows *flows, const struct aiod_request *request, uint64_t now_ns)
{
    const struct aiod_flow *flow = flow_of(flows, request);

    for (unsigned i = 0; i < AIOD_FLOW_RATES && pays(flows, flow); i++) {
        if (flow->rates[i] != NULL && aiod_rate_ready_ns(flow->rates[i], now_ns) != 0) {
            return false;
        }
    }
    charge(flows, flow, now_ns, request->cost);
    return true;
}

uint64_t aiod_flows_wake_ns(const struct aiod_flows *flows)
{
    return aiod_heap_least(&flows->rates);
}

static struct aiod_rate *rate_at(struct aiod_heap_node *ready)
{
    return (struct aiod_rate *)((char *)ready - offsetof(struct aiod_rate, ready));
}

void aiod_flows_wake(struct aiod_flows *flows, uint64_t now_ns)
{
    while (flows->rates.root != NULL && flows->rates.root->key <= now_ns) {
        look_at(flows, rate_at(flows->rates.root), now_ns);
    }
}

void aiod_flows_release(struct aiod_flows *flows, struct aiod_rate *rate)
{
    while (rate->waiting.root != NULL) {
        struct aiod_flow *flow = flow_at(rate->waiting.root);

        stop_waiting(flows, flow);
        join(flows, flow);
    }
}

void aiod_flows_unlimit(struct aiod_flows *flows)
{
    flows->unlimited = true;
    add_up(flows);
    while (flows->rates.root != NULL) {
        aiod_flows_release(flows, rate_at(flows->rates.root));
    }
}

/* ---- whose turn it is ------------------------------------------------------------------------------------------------ */

/* It has nothing queued any more. */
static void go(struct aiod_flows *flows, struct aiod_flow *flow)
{
    if (flow->waits_for != NULL) {
        stop_waiting(flows, flow);
    } else {
        part(flows, flow);
    }
}

void aiod_flows_remove(struct aiod_flows *flows, struct aiod_request *request)
{
    struct aiod_flow *flow = flow_of(flows, request);

    leave_sums(flows, flow);
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
        go(flows, flow);
    }
    enter_sums(flows, flow);
}

/* What `flow`, which is in the round, may do in its turn. */
enum outlook {
    NOTHING, /* it is held back by what it has in service */
    TAKE,
    LATER,   /* its turn is over: something, if nobody else may */
    WAITING, /* it has left the round for a rate */
};

static enum outlook look_for(struct aiod_flows *flows, struct aiod_flow *flow, bool only_fresh, uint64_t now_ns)
{
    if (is_held(flows, flow) || (only_fresh && flow->active > 0)) {
        return NOTHING;
    }
    if (has_to_wait(flows, flow, now_ns)) {
        return WAITING;
    }
    if (flow->deficit >= cost_of_first(flow)) {
        return TAKE;
    }
    next_turn(flows, flow);
    return LATER;
}

/*
 * While no flow is found that may take something all of the round is looked at. A flow that is held back has something in
 * service, or is of an export that hangs: there are hardly more of them than workers, and sessions of such exports.
 */
struct aiod_request *aiod_flows_pick(struct aiod_flows *flows, bool only_fresh, uint64_t now_ns)
{
    struct aiod_flow *flow = flows->turn;
    struct aiod_flow *possible = NULL;
    size_t visits = 0;

    while (flows->round > 0 && visits < (possible != NULL ? VISITS_MAX : flows->round)) {
        struct aiod_flow *previous = flow->previous;

        switch (look_for(flows, flow, only_fresh, now_ns)) {
        case TAKE:
            flows->turn = flow;
            return take_first(flows, flow, now_ns);
        case WAITING: /* others may have come in its place */
            flow = previous != flow ? previous->next : flows->turn;
            visits += possible != NULL;
            continue;
        case LATER:
            possible = possible != NULL ? possible : flow;
            if (flows->round == 1) {
                return take_first(flows, flow, now_ns);
            }
            break;
        case NOTHING:
            break;
        }
        visits++;
        flow = flow->next;
    }
    if (possible != NULL && possible->waits_for == NULL) {
        flows->turn = possible->next;
    }
    return possible != NULL ? take_first(flows, possible, now_ns) : NULL; /* large requests among very many flows */
}

/* ---- in service ----------------------------------------------------------------------------------------------------- */

void aiod_flows_started(struct aiod_flows *flows, struct aiod_request *request)
{
    if (is_counted(request->flow)) {
        leave_sums(flows, request->flow);
        request->flow->active++;
        request->flow->active_bytes += request->cost;
        enter_sums(flows, request->flow);
    }
}

void aiod_flows_done(struct aiod_flows *flows, struct aiod_request *request)
{
    if (is_counted(request->flow)) {
        leave_sums(flows, request->flow);
        request->flow->active--;
        request->flow->active_bytes -= request->cost;
        enter_sums(flows, request->flow);
    }
}

static void count_slow(struct aiod_flows *flows, const struct aiod_request *request, unsigned change)
{
    if (request->flow != NULL && request->flow->rates[0] != NULL) {
        request->flow->rates[0]->slow += change;
        add_up(flows);
    }
}

void aiod_flows_slow(struct aiod_flows *flows, struct aiod_request *request)
{
    aiod_flows_done(flows, request);
    count_slow(flows, request, 1);
}

void aiod_flows_slow_done(struct aiod_flows *flows, struct aiod_request *request)
{
    count_slow(flows, request, -1u);
}

void aiod_flows_limit_slow(struct aiod_flows *flows, unsigned slow_max)
{
    flows->slow_max = slow_max;
    add_up(flows);
}

void aiod_flows_limit(struct aiod_flows *flows, unsigned active_max, uint64_t active_bytes_max)
{
    flows->active_max = active_max;
    flows->active_bytes_max = active_bytes_max;
    set_shared(flows, flows->shared);
}
