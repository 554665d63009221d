/*
 * looking.c - how long a thread looks for a completion before it sleeps: as the engine's poller (aiod/core/ring/halt_poll.h), by KVM's
 * halt polling and a count of looks in vain.
 */
#include <sched.h>
#include <time.h>

#include "client.h"

#define MIN_NS UINT64_C(2000)
#define FAILED_MAX 4u /* in a row; after each further one twice as many are left out, up to: */
#define LEFT_OUT_SHIFT_MAX 10u
#define KNOWN_NS UINT64_C(500000000) /* how long affinities and policies are taken to be what they were */

/* ---- whether: of a thread -------------------------------------------------------------------------------------------- */

/* What is known of the calling thread. */
static _Thread_local struct {
    const struct aiod_client *client;
    uint64_t until_ns;
    bool may_look;
} known;

/* Have this thread and the engine one CPU between them? Of an engine that cannot be asked nothing is known: it may have no other. */
static bool share_one_cpu(const struct aiod_client *client)
{
    cpu_set_t own, engine;

    if (sched_getaffinity(0, sizeof(own), &own) < 0 || CPU_COUNT(&own) != 1) {
        return false;
    }
    return client->engine_pid == 0 || sched_getaffinity(client->engine_pid, sizeof(engine), &engine) < 0 ||
           CPU_EQUAL(&own, &engine);
}

/* The engine may be waiting for this very CPU, and gets it only when this thread sleeps. */
static bool is_real_time(void)
{
    int policy = sched_getscheduler(0) & ~SCHED_RESET_ON_FORK;

    return policy == SCHED_FIFO || policy == SCHED_RR;
}

/* Coarse, since it is asked for each request. */
static uint64_t coarse_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool aiod_may_look(const struct aiod_client *client)
{
    uint64_t now = coarse_clock_ns();

    if (known.client != client || now >= known.until_ns) {
        known.client = client;
        known.until_ns = now + KNOWN_NS;
        known.may_look = !is_real_time() && !share_one_cpu(client);
    }
    return known.may_look;
}

/* ---- how long: of a client ------------------------------------------------------------------------------------------- */

uint64_t aiod_look_begin(struct aiod_looking *looking)
{
    if (looking->left_out > 0) {
        looking->left_out--;
        return 0;
    }
    return looking->now_ns;
}

static void count(struct aiod_looking *looking, bool found)
{
    unsigned more;

    looking->failed = found ? 0 : looking->failed + 1;
    if (looking->failed >= FAILED_MAX) {
        more = looking->failed - FAILED_MAX;
        looking->failed -= more > LEFT_OUT_SHIFT_MAX; /* it stays there */
        looking->left_out = 1u << (more < LEFT_OUT_SHIFT_MAX ? more : LEFT_OUT_SHIFT_MAX);
    }
}

/* Was looking on worth it, and would more have been? */
static void adapt(struct aiod_looking *looking, uint64_t waited_ns)
{
    if (waited_ns <= looking->now_ns) {
        return;
    }
    if (waited_ns < looking->max_ns) {
        uint64_t grown = looking->now_ns * 2 > MIN_NS ? looking->now_ns * 2 : MIN_NS;

        looking->now_ns = grown < looking->max_ns ? grown : looking->max_ns;
    } else {
        looking->now_ns = looking->now_ns / 2 >= MIN_NS ? looking->now_ns / 2 : 0;
    }
}

void aiod_look_end(struct aiod_looking *looking, uint64_t looked_ns, bool found, uint64_t waited_ns)
{
    if (looked_ns > 0) {
        count(looking, found);
    }
    adapt(looking, waited_ns);
}
