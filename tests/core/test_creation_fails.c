/*
 * pthread_create() fails with EAGAIN (TasksMax, RLIMIT_NPROC) at any link of the chain: rollback, retry, no request
 * lost.
 */
#include "check.h"

#include <errno.h>

#include "pool/spawner.h"

static void a_failure_at_any_link_loses_no_request(void)
{
    enum {
        COUNT = 12
    };
    struct gate gate;

    for (int good = 0; good < COUNT; good++) {
        struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
        struct job jobs[COUNT] = {0};
        uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

        faults_reset();
        faults.creations_good = good;
        faults.creations_bad = 2;
        gate_init(&gate, false);
        submit_jobs(pool, jobs, COUNT, &gate);
        while (gate.waiting < COUNT) { /* passes only after creation was retried */
            check_invariants(pool);
            loop_once(pool, 1);
            CHECK(aiod_now_ns() < end_ns);
        }
        CHECK(check_invariants(pool).spawn_failures >= 1);
        gate_open(&gate);
        loop_until_reaped(pool, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            CHECK(jobs[i].runs == 1 && jobs[i].reaps == 1 && jobs[i].request.result == 7);
        }
        end_pool(pool);
    }
}

/* Existing workers continue, however long creation fails. */
static void existing_workers_continue(void)
{
    enum {
        COUNT = 500
    };
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));

    faults_reset();
    faults.creations_good = 2;
    faults.creations_bad = 1 << 30;
    for (size_t i = 0; i < COUNT; i += 50) {
        submit_jobs(pool, jobs + i, 50, NULL);
    }
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].request.result == 7);
    }
    CHECK(check_invariants(pool).threads_peak <= 16);
    end_pool(pool);
    free(jobs);
}

static bool failed_seven_times(const struct aiod_pool_stats *stats)
{
    return stats->spawn_failures >= 7; /* with the back-off between the attempts, SPAWN_RETRY_NS have passed then */
}

/* While at least one worker exists, requests wait for it, however long it is busy. */
static void requests_wait_for_existing_workers(void)
{
    enum {
        COUNT = 12
    };
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct job jobs[COUNT] = {0};
    struct gate gate;

    faults_reset();
    faults.creations_good = 2;
    faults.creations_bad = 1 << 30;
    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, 2);
    loop_until_stats(pool, failed_seven_times);
    CHECK(creation_failed_ns(6) - creation_failed_ns(0) > SPAWN_RETRY_NS);
    aiod_pool_tick(pool);
    loop_once(pool, 0);
    CHECK(reaped_total == 0 && check_invariants(pool).queued == COUNT - 2);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1 && jobs[i].request.result == 7);
    }
    end_pool(pool);
}

static void without_any_worker_requests_fail_after_spawn_retry(void)
{
    enum {
        COUNT = 10
    };
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct job jobs[COUNT] = {0};
    struct job later = {0};

    faults_reset();
    faults.creations_good = 0;
    faults.creations_bad = 1 << 30;
    submit_jobs(pool, jobs, COUNT, NULL);
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 0 && jobs[i].request.result == -EAGAIN);
        CHECK(jobs[i].request.reason == AIOD_REASON_NO_THREADS && jobs[i].request.started_ns == 0);
        CHECK(jobs[i].request.done_ns - jobs[i].request.queued_ns >= SPAWN_RETRY_NS);
    }
    CHECK(check_invariants(pool).cur_threads == 0);

    faults_reset(); /* the limit is lifted: the pool recovers by itself */
    submit_jobs(pool, &later, 1, NULL);
    loop_until_reaped(pool, COUNT + 1);
    CHECK(later.request.result == 7);
    end_pool(pool);
}

/* A request that is submitted late in a long back-off still fails after spawn_retry_ms. */
static void the_back_off_does_not_delay_the_failure(void)
{
    struct aiod_pool *pool = make_pool(1, 1, 10000);
    struct job job = {0};
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    faults_reset();
    faults.creations_good = 0;
    faults.creations_bad = 1 << 30;
    aiod_pool_spawn(pool);
    while (aiod_pool_tick_wanted(pool) <= 2 * SPAWN_RETRY_NS) {
        CHECK(aiod_now_ns() < end_ns);
        loop_once(pool, 10);
    }
    submit_jobs(pool, &job, 1, NULL);
    CHECK(aiod_pool_tick_wanted(pool) <= SPAWN_RETRY_NS);
    loop_until_reaped(pool, 1);
    CHECK(job.request.result == -EAGAIN && job.request.done_ns - job.request.queued_ns >= SPAWN_RETRY_NS);
    end_pool(pool);
}

/* Each failure doubles the time until the next attempt, and submissions do not shorten it. */
static void the_back_off_doubles(void)
{
    enum {
        FAILURES = 5
    };
    struct aiod_pool *pool = make_pool(1, 1, 10000);
    struct job jobs[100] = {0};
    size_t submitted = 0;

    faults_reset();
    faults.creations_good = 0;
    faults.creations_bad = FAILURES;
    while (check_invariants(pool).threads_created == 0) {
        if (submitted < 100) {
            submit_jobs(pool, &jobs[submitted++], 1, NULL);
        }
        loop_once(pool, 10);
    }
    loop_until_reaped(pool, submitted);
    CHECK(check_invariants(pool).spawn_failures == FAILURES);
    for (size_t i = 1; i < FAILURES; i++) {
        CHECK(creation_failed_ns(i) - creation_failed_ns(i - 1) >= AIOD_RETRY_BACKOFF_MIN_NS << (i - 1));
    }
    end_pool(pool);
}

static bool eight_idle(const struct aiod_pool_stats *stats)
{
    return stats->idle_threads == 8;
}

/* min_threads are created without any request as soon as creation succeeds again. */
static void min_threads_are_created_later(void)
{
    struct aiod_pool *pool;

    faults_reset();
    faults.creations_good = 3;
    faults.creations_bad = 4;
    pool = make_pool(16, 8, 10000);
    loop_until_stats(pool, eight_idle);
    CHECK(aiod_pool_tick_wanted(pool) == AIOD_POOL_NEVER);
    end_pool(pool);
}

/* The peak counts only threads that existed. */
static void the_peak_counts_only_threads_that_ran(void)
{
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct job jobs[16] = {0};
    struct gate gate;

    faults_reset();
    faults.creations_good = 2;
    faults.creations_bad = 1 << 30;
    gate_init(&gate, false);
    submit_jobs(pool, jobs, 16, &gate);
    loop_until_waiting(pool, &gate, 2);
    gate_open(&gate);
    loop_until_reaped(pool, 16);
    CHECK(check_invariants(pool).threads_created == 2 && check_invariants(pool).threads_peak == 2);
    end_pool(pool);
}

/* The creation by a new worker fails after the pool was stopped. */
static void a_stop_waits_for_a_failing_creation(void)
{
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct job jobs[8] = {0};
    struct gate creations_gate;

    faults_reset();
    gate_init(&creations_gate, false);
    faults.creations_gate = &creations_gate;
    faults.creations_good = 1;
    faults.creations_bad = 1 << 30;
    submit_jobs(pool, jobs, 8, NULL);
    aiod_pool_spawn(pool);
    gate_wait_for(&creations_gate, 1);
    CHECK(!aiod_pool_stop(pool, 0)); /* the new worker is in thread_create() */
    check_invariants(pool);
    loop_until_reaped(pool, 8);
    gate_open(&creations_gate);
    CHECK(aiod_pool_stop(pool, WAIT_MS * UINT64_C(1000000)));
    CHECK(check_invariants(pool).cur_threads == 0 && check_invariants(pool).spawn_failures == 1);
    for (size_t i = 0; i < 8; i++) {
        CHECK(jobs[i].reaps == 1 && jobs[i].runs == 0 && jobs[i].request.result == -ECANCELED);
    }
    aiod_pool_destroy(pool);
}

static void a_stop_works_while_creation_fails(void)
{
    struct aiod_pool *pool = make_pool(16, 8, 10000);
    struct job job = {0};

    faults_reset();
    faults.creations_good = 1;
    faults.creations_bad = 1 << 30;
    submit_jobs(pool, &job, 1, NULL);
    loop_once(pool, 0);
    end_pool(pool);
    CHECK(job.reaps == 1);
}

int main(void)
{
    faults_install();
    a_failure_at_any_link_loses_no_request();
    existing_workers_continue();
    requests_wait_for_existing_workers();
    without_any_worker_requests_fail_after_spawn_retry();
    the_back_off_does_not_delay_the_failure();
    the_back_off_doubles();
    min_threads_are_created_later();
    the_peak_counts_only_threads_that_ran();
    a_stop_works_while_creation_fails();
    a_stop_waits_for_a_failing_creation();
    return 0;
}
