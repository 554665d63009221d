/* rate.c - the rate limiter's arithmetic. Called with the pool's lock held, but for aiod_rate_is_limited(). */
#include "pool/rate.h"

#include <stddef.h>
#include <stdlib.h>

#define SECOND_NS UINT64_C(1000000000)

struct aiod_rate *aiod_rate_create(void)
{
    struct aiod_rate *rate = calloc(1, sizeof(*rate));

    if (rate != NULL) {
        rate->refs = 1;
        rate->control.control = true;
        rate->control.rates[0] = rate;
    }
    return rate;
}

void aiod_rate_ref(struct aiod_rate *rate)
{
    rate->refs++;
}

void aiod_rate_unref(struct aiod_rate *rate)
{
    if (rate != NULL && --rate->refs == 0) {
        free(rate);
    }
}

void aiod_rate_set(struct aiod_rate *rate, const struct aiod_rate_limits *limits)
{
    __atomic_store_n(&rate->limits.per_second, limits->per_second, __ATOMIC_RELAXED);
    __atomic_store_n(&rate->limits.bytes_per_second, limits->bytes_per_second, __ATOMIC_RELAXED);
    rate->limits.burst_ns = limits->burst_ns;
    rate->requests_until_ns = rate->bytes_until_ns = 0;
}

bool aiod_rate_is_limited(const struct aiod_rate *rate)
{
    return __atomic_load_n(&rate->limits.per_second, __ATOMIC_RELAXED) != 0 ||
           __atomic_load_n(&rate->limits.bytes_per_second, __ATOMIC_RELAXED) != 0;
}

static uint64_t later_ns(uint64_t until_ns, uint64_t burst_ns, uint64_t now_ns)
{
    return until_ns > now_ns + burst_ns ? until_ns - burst_ns : 0;
}

uint64_t aiod_rate_ready_ns(const struct aiod_rate *rate, uint64_t now_ns)
{
    const struct aiod_rate_limits *limits = &rate->limits;
    uint64_t requests_ns = limits->per_second != 0 ? later_ns(rate->requests_until_ns, limits->burst_ns, now_ns) : 0;
    uint64_t bytes_ns = limits->bytes_per_second != 0 ? later_ns(rate->bytes_until_ns, limits->burst_ns, now_ns) : 0;

    return requests_ns > bytes_ns ? requests_ns : bytes_ns;
}

static uint64_t advance_ns(uint64_t until_ns, uint64_t now_ns, uint64_t amount, uint64_t per_second)
{
    uint64_t cost_ns = amount / per_second * SECOND_NS + amount % per_second * SECOND_NS / per_second;

    return (until_ns > now_ns ? until_ns : now_ns) + cost_ns;
}

void aiod_rate_take(struct aiod_rate *rate, uint64_t now_ns, uint64_t bytes)
{
    const struct aiod_rate_limits *limits = &rate->limits;

    if (limits->per_second != 0) {
        rate->requests_until_ns = advance_ns(rate->requests_until_ns, now_ns, 1, limits->per_second);
    }
    if (limits->bytes_per_second != 0) {
        rate->bytes_until_ns = advance_ns(rate->bytes_until_ns, now_ns, bytes, limits->bytes_per_second);
    }
}
