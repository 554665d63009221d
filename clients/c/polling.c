/*
 * polling.c - how long a thread polls for a completion before it sleeps. The rule is that of the engine's leader
 * (aiod/core/ring/halt_poll.h): KVM's halt polling, and back-off after polls that found nothing.
 *
 * A poll yields the CPU again and again. On a machine with more clients than CPUs the time passes while other threads
 * run, the engine's among them. That costs nobody anything, and spares two system calls and a wake-up for each
 * completion. So a poll is limited by the CPU time that it takes itself, and by the number of times that other threads
 * have run: if the completion has not arrived after so many, the engine does not get the CPU in this way.
 *
 * A yield costs more than the engine takes for a cached read, if another thread can run. So an engine that mostly answers
 * before the first yield is given the time for that; one that does not (it runs on this CPU, or serves many clients first)
 * gets the CPU at once. A client that never yields would keep those on its CPU waiting, so it gives way now and then.
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
#define SWITCH_NS UINT64_C(1000)     /* a sched_yield() that takes longer has let other threads run */
#define CROWDED_NS                                                                                                     \
    UINT64_C(2000000)     /* among threads that keep the CPU for so long it is better to sleep and be woken */
#define CROWDED_PAUSE 64u /* no poll by yielding for so many times as long */
#define TURNS_MAX 16u
#define NEAR_LOOKS 96u /* a few times what a cached read takes */
#define NEAR_MAX 2u
#define FAR_MAX 16u   /* after so many polls that yielded at once, one tries whether the engine answers before */
#define BURST_MAX 16u /* after so many polls that did not yield, one gives way */

/* ---- whether: a property of the thread --------------------------------------------------------------------------- */

/* The cached answer for the calling thread. */
static _Thread_local struct {
    const struct aiod_client *client;
    uint64_t until_ns;
    enum aiod_polling_way way;
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

static enum aiod_polling_way find_way(const struct aiod_client *client)
{
    if (is_real_time()) {
        return AIOD_POLL_NOT;
    }
    return share_one_cpu(client) ? AIOD_POLL_YIELDING : AIOD_POLL_SPINNING;
}

enum aiod_polling_way aiod_polling_way(const struct aiod_client *client)
{
    uint64_t now = coarse_clock_ns();

    if (cached.client != client || now >= cached.until_ns) {
        cached.client = client;
        cached.until_ns = now + CACHE_NS;
        cached.way = find_way(client);
    }
    return cached.way;
}

/* ---- one poll ---------------------------------------------------------------------------------------------------- */

void aiod_poll_gave_way(struct aiod_poll *poll, uint64_t yield_ns)
{
    if (yield_ns > CROWDED_NS) {
        poll->crowded_ns = yield_ns;
    }
}

bool aiod_poll_goes_on(struct aiod_poll *poll, uint64_t own_ns, uint64_t yield_ns)
{
    bool switched = yield_ns > SWITCH_NS;

    poll->yielded = true;
    poll->own_ns += switched ? own_ns : own_ns + yield_ns;
    poll->turns += switched;
    aiod_poll_gave_way(poll, yield_ns);
    if (!switched && poll->way == AIOD_POLL_YIELDING) {
        return false; /* no other thread can run on the only CPU: the engine does not answer soon */
    }
    return poll->own_ns < poll->limit_ns && poll->turns < TURNS_MAX && poll->crowded_ns == 0;
}

/* ---- how long: a property of the client -------------------------------------------------------------------------- */

static uint64_t limit_of(struct aiod_polling *polling)
{
    uint64_t least_ns = polling->max_ns < MIN_NS ? polling->max_ns : MIN_NS;

    if (polling->skip > 0) {
        polling->skip--;
        return 0;
    }
    return polling->now_ns > least_ns ? polling->now_ns : least_ns;
}

/* Is the engine expected to answer before the first yield? If not, try now and then. */
static bool is_near(struct aiod_polling *polling)
{
    bool tries = polling->near > 0 || polling->far == 0;

    polling->far = polling->near > 0 ? 0 : (polling->far + 1) % FAR_MAX;
    return tries;
}

struct aiod_poll aiod_polling_begin(struct aiod_polling *polling, enum aiod_polling_way way, uint64_t now_ns)
{
    struct aiod_poll poll = {.way = way, .looks = 1};
    bool yields = now_ns >= polling->yields_from_ns;

    if (way == AIOD_POLL_SPINNING || (way == AIOD_POLL_YIELDING && yields)) {
        poll.limit_ns = limit_of(polling);
    }
    if (way == AIOD_POLL_SPINNING && poll.limit_ns > 0) {
        poll.looks = is_near(polling) ? NEAR_LOOKS : 1;
        poll.gives_way = polling->burst >= BURST_MAX && yields;
    }
    return poll;
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

/*
 * Grow if a longer poll would have found the completion; shrink if no poll of max_ns would have. A poll of MIN_NS stays:
 * where threads wait for CPUs, only a poll can find out that polling has become worth while.
 */
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

/* Was the poll answered before the first yield? */
static void count_near(struct aiod_polling *polling, const struct aiod_poll *poll, bool found)
{
    bool at_once = found && !poll->yielded;

    polling->burst = at_once && !poll->gives_way ? polling->burst + 1 : 0;
    if (poll->looks > 1) {
        polling->near = !at_once ? polling->near - (polling->near > 0) : NEAR_MAX;
    }
}

void aiod_polling_end(struct aiod_polling *polling, const struct aiod_poll *poll, bool found, uint64_t waited_ns,
                      uint64_t now_ns)
{
    if (poll->limit_ns > 0 && poll->way == AIOD_POLL_SPINNING) {
        count_near(polling, poll, found);
    }
    if (poll->limit_ns > 0) {
        count(polling, found && poll->crowded_ns == 0);
    }
    if (poll->turns == 0) { /* else other threads had the CPU: how long it took says nothing */
        adapt(polling, waited_ns);
    }
    if (poll->crowded_ns > 0) {
        polling->yields_from_ns = now_ns + CROWDED_PAUSE * poll->crowded_ns;
    }
}
