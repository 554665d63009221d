/* pthread_create says EAGAIN (TasksMax, RLIMIT_NPROC) at any link of the chain: rollback, retry, and no request lost. */
#include "check.h"

#include <errno.h>

static void at_each_link(void)
{
    enum {
        COUNT = 12
    };
    struct gate gate;

    for (int good = 0; good < COUNT; good++) {
        struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
        struct job jobs[COUNT] = {0};

        faults_reset();
        faults.creations_good = good;
        faults.creations_bad = 2;
        gate_init(&gate, false);
        submit_jobs(pool, jobs, COUNT, &gate);
        while (gate.waiting < COUNT) { /* only passed when the creation was taken up again */
            check_invariants(pool);
            loop_once(pool, 1);
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

/* The threads there are carry on, however long creation fails. */
static void the_others_carry_on(void)
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

static void with_no_thread_at_all(void)
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
        CHECK(jobs[i].request.reason == AIOD_REASON_NO_THREADS);
    }
    CHECK(check_invariants(pool).cur_threads == 0);

    faults_reset(); /* the limit has been lifted: the pool recovers by itself */
    submit_jobs(pool, &later, 1, NULL);
    loop_until_reaped(pool, COUNT + 1);
    CHECK(later.request.result == 7);
    end_pool(pool);
}

static void stop_while_it_fails(void)
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
    at_each_link();
    the_others_carry_on();
    with_no_thread_at_all();
    stop_while_it_fails();
    return 0;
}
