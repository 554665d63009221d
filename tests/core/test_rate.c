/* Rates (rate.h) with simulated times, and their effect in the fair queue (fair_queue.h). */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "pool/fair_queue.h"
#include "pool/rate.h"

#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define START (10000 * SECOND)

static struct aiod_rate *rate_of(uint64_t per_second, uint64_t bytes_per_second, uint64_t burst_ns)
{
    const struct aiod_rate_limits limits = {per_second, bytes_per_second, burst_ns};
    struct aiod_rate *rate = aiod_rate_create();

    CHECK(rate != NULL && !aiod_rate_is_limited(rate) && aiod_rate_ready_ns(rate, START) == 0);
    aiod_rate_set(rate, &limits);
    CHECK(aiod_rate_is_limited(rate));
    return rate;
}

/* The number of requests of `bytes` bytes that pass within `time_ns` from START, tried every `step_ns`. */
static uint64_t passed(struct aiod_rate *rate, uint64_t time_ns, uint64_t step_ns, uint64_t bytes)
{
    uint64_t count = 0;

    for (uint64_t now_ns = START; now_ns < START + time_ns; now_ns += step_ns) {
        while (aiod_rate_ready_ns(rate, now_ns) == 0) {
            aiod_rate_take(rate, now_ns, bytes);
            count++;
        }
    }
    return count;
}

static void requests_pass_at_the_rate_plus_a_burst(void)
{
    struct aiod_rate *rate = rate_of(1000, 0, 100 * MS);
    uint64_t count = passed(rate, 10 * SECOND, MS, 4096);

    CHECK(count >= 10000 && count <= 10102);
    aiod_rate_unref(rate);
    rate = rate_of(1000, 0, 10 * MS);
    count = passed(rate, 10 * SECOND, 7 * MS, 4096); /* rare attempts lose nothing */
    CHECK(count >= 9990 && count <= 10012);
    aiod_rate_unref(rate);
}

static void bytes_pass_at_the_rate(void)
{
    struct aiod_rate *rate = rate_of(0, 1 << 20, 100 * MS);
    uint64_t count = passed(rate, 10 * SECOND, MS, 65536);

    CHECK(count >= 160 && count <= 163);
    aiod_rate_unref(rate);
    rate = rate_of(100, 1 << 20, 100 * MS);
    count = passed(rate, 10 * SECOND, MS, 4096);
    CHECK(count >= 1000 && count <= 1011);
    aiod_rate_unref(rate);
}

static void a_large_request_passes_and_delays_the_next(void)
{
    struct aiod_rate *rate = rate_of(0, 1 << 20, MS);

    CHECK(aiod_rate_ready_ns(rate, START) == 0);
    aiod_rate_take(rate, START, 10 << 20);
    CHECK(aiod_rate_ready_ns(rate, START) == START + 10 * SECOND - MS);
    CHECK(aiod_rate_ready_ns(rate, START + 10 * SECOND - MS) == 0);
    aiod_rate_unref(rate);
}

static void idle_time_saves_one_burst(void)
{
    struct aiod_rate *rate = rate_of(1000, 0, 50 * MS);

    CHECK(passed(rate, 1, 1, 0) == 51);
    CHECK(aiod_rate_ready_ns(rate, START + 3600 * SECOND) == 0);
    aiod_rate_unref(rate);
    rate = rate_of(1000, 0, 50 * MS);
    aiod_rate_take(rate, START - 3600 * SECOND, 0);
    CHECK(passed(rate, 1, 1, 0) == 51);
    aiod_rate_unref(rate);
}

/* ---- in the queue ------------------------------------------------------------------------------------------------ */

static struct aiod_request *next(struct aiod_fair_queue *flows, uint64_t now_ns)
{
    struct aiod_request *request = aiod_fair_queue_pick(flows, false, now_ns);

    if (request != NULL) {
        aiod_fair_queue_remove(flows, request);
    }
    return request;
}

static void add(struct aiod_fair_queue *flows, struct aiod_request *request, struct aiod_flow *flow)
{
    *request = (struct aiod_request){.flow = flow, .cost = 4096, .queued_ns = START};
    aiod_fair_queue_add(flows, request);
}

static void a_waiting_flow_delays_no_other(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1, 0, MS);
    struct aiod_flow limited = {.rates = {rate}}, other = {0};
    struct aiod_request mine[2], others[2];

    for (int i = 0; i < 2; i++) {
        add(&flows, &mine[i], &limited);
    }
    CHECK(next(&flows, START) == &mine[0]);
    CHECK(next(&flows, START) == NULL);
    CHECK(limited.waits_for == rate && flows.held == 1 && flows.fresh == 0);
    CHECK(rate->waiting_flows == 1 && rate->throttled_ns == 0);
    CHECK(aiod_fair_queue_next_release_ns(&flows) == START + SECOND - MS);
    for (int i = 0; i < 2; i++) {
        add(&flows, &others[i], &other);
    }
    CHECK(next(&flows, START) == &others[0] && next(&flows, START) == &others[1]);
    CHECK(next(&flows, START) == NULL);
    aiod_fair_queue_release_ready(&flows, START + SECOND / 2);
    CHECK(limited.waits_for == rate && aiod_fair_queue_next_release_ns(&flows) == START + SECOND - MS);
    aiod_fair_queue_release_ready(&flows, START + SECOND);
    CHECK(rate->waiting_flows == 0 && rate->throttled_ns > 0);
    CHECK(limited.waits_for == NULL && flows.held == 0 && aiod_fair_queue_next_release_ns(&flows) == UINT64_MAX);
    CHECK(next(&flows, START + SECOND) == &mine[1]);
    aiod_rate_unref(rate);
}

static void both_rates_of_a_flow_apply(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *of_export = rate_of(1000, 0, MS), *of_user = rate_of(1, 0, MS);
    struct aiod_flow flow = {.rates = {of_export, of_user}};
    struct aiod_request requests[2];

    add(&flows, &requests[0], &flow);
    add(&flows, &requests[1], &flow);
    CHECK(next(&flows, START) == &requests[0] && next(&flows, START) == NULL);
    CHECK(flow.waits_for == of_user && aiod_fair_queue_next_release_ns(&flows) == START + SECOND - MS);
    CHECK(of_export->requests_until_ns == START + MS); /* the other rate was not charged for a request that waits */
    aiod_rate_unref(of_export);
    aiod_rate_unref(of_user);
}

static void disabled_rates_release_all(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1, 0, MS);
    struct aiod_flow flow = {.rates = {rate}};
    struct aiod_request requests[3];

    for (int i = 0; i < 3; i++) {
        add(&flows, &requests[i], &flow);
    }
    CHECK(next(&flows, START) == &requests[0] && next(&flows, START) == NULL);
    aiod_fair_queue_disable_rates(&flows);
    CHECK(flows.held == 0 && aiod_fair_queue_next_release_ns(&flows) == UINT64_MAX);
    CHECK(next(&flows, START) == &requests[1] && next(&flows, START) == &requests[2]);
    aiod_rate_unref(rate);
}

/* A request that is taken along is charged, and not taken if its rate is used up. */
static void a_request_taken_along_is_charged(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1, 0, SECOND); /* two requests at once */
    struct aiod_flow limited = {.rates = {rate}}, other = {0};
    struct aiod_request mine[3], others;

    for (int i = 0; i < 3; i++) {
        add(&flows, &mine[i], &limited);
    }
    add(&flows, &others, &other);
    CHECK(aiod_fair_queue_take_along(&flows, &mine[1], START));
    aiod_fair_queue_remove(&flows, &mine[1]);
    CHECK(rate->requests_until_ns == START + SECOND);
    CHECK(aiod_fair_queue_take_along(&flows, &mine[0], START));
    aiod_fair_queue_remove(&flows, &mine[0]);
    CHECK(!aiod_fair_queue_take_along(&flows, &mine[2], START));
    CHECK(aiod_fair_queue_take_along(&flows, &others, START));
    CHECK(next(&flows, START) == &others && next(&flows, START) == NULL && limited.waits_for == rate);
    aiod_fair_queue_disable_rates(&flows);
    CHECK(aiod_fair_queue_take_along(&flows, &mine[2], START));
    aiod_rate_unref(rate);
}

enum {
    FLOWS = 1000,
    EACH = 4
};

static struct aiod_flow many[FLOWS];
static struct aiod_request requests[FLOWS][EACH];

/*
 * Create flows with EACH requests of `bytes` bytes, which wait for `rate` except for those that pass at once. Their
 * number.
 */
static unsigned have_many_wait(struct aiod_fair_queue *flows, struct aiod_rate *rate, uint64_t bytes)
{
    unsigned count = 0;

    for (int i = 0; i < FLOWS; i++) {
        many[i] = (struct aiod_flow){.rates = {rate}};
        for (int k = 0; k < EACH; k++) {
            requests[i][k] = (struct aiod_request){.flow = &many[i], .cost = bytes, .queued_ns = START};
            aiod_fair_queue_add(flows, &requests[i][k]);
        }
    }
    while (next(flows, START) != NULL) {
        count++;
    }
    CHECK(flows->round == 0 && flows->held == (size_t)FLOWS * EACH - count && flows->fresh == 0);
    return count;
}

/* More waiting flows than one search visits: neither they nor other flows wait longer than the rates demand. */
static void many_waiting_flows_hide_no_other(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1000, 0, MS);
    struct aiod_flow other = {0};
    struct aiod_request others;
    uint64_t now_ns = START;
    unsigned passed_now = have_many_wait(&flows, rate, 4096);

    CHECK(passed_now == 2);
    add(&flows, &others, &other);
    CHECK(flows.fresh == 1 && next(&flows, START) == &others && next(&flows, START) == NULL);
    for (unsigned count = passed_now; count < FLOWS * EACH; count++) {
        CHECK(aiod_fair_queue_next_release_ns(&flows) > now_ns &&
              aiod_fair_queue_next_release_ns(&flows) <= now_ns + MS);
        now_ns = aiod_fair_queue_next_release_ns(&flows);
        aiod_fair_queue_release_ready(&flows, now_ns);
        CHECK(flows.round == 1 && next(&flows, now_ns) != NULL && next(&flows, now_ns) == NULL);
    }
    CHECK(flows.held == 0 && flows.waiting == 0 && flows.turn == NULL && flows.rates.root == NULL);
    aiod_rate_unref(rate);
}

static size_t queued_most(void)
{
    size_t most = 0;

    for (int i = 0; i < FLOWS; i++) {
        most = many[i].queued > most ? many[i].queued : most;
    }
    return most;
}

/* The number of requests that pass in a burst. */
static unsigned after_a_second(struct aiod_fair_queue *flows, uint64_t *now_ns)
{
    unsigned count = 0;

    *now_ns += SECOND;
    aiod_fair_queue_release_ready(flows, *now_ns);
    while (next(flows, *now_ns) != NULL) {
        count++;
    }
    return count;
}

/* Large requests take several turns; each flow has one request executed before any flow has all. */
static void each_has_its_turn(uint64_t bytes, uint64_t burst_ns)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1000, 0, burst_ns);
    unsigned count = have_many_wait(&flows, rate, bytes);
    uint64_t now_ns = START;

    while (count < FLOWS * (EACH - 1)) {
        count += after_a_second(&flows, &now_ns);
    }
    CHECK(bytes < 65536 || queued_most() < EACH);
    while (flows.held > 0) {
        count += after_a_second(&flows, &now_ns);
    }
    CHECK(count == FLOWS * EACH && queued_most() == 0);
    aiod_rate_unref(rate);
}

/* Two flows with two rates each, crosswise, both used up: everything passes in the end, and every search ends. */
static void crossed_rates_do_not_deadlock(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rates[3] = {rate_of(1000, 0, MS), rate_of(700, 0, 3 * MS), rate_of(300, 0, 2 * MS)};
    uint64_t now_ns = START;
    unsigned count = 0;

    for (int i = 0; i < FLOWS; i++) {
        many[i] = (struct aiod_flow){.rates = {rates[i % 3], rates[(i + 1) % 3]}};
        for (int k = 0; k < EACH; k++) {
            add(&flows, &requests[i][k], &many[i]);
        }
    }
    while (count < FLOWS * EACH) {
        while (next(&flows, now_ns) != NULL) {
            count++;
        }
        CHECK(flows.held == 0 || aiod_fair_queue_next_release_ns(&flows) > now_ns);
        now_ns = aiod_fair_queue_next_release_ns(&flows);
        aiod_fair_queue_release_ready(&flows, now_ns);
    }
    for (int i = 0; i < 3; i++) {
        aiod_rate_unref(rates[i]);
    }
}

/* Waiting requests can be cancelled, and new limits apply at once. */
static void waiting_requests_can_be_cancelled(void)
{
    struct aiod_fair_queue flows = {0};
    struct aiod_rate *rate = rate_of(1, 0, MS);
    const struct aiod_rate_limits none = {0};
    struct aiod_flow flow[2] = {{.rates = {rate}}, {.rates = {rate}}};
    struct aiod_request mine[2], last;

    add(&flows, &mine[0], &flow[0]);
    add(&flows, &mine[1], &flow[1]);
    add(&flows, &last, &flow[1]);
    CHECK(next(&flows, START) != NULL && next(&flows, START) == NULL && flows.waiting == 2);
    aiod_fair_queue_remove(&flows, flow[1].first);
    if (flow[0].queued > 0) {
        aiod_fair_queue_remove(&flows, flow[0].first);
    } else {
        aiod_fair_queue_remove(&flows, flow[1].first);
    }
    CHECK(flows.waiting == 0 && flows.held == 0 && aiod_fair_queue_next_release_ns(&flows) == UINT64_MAX);
    add(&flows, &mine[0], &flow[0]);
    CHECK(next(&flows, START) == NULL && flow[0].waits_for == rate);
    aiod_rate_set(rate, &none);
    aiod_fair_queue_release_all(&flows, rate);
    CHECK(next(&flows, START) == &mine[0]);
    aiod_rate_unref(rate);
}

int main(void)
{
    requests_pass_at_the_rate_plus_a_burst();
    bytes_pass_at_the_rate();
    a_large_request_passes_and_delays_the_next();
    idle_time_saves_one_burst();
    a_waiting_flow_delays_no_other();
    both_rates_of_a_flow_apply();
    disabled_rates_release_all();
    a_request_taken_along_is_charged();
    many_waiting_flows_hide_no_other();
    each_has_its_turn(4096, MS);
    each_has_its_turn(4096, 50 * MS);
    each_has_its_turn(1 << 20, MS);
    each_has_its_turn(1 << 20, 50 * MS);
    crossed_rates_do_not_deadlock();
    waiting_requests_can_be_cancelled();
    return 0;
}
