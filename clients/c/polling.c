/*
 * polling.c - how long a thread polls for a completion before it sleeps. The rule is that of the engine's poller
 * (aiod/core/ring/halt_poll.h): KVM's halt polling, and back-off after polls that found nothing.
 */
#include "polling.h"

#include <sched.h>
#include <time.h>

#include "client.h"
#include "clock.h"

#define MIN_NS UINT64_C(2000)
#define FAILED_MAX                                                                                                     \
    4u /* polls in a row that may fail; each further failure doubles the number of skipped polls, up to: */
#define SKIP_SHIFT_MAX 10u
#define CACHE_NS UINT64_C(500000000) /* how long an affinity and a scheduling policy are taken to be unchanged */

/* ---- whether: a property of the thread --------------------------------------------------------------------------- */

/* The cached answer for the calling thread. */
static _Thread_local struct {
    const struct aiod_client *client;
    uint64_t until_ns;
    bool may_poll;
} cached;

/*
 * Are this thread and the engine bound to the same single CPU? Assume so if the engine's affinity cannot be read:
 * the engine may have no other CPU.
 */
static bool share_one_cpu(const struct aiod_client *client)
{
    cpu_set_t own, engine;

    if (sched_getaffinity(0, sizeof(own), &own) < 0 || CPU_COUNT(&own) != 1) {
        return false;
    }
    return client->engine_pid == 0 || sched_getaffinity(client->engine_pid, sizeof(engine), &engine) < 0 ||
           CPU_EQUAL(&own, &engine);
}

/* The engine may be waiting for this very CPU, and gets it only when a real-time thread sleeps. */
static bool is_real_time(void)
{
    int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

    return policy == SCHED_FIFO || policy == SCHED_RR;
}

/* The coarse clock costs less, and each request reads it. */
static uint64_t coarse_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * AIOD_NS_PER_S + (uint64_t)now.tv_nsec;
}

bool aiod_may_poll(const struct aiod_client *client)
{
    uint64_t now = coarse_clock_ns();

    if (cached.client != client || now >= cached.until_ns) {
        cached.client = client;
        cached.until_ns = now + CACHE_NS;
        cached.may_poll = !is_real_time() && !share_one_cpu(client);
    }
    return cached.may_poll;
}

/* ---- how long: a property of the client -------------------------------------------------------------------------- */

uint64_t aiod_polling_begin(struct aiod_polling *polling)
{
    if (polling->skip > 0) {
        polling->skip--;
        return 0;
    }
    return polling->now_ns;
}

static void count(struct aiod_polling *polling, bool found)
{
    unsigned excess;

    polling->failed = found ? 0 : polling->failed + 1;
    if (polling->failed >= FAILED_MAX) {
        excess = polling->failed - FAILED_MAX;
        polling->failed -= excess > SKIP_SHIFT_MAX; /* the count stays at its maximum */
        polling->skip = 1u << (excess < SKIP_SHIFT_MAX ? excess : SKIP_SHIFT_MAX);
    }
}

/* Grow if a longer poll would have found the completion; shrink if no poll of max_ns would have. */
static void adapt(struct aiod_polling *polling, uint64_t waited_ns)
{
    if (waited_ns <= polling->now_ns) {
        return;
    }
    if (waited_ns < polling->max_ns) {
        uint64_t grown = polling->now_ns * 2 > MIN_NS ? polling->now_ns * 2 : MIN_NS;

        polling->now_ns = grown < polling->max_ns ? grown : polling->max_ns;
    } else {
        polling->now_ns = polling->now_ns / 2 >= MIN_NS ? polling->now_ns / 2 : 0;
    }
}

void aiod_polling_end(struct aiod_polling *polling, uint64_t polled_ns, bool found, uint64_t waited_ns)
{
    if (polled_ns > 0) {
        count(polling, found);
    }
    adapt(polling, waited_ns);
}
