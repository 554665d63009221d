/* A burst gets the threads and wake-ups that it needs, not more, and none of them from the submitter. */
#include "check.h"

#include <poll.h>

#include "pool/spawner.h"

static struct gate gate;

/* A barrier of 64 requests, which is only passed if all of them run at the same time. */
static void a_cold_pool_creates_a_worker_per_request(void)
{
    enum {
        COUNT = 64
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
    struct job jobs[COUNT] = {0};
    pid_t tids[AIOD_THREADS_MAX];
    size_t workers;
    size_t by_workers = 0;

    faults_reset();
    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    CHECK(creations_total() == 0); /* none by the submitter */
    loop_until_waiting(pool, &gate, COUNT);
    CHECK(check_invariants(pool).active_threads == COUNT);
    CHECK(creations_by(gettid()) == 1); /* the main loop started the chain, and new workers created the rest */
    workers = aiod_pool_worker_tids(pool, tids);
    CHECK(workers == COUNT);
    for (size_t i = 0; i < workers; i++) {
        CHECK(creations_by(tids[i]) <= AIOD_SPAWN_FAN_OUT);
        by_workers += creations_by(tids[i]);
    }
    CHECK(by_workers == COUNT - 1 && creations_total() == COUNT);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

static bool all_asleep(const struct aiod_pool_stats *stats)
{
    return stats->idle_threads == stats->cur_threads && stats->waking_threads == 0;
}

/* A sleeper that was woken for one request must not count as supply for further ones. */
static void a_woken_worker_does_not_count_twice(void)
{
    enum {
        COUNT = 16
    };

    for (int turn = 0; turn < 50; turn++) {
        struct aiod_pool *pool = make_pool(4 * COUNT, 0, 10000);
        struct job first = {0};
        struct job jobs[COUNT] = {0};

        submit_jobs(pool, &first, 1, NULL);
        loop_until_reaped(pool, 1);
        loop_until_stats(pool, all_asleep);
        gate_init(&gate, false);
        submit_jobs(pool, jobs, 1, &gate); /* wakes the sleeping worker */
        submit_jobs(pool, jobs + 1, COUNT - 1, &gate);
        loop_until_waiting(pool, &gate, COUNT);
        gate_open(&gate);
        loop_until_reaped(pool, COUNT + 1);
        CHECK(check_invariants(pool).threads_created == COUNT);
        end_pool(pool);
    }
}

/* All workers sleep: the wake-ups spread from one worker, and no thread is created. */
static void a_sleeping_pool_wakes_all_and_creates_none(void)
{
    enum {
        COUNT = 32
    };
    struct aiod_pool *pool = make_pool(COUNT, COUNT, 10000);
    struct job jobs[COUNT] = {0};

    faults_reset();
    for (int turn = 0; turn < 100; turn++) {
        loop_until_stats(pool, all_asleep);
        gate_init(&gate, false);
        submit_jobs(pool, jobs, COUNT, &gate);
        loop_until_waiting(pool, &gate, COUNT);
        gate_open(&gate);
        loop_until_reaped(pool, (size_t)COUNT * (size_t)(turn + 1));
    }
    CHECK(check_invariants(pool).threads_created == COUNT);
    end_pool(pool);
}

/* The worker that worked last is chosen first, because its stack and caches are warm. */
static void the_most_recently_used_worker_wakes_first(void)
{
    enum {
        COUNT = 4
    };
    struct aiod_pool *pool = make_pool(COUNT, COUNT, 10000);
    struct gate gates[COUNT];
    struct job jobs[COUNT] = {0};
    struct job again[COUNT] = {0};

    loop_until_stats(pool, all_asleep);
    for (size_t i = 0; i < COUNT; i++) {
        gate_init(&gates[i], false);
        submit_jobs(pool, &jobs[i], 1, &gates[i]);
        loop_until_waiting(pool, &gates[i], 1);
    }
    for (size_t i = 0; i < COUNT; i++) { /* let them sleep in this order */
        gate_open(&gates[i]);
        while (check_invariants(pool).idle_threads != i + 1) {
            loop_once(pool, 1);
        }
    }
    gate_init(&gate, false);
    for (unsigned i = 0; i < COUNT; i++) {
        submit_jobs(pool, &again[i], 1, &gate);
        loop_until_waiting(pool, &gate, i + 1);
        CHECK(again[i].worker == jobs[COUNT - 1 - i].worker);
    }
    gate_open(&gate);
    loop_until_reaped(pool, (size_t)2 * COUNT);
    end_pool(pool);
}

static bool threads_are_16(const struct aiod_pool_stats *stats)
{
    return stats->idle_threads == 16;
}

static void min_threads_are_created_through_the_chain(void)
{
    struct aiod_pool *pool;

    faults_reset();
    pool = make_pool(32, 16, 10000);
    CHECK(creations_total() == 0);
    loop_until_stats(pool, threads_are_16);
    CHECK(creations_total() == 16 && creations_by(gettid()) == 1);
    end_pool(pool);
}

/*
 * Each call of aiod_pool_spawn() creates one worker; the doorbell does not ring while a new worker will see the
 * backlog.
 */
static void a_spawn_call_creates_one_worker(void)
{
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct pollfd doorbell = {.fd = aiod_pool_doorbell_fd(pool), .events = POLLIN};
    struct job jobs[16] = {0};
    struct gate creations_gate;
    struct aiod_pool_stats stats;

    faults_reset();
    gate_init(&creations_gate, false);
    faults.creations_gate = &creations_gate;
    gate_init(&gate, false);
    submit_jobs(pool, jobs, 4, &gate);
    CHECK(poll(&doorbell, 1, 0) == 1);
    aiod_pool_spawn(pool);
    gate_wait_for(&creations_gate, 1); /* the first worker is about to create the second one, which is pending */
    stats = check_invariants(pool);
    CHECK(stats.active_threads == 1 && stats.pending_threads == 1 && stats.new_threads == 2);
    submit_jobs(pool, jobs + 4, 4, &gate);
    CHECK(poll(&doorbell, 1, 0) == 0);
    aiod_pool_spawn(pool); /* not requested, and harmless */
    gate_wait_for(&creations_gate, 2);
    CHECK(creations_by(gettid()) == 2 && creations_total() == 2);
    gate_open(&creations_gate);
    submit_jobs(pool, jobs + 8, 8, &gate);
    loop_until_waiting(pool, &gate, 16);
    aiod_pool_spawn(pool); /* the backlog is empty */
    CHECK(creations_total() == 16);
    gate_open(&gate);
    loop_until_reaped(pool, 16);
    faults_reset();
    end_pool(pool);
}

int main(void)
{
    faults_install();
    a_cold_pool_creates_a_worker_per_request();
    a_woken_worker_does_not_count_twice();
    a_sleeping_pool_wakes_all_and_creates_none();
    a_spawn_call_creates_one_worker();
    the_most_recently_used_worker_wakes_first();
    min_threads_are_created_through_the_chain();
    return 0;
}
