#include "flows.h"

#define QUANTUM (UINT64_C(64) * 1024) /* bytes a turn */
#define OVERHEAD UINT64_C(4096)       /* what a request costs beside its bytes */
#define SHARED_NS UINT64_C(100000000) /* two have asked within this time: neither is alone */
#define VISITS_MAX 256u               /* how long a turn is looked for: the pool's lock is held meanwhile */

static struct aiod_flow *flow_of(struct aiod_flows *flows, const struct aiod_request *request)
{
    return request->flow != NULL ? request->flow : &flows->own;
}

static bool is_held(const struct aiod_flows *flows, const struct aiod_flow *flow)
{
    if (flow->waits) {
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
    flows->held -= is_held(flows, flow) ? flow->queued : 0;
    flows->fresh -= flow->active == 0 && !flow->waits ? flow->queued : 0;
}

static void enter_sums(struct aiod_flows *flows, const struct aiod_flow *flow)
{
    flows->held += is_held(flows, flow) ? flow->queued : 0;
    flows->fresh += flow->active == 0 && !flow->waits ? flow->queued : 0;
}

/* ---- the round ------------------------------------------------------------------------------------------------------ */

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
    flow->deficit = 0;
    flow->waits = false;
    if (flow->active == 0) {
        flow->deficit = QUANTUM;
        flows->turn = flow;
    }
}

static void part(struct aiod_flows *flows, struct aiod_flow *flow)
{
    if (flows->turn == flow) {
        flows->turn = flow->next != flow ? flow->next : NULL;
    }
    flow->previous->next = flow->next;
    flow->next->previous = flow->previous;
}

static void set_shared(struct aiod_flows *flows, bool shared)
{
    struct aiod_flow *flow = flows->turn;

    flows->shared = shared;
    flows->held = 0;
    if (flow != NULL) {
        do {
            flows->held += is_held(flows, flow) ? flow->queued : 0;
            flow = flow->next;
        } while (flow != flows->turn);
    }
}

void aiod_flows_look(struct aiod_flows *flows, uint64_t now_ns)
{
    if (flows->shared && now_ns > flows->shared_ns + SHARED_NS) {
        set_shared(flows, false);
    }
}

/* Requests of nobody's are the engine's own work, and no competitor. */
static void note_who_asks(struct aiod_flows *flows, const struct aiod_request *request)
{
    if (request->flow == NULL || request->flow == flows->latest) {
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
        join(flows, flow);
    }
    enter_sums(flows, flow);
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
        part(flows, flow);
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

/* Have it wait for its rates, if it has to. */
static bool has_to_wait(struct aiod_flows *flows, struct aiod_flow *flow, uint64_t now_ns)
{
    uint64_t ready_ns = 0;

    for (unsigned i = 0; i < AIOD_FLOW_RATES && !flows->unlimited; i++) {
        uint64_t at_ns = flow->rates[i] != NULL ? aiod_rate_ready_ns(flow->rates[i], now_ns) : 0;

        ready_ns = at_ns > ready_ns ? at_ns : ready_ns;
    }
    if (ready_ns == 0) {
        return false;
    }
    leave_sums(flows, flow);
    flow->waits = true;
    flow->ready_ns = ready_ns;
    enter_sums(flows, flow);
    flows->wake_ns = ready_ns < flows->wake_ns ? ready_ns : flows->wake_ns;
    return true;
}

static struct aiod_request *take_first(struct aiod_flow *flow, uint64_t now_ns)
{
    for (unsigned i = 0; i < AIOD_FLOW_RATES; i++) {
        if (flow->rates[i] != NULL) {
            aiod_rate_take(flow->rates[i], now_ns, flow->first->cost);
        }
    }
    return flow->first;
}

static void stop_waiting(struct aiod_flows *flows, struct aiod_flow *flow)
{
    leave_sums(flows, flow);
    flow->waits = false;
    enter_sums(flows, flow);
}

/* One that has left the round meanwhile, having nothing queued any more, looks again when it comes back. */
void aiod_flows_wake(struct aiod_flows *flows, uint64_t now_ns)
{
    struct aiod_flow *flow = flows->turn;

    flows->wake_ns = UINT64_MAX;
    if (flow == NULL) {
        return;
    }
    do {
        if (flow->waits && flow->ready_ns <= now_ns) {
            stop_waiting(flows, flow);
        } else if (flow->waits && flow->ready_ns < flows->wake_ns) {
            flows->wake_ns = flow->ready_ns;
        }
        flow = flow->next;
    } while (flow != flows->turn);
}

void aiod_flows_unlimit(struct aiod_flows *flows)
{
    flows->unlimited = true;
    aiod_flows_wake(flows, UINT64_MAX);
}

struct aiod_request *aiod_flows_pick(struct aiod_flows *flows, bool only_fresh, uint64_t now_ns)
{
    struct aiod_flow *flow = flows->turn;
    struct aiod_flow *possible = NULL;

    for (unsigned visits = 0; flow != NULL && visits < VISITS_MAX; visits++) {
        if (!is_held(flows, flow) && (!only_fresh || flow->active == 0) && !has_to_wait(flows, flow, now_ns)) {
            uint64_t cost = flow->first->cost + OVERHEAD;

            if (flow->next == flow) {
                return take_first(flow, now_ns); /* nobody else waits */
            }
            if (flow->deficit >= cost) {
                flow->deficit -= cost;
                flows->turn = flow;
                return take_first(flow, now_ns);
            }
            flow->deficit += QUANTUM; /* for its next turn */
            possible = possible != NULL ? possible : flow;
        }
        flow = flow->next;
        if (possible == NULL && flow == flows->turn) {
            return NULL; /* all are held back */
        }
    }
    return possible != NULL ? take_first(possible, now_ns)
                            : NULL; /* very large requests among very many flows: no fairer than this */
}

/* ---- in service ----------------------------------------------------------------------------------------------------- */

void aiod_flows_started(struct aiod_flows *flows, struct aiod_request *request)
{
    if (request->flow != NULL) {
        leave_sums(flows, request->flow);
        request->flow->active++;
        request->flow->active_bytes += request->cost;
        enter_sums(flows, request->flow);
    }
}

void aiod_flows_done(struct aiod_flows *flows, struct aiod_request *request)
{
    if (request->flow != NULL) {
        leave_sums(flows, request->flow);
        request->flow->active--;
        request->flow->active_bytes -= request->cost;
        enter_sums(flows, request->flow);
    }
}

void aiod_flows_limit(struct aiod_flows *flows, unsigned active_max, uint64_t active_bytes_max)
{
    flows->active_max = active_max;
    flows->active_bytes_max = active_bytes_max;
    set_shared(flows, flows->shared);
}
