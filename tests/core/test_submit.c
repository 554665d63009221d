/* Any number of requests reach a worker, and complete exactly once. After QEMU's tests/unit/test-thread-pool.c. */
#include "check.h"

static void one_request_completes(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job job = {0};

    submit_jobs(pool, &job, 1, NULL);
    loop_until_reaped(pool, 1);
    CHECK(job.runs == 1 && job.reaps == 1);
    CHECK(job.request.result == 7 && job.request.state == AIOD_DONE);
    CHECK(job.request.queued_ns <= job.request.started_ns && job.request.started_ns <= job.request.done_ns);
    CHECK(job.worker != gettid());
    end_pool(pool);
}

static void more_requests_than_workers_complete(void)
{
    enum {
        COUNT = 10000
    };
    struct aiod_pool *pool = make_pool(8, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));

    for (size_t i = 0; i < COUNT; i += 100) {
        submit_jobs(pool, jobs + i, 100, NULL);
    }
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1 && jobs[i].reaps == 1);
    }
    CHECK(check_invariants(pool).threads_peak <= 8);
    end_pool(pool);
    free(jobs);
}

enum {
    SUBMITTERS = 4,
    EACH = 2000
};

struct submitter {
    struct aiod_pool *pool;
    struct job *jobs;
    pid_t tid;
};

static void *submit_in_thread(void *argument)
{
    struct submitter *submitter = argument;

    submitter->tid = gettid();
    for (size_t i = 0; i < EACH; i += 4) {
        submit_jobs(submitter->pool, submitter->jobs + i, 4, NULL);
    }
    return NULL;
}

static void several_submitters_share_the_pool(void)
{
    struct aiod_pool *pool = make_pool(16, 0, 10000);
    struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];

    faults_reset();
    for (size_t i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){.pool = pool, .jobs = calloc(EACH, sizeof(struct job))};
        CHECK(pthread_create(&threads[i], NULL, submit_in_thread, &submitters[i]) == 0);
    }
    loop_until_reaped(pool, (size_t)SUBMITTERS * EACH);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(creations_by(submitters[i].tid) == 0);
        for (size_t j = 0; j < EACH; j++) {
            CHECK(submitters[i].jobs[j].runs == 1 && submitters[i].jobs[j].reaps == 1);
        }
        free(submitters[i].jobs);
    }
    end_pool(pool);
}

static void one_worker_keeps_the_order(void)
{
    enum {
        COUNT = 50
    };
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    struct job jobs[COUNT] = {0};

    submit_jobs(pool, jobs, COUNT, NULL);
    loop_until_reaped(pool, COUNT);
    for (size_t i = 1; i < COUNT; i++) {
        CHECK(jobs[i - 1].request.started_ns <= jobs[i].request.started_ns);
        CHECK(jobs[i - 1].worker == jobs[i].worker);
    }
    end_pool(pool);
}

int main(void)
{
    faults_install();
    one_request_completes();
    more_requests_than_workers_complete();
    several_submitters_share_the_pool();
    one_worker_keeps_the_order();
    return 0;
}
