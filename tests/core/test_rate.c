/*
 * Rates (rate.h), with given times; and what they do in the queue (flows.h).
 */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "flows.h"
#include "rate.h"

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

/* How many requests of `bytes` pass from START on within `time_ns`, looked for every `step_ns`. */
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

static void so_many_a_second_and_a_burst(void)
{
    struct aiod_rate *rate = rate_of(1000, 0, 100 * MS);
    uint64_t count = passed(rate, 10 * SECOND, MS, 4096);

    CHECK(count >= 10000 && count <= 10102);
    aiod_rate_unref(rate);
    rate = rate_of(1000, 0, 10 * MS);
    count = passed(rate, 10 * SECOND, 7 * MS, 4096); /* looked at rarely: nothing is lost */
    CHECK(count >= 9990 && count <= 10012);
    aiod_rate_unref(rate);
}

static void bytes_too_and_both(void)
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

static void a_large_one_passes_and_is_paid_for(void)
{
    struct aiod_rate *rate = rate_of(0, 1 << 20, MS);

    CHECK(aiod_rate_ready_ns(rate, START) == 0);
    aiod_rate_take(rate, START, 10 << 20);
    CHECK(aiod_rate_ready_ns(rate, START) == START + 10 * SECOND - MS);
    CHECK(aiod_rate_ready_ns(rate, START + 10 * SECOND - MS) == 0);
    aiod_rate_unref(rate);
}

static void idleness_is_saved_up_as_a_burst_only(void)
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

/* ---- in the queue --------------------------------------------------------------------------------------------------- */

static struct aiod_request *next(struct aiod_flows *flows, uint64_t now_ns)
{
    struct aiod_request *request = aiod_flows_pick(flows, false, now_ns);

    if (request != NULL) {
        aiod_flows_remove(flows, request);
    }
    return request;
}

static void add(struct aiod_flows *flows, struct aiod_request *request, struct aiod_flow *flow)
{
    *request = (struct aiod_request){.flow = flow, .cost = 4096, .queued_ns = START};
    aiod_flows_add(flows, request);
}

static void one_that_waits_delays_nobody_else(void)
{
    struct aiod_flows flows = {.wake_ns = UINT64_MAX};
    struct aiod_rate *rate = rate_of(1, 0, MS);
    struct aiod_flow limited = {.rates = {rate}}, other = {0};
    struct aiod_request mine[2], others[2];

    for (int i = 0; i < 2; i++) {
        add(&flows, &mine[i], &limited);
    }
    CHECK(next(&flows, START) == &mine[0]);
    CHECK(next(&flows, START) == NULL);
    CHECK(limited.waits && flows.held == 1 && flows.fresh == 0);
    CHECK(flows.wake_ns == START + SECOND - MS);
    for (int i = 0; i < 2; i++) {
        add(&flows, &others[i], &other);
    }
    CHECK(next(&flows, START) == &others[0] && next(&flows, START) == &others[1]);
    CHECK(next(&flows, START) == NULL);
    aiod_flows_wake(&flows, START + SECOND / 2);
    CHECK(limited.waits && flows.wake_ns == START + SECOND - MS);
    aiod_flows_wake(&flows, START + SECOND);
    CHECK(!limited.waits && flows.held == 0 && flows.wake_ns == UINT64_MAX);
    CHECK(next(&flows, START + SECOND) == &mine[1]);
    aiod_rate_unref(rate);
}

static void both_rates_count(void)
{
    struct aiod_flows flows = {.wake_ns = UINT64_MAX};
    struct aiod_rate *of_export = rate_of(1000, 0, MS), *of_user = rate_of(1, 0, MS);
    struct aiod_flow flow = {.rates = {of_export, of_user}};
    struct aiod_request requests[2];

    add(&flows, &requests[0], &flow);
    add(&flows, &requests[1], &flow);
    CHECK(next(&flows, START) == &requests[0] && next(&flows, START) == NULL);
    CHECK(flow.ready_ns == START + SECOND - MS);
    CHECK(of_export->requests_until_ns == START + MS); /* nothing was taken of it in vain */
    aiod_rate_unref(of_export);
    aiod_rate_unref(of_user);
}

static void at_the_end_nobody_waits(void)
{
    struct aiod_flows flows = {.wake_ns = UINT64_MAX};
    struct aiod_rate *rate = rate_of(1, 0, MS);
    struct aiod_flow flow = {.rates = {rate}};
    struct aiod_request requests[3];

    for (int i = 0; i < 3; i++) {
        add(&flows, &requests[i], &flow);
    }
    CHECK(next(&flows, START) == &requests[0] && next(&flows, START) == NULL);
    aiod_flows_unlimit(&flows);
    CHECK(next(&flows, START) == &requests[1] && next(&flows, START) == &requests[2]);
    aiod_rate_unref(rate);
}

int main(void)
{
    so_many_a_second_and_a_burst();
    bytes_too_and_both();
    a_large_one_passes_and_is_paid_for();
    idleness_is_saved_up_as_a_burst_only();
    one_that_waits_delays_nobody_else();
    both_rates_count();
    at_the_end_nobody_waits();
    return 0;
}
