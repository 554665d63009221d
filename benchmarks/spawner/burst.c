/*
 * burst.c - one burst of blocking requests into a pool, seen by a submitter that is pinned to one CPU as a vcpu is.
 *
 * Linked with the core, and with one policy of creating or waking threads in place of the core's own file: see
 * policies/. One process, one burst: a pool that nothing has warmed. Prints one JSON object.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lock_watch.h"
#include "util/os.h"
#include "policy.h"
#include "pool/pool.h"
#include "pool/pool_state.h"

enum {
    BURST_MAX = 1024
};

#define WARM_NS UINT64_C(20000000)
#define PATIENCE_NS UINT64_C(20000000000)

struct options {
    unsigned burst;
    unsigned min_threads;
    uint64_t service_us;
    int submitter_cpu;
    int moved_to_cpu; /* -1: the main loop stays where it is */
};

static struct options options = {.burst = 64, .service_us = 5000, .moved_to_cpu = -1};
static struct aiod_pool *pool;
static struct aiod_request requests[BURST_MAX];

/* Used by the submitter only. */
static uint64_t submit_ns[BURST_MAX];
static uint64_t longest_gap_ns;
static uint64_t began_ns;
static _Atomic bool burst_done;

static void fail(const char *what)
{
    fprintf(stderr, "burst: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t blocking_request(struct aiod_request *request)
{
    struct timespec service = {.tv_nsec = (long)options.service_us * 1000};

    (void)request;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &service, NULL);
    return 0;
}

static void pin(int cpu)
{
    cpu_set_t mask;

    CPU_ZERO(&mask);
    CPU_SET((size_t)cpu, &mask);
    if (sched_setaffinity(0, sizeof(mask), &mask) != 0) {
        fail("sched_setaffinity");
    }
}

/* One iteration of the submitter's loop: record the time since the last one. */
static uint64_t turn(uint64_t last_ns)
{
    uint64_t now_ns = aiod_now_ns();

    if (now_ns - last_ns > longest_gap_ns) {
        longest_gap_ns = now_ns - last_ns;
    }
    return now_ns;
}

/* A loop that must not stall, and that submits a request in 64 of its iterations. */
static void *submitter(void *unused)
{
    uint64_t last_ns;
    uint64_t end_ns = aiod_now_ns() + WARM_NS;

    (void)unused;
    pin(options.submitter_cpu);
    while (aiod_now_ns() < end_ns) {
    }
    began_ns = last_ns = aiod_now_ns();
    for (unsigned i = 0; i < options.burst; i++) {
        uint64_t before_ns = aiod_now_ns();

        aiod_pool_submit(pool, &requests[i], 1);
        submit_ns[i] = aiod_now_ns() - before_ns;
        last_ns = turn(last_ns);
    }
    while (!burst_done) {
        last_ns = turn(last_ns);
    }
    return NULL;
}

/* The main loop of an engine: doorbell, completions, timer. Returns when the burst is done. */
static uint64_t serve(void)
{
    struct pollfd fds[2] = {
        {.fd = aiod_pool_completion_fd(pool), .events = POLLIN},
        {.fd = policy_doorbell_fd(pool), .events = POLLIN}, /* -1: another thread answers it */
    };
    unsigned done = 0;

    while (done < options.burst) {
        uint64_t wanted_ns = aiod_pool_tick_wanted(pool);
        int wait_ms = wanted_ns > PATIENCE_NS ? (int)(PATIENCE_NS / 1000000) : (int)(wanted_ns / 1000000) + 1;

        if (poll(fds, 2, wait_ms) < 0 && errno != EINTR) {
            fail("poll");
        }
        if (fds[1].revents != 0) {
            aiod_pool_spawn(pool);
        }
        for (struct aiod_request *request = aiod_pool_reap(pool); request != NULL; request = request->next) {
            done++;
        }
        aiod_pool_tick(pool);
    }
    return aiod_now_ns();
}

static void wait_for_min_threads(void)
{
    struct pollfd doorbell = {.fd = policy_doorbell_fd(pool), .events = POLLIN};
    struct aiod_pool_stats stats;

    for (;;) {
        aiod_pool_get_stats(pool, &stats);
        if (stats.idle_threads == options.min_threads && stats.waking_threads == 0 && stats.pending_threads == 0) {
            return;
        }
        if (poll(&doorbell, 1, 1) > 0) {
            aiod_pool_spawn(pool);
        }
    }
}

/* Count workers confined to the submitter's CPU, and workers with other CPUs than the main loop's. */
static void look_at_masks(unsigned *confined, unsigned *astray)
{
    pid_t tids[AIOD_THREADS_MAX];
    size_t count = aiod_pool_worker_tids(pool, tids);
    cpu_set_t wanted;

    sched_getaffinity(0, sizeof(wanted), &wanted);
    *confined = *astray = 0;
    for (size_t i = 0; i < count; i++) {
        cpu_set_t mask;

        if (sched_getaffinity(tids[i], sizeof(mask), &mask) == 0) {
            *confined += CPU_COUNT(&mask) == 1 && CPU_ISSET((size_t)options.submitter_cpu, &mask);
            *astray += !CPU_EQUAL(&mask, &wanted);
        }
    }
}

static void print_result(uint64_t ended_ns, uint64_t created_before)
{
    struct aiod_pool_stats stats;
    unsigned confined;
    unsigned astray;

    look_at_masks(&confined, &astray);
    aiod_pool_get_stats(pool, &stats);
    printf("{\"submit_ns\": [");
    for (unsigned i = 0; i < options.burst; i++) {
        printf("%s%" PRIu64, i > 0 ? ", " : "", submit_ns[i]);
    }
    printf("], \"lock_held_ns\": [");
    lock_watch_print();
    printf("], \"gap_ns\": %" PRIu64 ", \"done_ns\": %" PRIu64 ", \"created\": %" PRIu64
           ", \"threads_peak\": %u, \"workers\": %u, \"confined\": %u, \"astray\": %u, \"lost_wakeups\": %" PRIu64
           "}\n",
           longest_gap_ns, ended_ns - began_ns, stats.threads_created - created_before, stats.threads_peak,
           stats.cur_threads, confined, astray, stats.lost_wakeups);
}

static void parse(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: burst REQUESTS MIN_THREADS SERVICE_US SUBMITTER_CPU MOVED_TO_CPU\n");
        exit(2);
    }
    options.burst = (unsigned)atoi(argv[1]);
    options.min_threads = (unsigned)atoi(argv[2]);
    options.service_us = (uint64_t)atoi(argv[3]);
    options.submitter_cpu = atoi(argv[4]);
    options.moved_to_cpu = atoi(argv[5]);
}

int main(int argc, char **argv)
{
    struct aiod_pool_config config = {.name = "bench", .idle_timeout_ns = PATIENCE_NS, .spawn_retry_ns = PATIENCE_NS};
    struct aiod_pool_stats stats;
    pthread_t thread;
    uint64_t ended_ns;

    parse(argc, argv);
    config.max_threads = options.burst;
    config.min_threads = options.min_threads;
    if (aiod_pool_create(&pool, &config) != 0) {
        fail("aiod_pool_create");
    }
    policy_prepare(pool);
    wait_for_min_threads();
    aiod_pool_get_stats(pool, &stats);
    for (unsigned i = 0; i < options.burst; i++) {
        requests[i] = (struct aiod_request){.run = blocking_request};
    }
    if (options.moved_to_cpu >= 0) {
        pin(options.moved_to_cpu);
    }
    lock_watch_start(&pool->lock);
    if (pthread_create(&thread, NULL, submitter, NULL) != 0) {
        fail("pthread_create");
    }
    ended_ns = serve();
    burst_done = true;
    pthread_join(thread, NULL);
    print_result(ended_ns, stats.threads_created);
    return 0;
}
