/* The spawner's statistics: the cause of each creation, the longest chain, and the time from decision to start. */
#include "check.h"

#include "pool/spawner.h"

static struct gate gate;

static uint64_t latencies(struct aiod_pool *pool)
{
    struct aiod_histogram histogram;
    uint64_t count = 0;

    aiod_pool_get_spawn_latency(pool, &histogram);
    for (size_t i = 0; i < AIOD_HISTOGRAM_BUCKETS; i++) {
        count += histogram.counts[i];
    }
    return count;
}

static bool three_there(const struct aiod_pool_stats *stats)
{
    return stats->threads_created == 3 && stats->idle_threads == 3 && stats->waking_threads == 0;
}

static void causes_of_creations_are_counted(void)
{
    enum {
        COUNT = 12
    };
    struct aiod_pool *pool = make_pool(COUNT, 3, 10000);
    struct job jobs[COUNT] = {0};
    struct aiod_pool_stats stats;

    faults_reset();
    gate_init(&gate, false);
    CHECK(latencies(pool) == 0);
    loop_until_stats(pool, three_there);
    stats = check_invariants(pool);
    CHECK(stats.created_for[AIOD_SPAWN_MIN] == 3);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, COUNT);
    stats = check_invariants(pool);
    CHECK(stats.created_for[AIOD_SPAWN_MIN] == 3 && stats.created_for[AIOD_SPAWN_BURST] == COUNT - 3);
    CHECK(stats.longest_chain >= 2 && latencies(pool) == COUNT);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

/* With a fan-out of one the new workers form a chain, whose length is reported. */
static void the_longest_chain_is_counted(void)
{
    struct aiod_pool *pool = make_pool(2, 0, 10000);
    struct job jobs[2] = {0};

    gate_init(&gate, false);
    submit_jobs(pool, jobs, 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    CHECK(check_invariants(pool).longest_chain == 1);
    submit_jobs(pool, jobs + 1, 1, &gate); /* created by the main loop: no longer chain */
    loop_until_waiting(pool, &gate, 2);
    CHECK(check_invariants(pool).longest_chain == 1 && latencies(pool) == 2);
    gate_open(&gate);
    loop_until_reaped(pool, 2);
    end_pool(pool);
}

static void retries_are_counted(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job jobs[4] = {0};
    struct aiod_pool_stats stats;

    faults_reset();
    faults.creations_good = 1;
    faults.creations_bad = 1;
    gate_init(&gate, false);
    submit_jobs(pool, jobs, 4, &gate);
    loop_until_waiting(pool, &gate, 4);
    stats = check_invariants(pool);
    CHECK(stats.spawn_failures == 1 && latencies(pool) == 4);
    CHECK(stats.created_for[AIOD_SPAWN_BURST] == 1 && stats.created_for[AIOD_SPAWN_RETRY] == 3);
    gate_open(&gate);
    loop_until_reaped(pool, 4);
    faults_reset();
    end_pool(pool);
}

int main(void)
{
    faults_install();
    causes_of_creations_are_counted();
    the_longest_chain_is_counted();
    retries_are_counted();
    return 0;
}
