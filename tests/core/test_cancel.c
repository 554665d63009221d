/* Cancellation, deadlines, and a stop under load: queued requests end unexecuted, active ones complete. */
#include "check.h"

#include <errno.h>
#include <sched.h>

static void a_queued_request_is_cancelled_unexecuted(void)
{
    enum {
        COUNT = 20
    };
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    struct job blocker = {0};
    struct job jobs[COUNT] = {0};
    struct gate gate;

    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    submit_jobs(pool, jobs, COUNT, NULL);
    for (size_t i = 0; i < COUNT; i += 2) {
        CHECK(aiod_pool_cancel(pool, &jobs[i].request));
        CHECK(!aiod_pool_cancel(pool, &jobs[i].request));
    }
    loop_until_reaped(pool, COUNT / 2);
    CHECK(!aiod_pool_cancel(pool, &blocker.request));
    gate_open(&gate);
    loop_until_reaped(pool, COUNT + 1);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].reaps == 1 && jobs[i].runs == i % 2);
        CHECK(jobs[i].request.result == (i % 2 == 0 ? -ECANCELED : 7));
        CHECK(i % 2 == 1 || jobs[i].request.reason == AIOD_REASON_CANCELLED);
    }
    CHECK(blocker.runs == 1 && blocker.request.result == 7);
    end_pool(pool);
}

static void a_cancel_that_races_with_the_start_ends_a_request_once(void)
{
    enum {
        COUNT = 2000
    };
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));
    size_t cancelled = 0;
    size_t ended = 0;

    for (size_t i = 0; i < COUNT; i += 10) {
        submit_jobs(pool, jobs + i, 10, NULL);
        for (size_t j = i + 10; j-- > i;) {
            cancelled += aiod_pool_cancel(pool, &jobs[j].request);
        }
        loop_once(pool, 0);
    }
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].reaps == 1);
        CHECK(jobs[i].runs == (jobs[i].request.result == 7));
        ended += jobs[i].request.result == -ECANCELED;
    }
    CHECK(ended == cancelled);
    end_pool(pool);
    free(jobs);
}

enum {
    CANCELLERS = 3,
    CANCELLED = 4000
};

struct canceller {
    struct aiod_pool *pool;
    struct job *jobs;
    _Atomic size_t *submitted;
    size_t ended;
};

/* Tries to cancel every request, including those that are done and reaped. */
static void *cancel_in_thread(void *argument)
{
    struct canceller *canceller = argument;

    for (size_t i = 0; i < CANCELLED;) {
        if (i < *canceller->submitted) {
            canceller->ended += aiod_pool_cancel(canceller->pool, &canceller->jobs[i++].request);
        } else {
            sched_yield();
        }
    }
    return NULL;
}

static void threads_cancel_each_request_once(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job *jobs = calloc(CANCELLED, sizeof(*jobs));
    struct canceller cancellers[CANCELLERS];
    pthread_t threads[CANCELLERS];
    _Atomic size_t submitted = 0;
    size_t cancelled = 0;

    for (size_t i = 0; i < CANCELLERS; i++) {
        cancellers[i] = (struct canceller){.pool = pool, .jobs = jobs, .submitted = &submitted};
        CHECK(pthread_create(&threads[i], NULL, cancel_in_thread, &cancellers[i]) == 0);
    }
    for (size_t i = 0; i < CANCELLED; i += 40) {
        submit_jobs(pool, jobs + i, 40, NULL);
        submitted += 40;
        loop_once(pool, 0);
        check_invariants(pool);
    }
    for (size_t i = 0; i < CANCELLERS; i++) {
        pthread_join(threads[i], NULL);
        cancelled += cancellers[i].ended;
    }
    loop_until_reaped(pool, CANCELLED);
    for (size_t i = 0; i < CANCELLED; i++) {
        CHECK(jobs[i].reaps == 1);
        CHECK(jobs[i].request.result == (jobs[i].runs == 1 ? 7 : -ECANCELED));
        cancelled -= jobs[i].runs == 0;
    }
    CHECK(cancelled == 0);
    end_pool(pool);
    free(jobs);
}

static void a_queued_request_ends_at_its_deadline(void)
{
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    struct job blocker = {0};
    struct job late[2] = {{.request.deadline_ns = 1}, {.request.deadline_ns = UINT64_MAX}};
    struct gate gate;

    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    submit_jobs(pool, late, 2, NULL);
    loop_until_reaped(pool, 1);
    CHECK(late[0].request.result == -ETIMEDOUT && late[0].request.reason == AIOD_REASON_DEADLINE);
    gate_open(&gate);
    loop_until_reaped(pool, 3);
    CHECK(late[0].runs == 0 && late[1].runs == 1);
    end_pool(pool);
}

/* Each deadline ends its request at its own time, in any order of submission, and yields the time of the next one. */
static void each_deadline_ends_its_own_request(void)
{
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    uint64_t now_ns = aiod_now_ns();
    struct job blocker = {0};
    struct job jobs[4] = {{.request.deadline_ns = now_ns + 150000000},
                          {.request.deadline_ns = now_ns + 5000000},
                          {.request.deadline_ns = 0},
                          {.request.deadline_ns = now_ns + 80000000}};
    struct gate gate;

    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    submit_jobs(pool, jobs, 4, NULL);
    loop_until_reaped(pool, 3);
    for (size_t i = 0; i < 4; i++) {
        const struct aiod_request *request = &jobs[i].request;

        CHECK(jobs[i].reaps == (i != 2));
        CHECK(i == 2 || (request->result == -ETIMEDOUT && request->done_ns >= request->deadline_ns));
    }
    CHECK(aiod_pool_tick_wanted(pool) == AIOD_POOL_NEVER);
    gate_open(&gate);
    loop_until_reaped(pool, 5);
    end_pool(pool);
}

/*
 * As many requests as clients can queue by default end in the order of their deadlines, in portions, and only late
 * ones.
 */
static void many_late_requests_end_in_portions(void)
{
    enum {
        COUNT = 262144,
        LATE = 1000
    };
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));
    struct job blocker = {0};
    struct gate gate;
    size_t at_once;

    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    for (size_t i = 0; i < COUNT; i++) {
        jobs[i].request.deadline_ns = i % (COUNT / LATE) == 0 && i / (COUNT / LATE) < LATE ? 1 + i : UINT64_MAX;
    }
    submit_jobs(pool, jobs, COUNT, NULL);
    CHECK(aiod_pool_tick(pool) == 0); /* more late requests are left */
    at_once = COUNT - check_invariants(pool).queued;
    CHECK(at_once > 0 && at_once < LATE);
    loop_until_reaped(pool, LATE);
    CHECK(check_invariants(pool).queued == COUNT - LATE);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].reaps == (jobs[i].request.deadline_ns != UINT64_MAX));
    }
    CHECK(!aiod_pool_stop(pool, 1)); /* the blocking request is at its gate */
    CHECK(check_invariants(pool).queued == 0);
    gate_open(&gate);
    CHECK(aiod_pool_stop(pool, WAIT_MS * UINT64_C(1000000)));
    loop_until_reaped(pool, COUNT + 1);
    aiod_pool_destroy(pool);
    free(jobs);
}

static void a_late_request_is_not_executed_when_taken(void)
{
    struct aiod_pool *pool = make_pool(1, 1, 10000);
    struct job late = {.request.deadline_ns = 1};

    submit_jobs(pool, &late, 1, NULL);
    loop_until_reaped(pool, 1);
    CHECK(late.runs == 0 && late.request.result == -ETIMEDOUT && late.request.started_ns == 0);
    end_pool(pool);
}

static void a_stop_cancels_queued_and_completes_active_requests(void)
{
    enum {
        COUNT = 1000,
        THREADS = 4
    };
    struct aiod_pool *pool = make_pool(THREADS, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));
    struct gate gate;
    size_t ran = 0;

    gate_init(&gate, false);
    submit_jobs(pool, jobs, COUNT, &gate);
    loop_until_waiting(pool, &gate, THREADS);
    CHECK(!aiod_pool_stop(pool, 1000000)); /* workers are at the gate */
    CHECK(check_invariants(pool).active_threads == THREADS && check_invariants(pool).queued == 0);
    loop_until_reaped(pool, COUNT - THREADS);
    gate_open(&gate);
    CHECK(aiod_pool_stop(pool, WAIT_MS * UINT64_C(1000000)));
    loop_until_reaped(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].reaps == 1 && jobs[i].request.result == (jobs[i].runs == 1 ? 7 : -ECANCELED));
        ran += jobs[i].runs;
    }
    CHECK(ran == THREADS);
    aiod_pool_destroy(pool);
    free(jobs);
}

static void a_stop_ends_a_chain_of_creations(void)
{
    enum {
        COUNT = 64
    };
    struct job jobs[COUNT];

    for (int turn = 0; turn < 20; turn++) {
        struct aiod_pool *pool = make_pool(64, 0, 10000);

        for (size_t i = 0; i < COUNT; i++) {
            jobs[i].request.deadline_ns = 0;
        }
        submit_jobs(pool, jobs, COUNT, NULL);
        loop_once(pool, 0);
        end_pool(pool);
        for (size_t i = 0; i < COUNT; i++) {
            CHECK(jobs[i].reaps == 1);
        }
    }
}

static void an_unused_pool_stops(void)
{
    end_pool(make_pool(4, 0, 10000));
    end_pool(make_pool(4, 4, 10000));
}

int main(void)
{
    faults_install();
    a_queued_request_is_cancelled_unexecuted();
    a_cancel_that_races_with_the_start_ends_a_request_once();
    threads_cancel_each_request_once();
    a_queued_request_ends_at_its_deadline();
    each_deadline_ends_its_own_request();
    many_late_requests_end_in_portions();
    a_late_request_is_not_executed_when_taken();
    a_stop_cancels_queued_and_completes_active_requests();
    a_stop_ends_a_chain_of_creations();
    an_unused_pool_stops();
    return 0;
}
