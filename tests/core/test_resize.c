/* min_threads and max_threads change under load; idle workers exit down to min_threads. */
#include "check.h"

#include <errno.h>

static struct gate gate;

static bool one_left(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads == 1;
}

static bool none_left(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads == 0;
}

static bool four_left(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads == 4 && stats->idle_threads == 4;
}

static void a_larger_maximum_creates_workers_under_load(void)
{
    enum {
        COUNT = 32
    };
    struct aiod_pool *pool = make_pool(2, 0, 10000);
    struct job jobs[COUNT] = {0};

    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, 2);
    CHECK(check_invariants(pool).cur_threads == 2);
    CHECK(aiod_pool_resize(pool, COUNT, 0) == 0);
    loop_until_waiting(pool, &gate, COUNT);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

static void a_smaller_maximum_ends_workers_under_load(void)
{
    enum {
        COUNT = 2000
    };
    struct aiod_pool *pool = make_pool(16, 16, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));

    submit_jobs(pool, jobs, COUNT, NULL);
    loop_once(pool, 0);
    CHECK(aiod_pool_resize(pool, 1, 0) == 0);
    loop_until_reaped(pool, COUNT);
    loop_until_stats(pool, one_left);
    end_pool(pool);
    free(jobs);
}

static bool three_left(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads == 3;
}

/* Surplus workers finish their requests and exit; queued requests wait for the others. */
static void active_workers_exit_after_their_request(void)
{
    enum {
        COUNT = 8
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
    struct gate second;
    struct job jobs[COUNT] = {0};
    struct job more[COUNT] = {0};

    gate_init(&gate, false);
    gate_init(&second, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, COUNT);
    CHECK(aiod_pool_resize(pool, 3, 3) == 0);
    CHECK(check_invariants(pool).active_threads == COUNT);
    submit_jobs(pool, more, COUNT, &second);
    gate_open(&gate);
    loop_until_waiting(pool, &second, 3);
    loop_until_stats(pool, three_left);
    CHECK(second.waiting == 3);
    gate_open(&second);
    loop_until_reaped(pool, (size_t)2 * COUNT);
    CHECK(check_invariants(pool).cur_threads == 3 && check_invariants(pool).threads_created == COUNT);
    end_pool(pool);
}

/* The backlog is reduced at once; workers that are being created start, and exit again. */
static void a_shrink_reduces_the_backlog(void)
{
    enum {
        COUNT = 16
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
    struct gate creations_gate;
    struct job jobs[COUNT] = {0};
    struct aiod_pool_stats stats;

    gate_init(&gate, false);
    gate_init(&creations_gate, false);
    faults.creations_gate = &creations_gate;
    submit_jobs(pool, jobs, COUNT, &gate);
    aiod_pool_spawn(pool);
    gate_wait_for(&creations_gate, 1);
    CHECK(aiod_pool_resize(pool, 1, 0) == 0);
    stats = check_invariants(pool);
    CHECK(stats.new_threads == 0 && stats.pending_threads == 1 && stats.active_threads == 1);
    gate_open(&creations_gate);
    loop_until_stats(pool, one_left);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    CHECK(check_invariants(pool).threads_created == 2);
    faults_reset();
    end_pool(pool);
}

static void a_shrink_wakes_and_ends_sleepers(void)
{
    struct aiod_pool *pool = make_pool(16, 4, 3600000);

    loop_until_stats(pool, four_left);
    CHECK(aiod_pool_resize(pool, 1, 1) == 0);
    loop_until_stats(pool, one_left);
    CHECK(aiod_pool_resize(pool, 4, 4) == 0);
    loop_until_stats(pool, four_left);
    end_pool(pool);
}

static void repeated_resizes_lose_no_request(void)
{
    enum {
        COUNT = 4000
    };
    struct aiod_pool *pool = make_pool(8, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));

    for (size_t i = 0; i < COUNT; i += 20) {
        submit_jobs(pool, jobs + i, 20, NULL);
        CHECK(aiod_pool_resize(pool, i / 20 % 2 == 0 ? 1 : 16, i / 20 % 3 == 0 ? 1 : 0) == 0);
        check_invariants(pool);
        loop_once(pool, 0);
    }
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1 && jobs[i].reaps == 1);
    }
    end_pool(pool);
    free(jobs);
}

static void wrong_limits_are_refused(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 10000);

    CHECK(aiod_pool_resize(pool, 0, 0) == -EINVAL);
    CHECK(aiod_pool_resize(pool, 4, 5) == -EINVAL);
    CHECK(aiod_pool_resize(pool, AIOD_THREADS_MAX + 1, 0) == -EINVAL);
    end_pool(pool);
}

static void idle_workers_exit(void)
{
    enum {
        COUNT = 8
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 1);
    struct job jobs[COUNT] = {0};

    for (int turn = 0; turn < 20; turn++) {
        reaped_total = 0;
        submit_jobs(pool, jobs, COUNT, NULL);
        loop_until_reaped(pool, COUNT);
        loop_until_stats(pool, none_left);
    }
    end_pool(pool);
}

static void min_threads_stay(void)
{
    enum {
        COUNT = 8
    };
    struct aiod_pool *pool = make_pool(COUNT, 4, 1);
    struct job jobs[COUNT] = {0};

    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, COUNT);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    loop_until_stats(pool, four_left);
    for (int turn = 0; turn < 30; turn++) { /* many idle timeouts: the same four workers, not new ones */
        loop_once(pool, 2);
        CHECK(check_invariants(pool).threads_created == COUNT);
    }
    end_pool(pool);
}

/* A tiny idle timeout against a steady stream of requests: exits and wake-ups collide all the time. */
static void exit_and_wake_up_exclude_each_other(void)
{
    enum {
        COUNT = 3000
    };
    struct aiod_pool *pool = make_pool(4, 0, 0);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));

    for (size_t i = 0; i < COUNT; i++) {
        submit_jobs(pool, jobs + i, 1, NULL);
        loop_until_reaped(pool, i + 1);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1 && jobs[i].reaps == 1);
    }
    end_pool(pool);
    free(jobs);
}

int main(void)
{
    faults_install();
    a_larger_maximum_creates_workers_under_load();
    a_smaller_maximum_ends_workers_under_load();
    active_workers_exit_after_their_request();
    a_shrink_reduces_the_backlog();
    a_shrink_wakes_and_ends_sleepers();
    repeated_resizes_lose_no_request();
    wrong_limits_are_refused();
    idle_workers_exit();
    min_threads_stay();
    exit_and_wake_up_exclude_each_other();
    return 0;
}
