/* Bursts: the threads and wake-ups that a burst needs come, none too many, and not from the submitter. */
#include "check.h"

#include "spawner.h"

static struct gate gate;

/* A barrier of 64: it is only passed when all run at once. */
static void burst_into_a_cold_pool(void)
{
    enum {
        COUNT = 64
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
    struct job jobs[COUNT] = {0};
    pid_t tids[AIOD_THREADS_MAX];
    size_t workers;

    faults_reset();
    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    CHECK(creations_total() == 0); /* the submitter has created none */
    while (check_invariants(pool).active_threads < COUNT || gate.waiting < COUNT) {
        loop_once(pool, 1);
    }
    CHECK(creations_total() == COUNT);
    CHECK(creations_by(gettid()) == 1); /* the main loop began the chain, and newborns did the rest */
    workers = aiod_pool_worker_tids(pool, tids);
    CHECK(workers == COUNT);
    for (size_t i = 0; i < workers; i++) {
        CHECK(creations_by(tids[i]) <= AIOD_SPAWN_FAN_OUT);
    }
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

/* One sleeper is owed a request already: it must not count for the next ones as well. */
static void burst_with_one_worker_just_woken(void)
{
    enum {
        COUNT = 16
    };

    for (int turn = 0; turn < 50; turn++) {
        struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
        struct job first = {0};
        struct job jobs[COUNT] = {0};

        submit_jobs(pool, &first, 1, NULL);
        loop_until_reaped(pool, 1);
        gate_init(&gate, false);
        submit_jobs(pool, jobs, 1, &gate); /* wakes the one */
        submit_jobs(pool, jobs + 1, COUNT - 1, &gate);
        loop_until_waiting(pool, &gate, COUNT);
        gate_open(&gate);
        loop_until_reaped(pool, COUNT + 1);
        CHECK(check_invariants(pool).threads_created == COUNT);
        end_pool(pool);
    }
}

static bool all_asleep(const struct aiod_pool_stats *stats)
{
    return stats->idle_threads == stats->cur_threads && stats->waking_threads == 0;
}

/* All asleep, a burst for all: wake-ups spread from one, and nobody is created. */
static void burst_into_a_sleeping_pool(void)
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

static bool one_asleep(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads == 2 && all_asleep(stats);
}

/* The one that worked last is chosen first: its stack and caches are warm. */
static void most_recently_used_first(void)
{
    struct aiod_pool *pool = make_pool(2, 2, 10000);
    struct job jobs[2] = {0};
    struct job next = {0};

    loop_until_stats(pool, one_asleep);
    for (int turn = 0; turn < 20; turn++) {
        pid_t last;

        reaped_total = 0;
        gate_init(&gate, true);
        submit_jobs(pool, jobs, 1, &gate);
        loop_until_reaped(pool, 1);
        loop_until_stats(pool, one_asleep);
        last = jobs[0].worker;
        submit_jobs(pool, &next, 1, NULL);
        loop_until_reaped(pool, 2);
        CHECK(next.worker == last);
        loop_until_stats(pool, one_asleep);
    }
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

int main(void)
{
    faults_install();
    burst_into_a_cold_pool();
    burst_with_one_worker_just_woken();
    burst_into_a_sleeping_pool();
    most_recently_used_first();
    min_threads_are_created_through_the_chain();
    return 0;
}
