/* Stuck workers are replaced up to a limit, and surplus workers exit when they are not stuck any more. */
#include "check.h"

#include "ops/flush.h"
#include "pool/fair_queue.h"

enum {
    MAX = 2,
    STUCK = 2,
};

static const uint64_t at_once_ns = 1; /* every request that was started is slow */

static struct gate gate;
static struct job hanging[8];
static struct job other;

struct seen {
    const struct aiod_request *requests[64];
    pid_t tids[64];
    size_t count;
    size_t max;
};

static bool see(const struct aiod_active_request *active, void *argument)
{
    struct seen *seen = argument;

    if (seen->count == seen->max) {
        return false;
    }
    seen->requests[seen->count] = active->request;
    seen->tids[seen->count] = active->tid;
    seen->count++;
    return true;
}

static struct seen find_slow(struct aiod_pool *pool, size_t max)
{
    struct seen seen = {.max = max};

    aiod_pool_find_slow(pool, see, &seen);
    return seen;
}

static struct seen look(struct aiod_pool *pool)
{
    struct seen seen = {.max = 64};

    aiod_pool_visit_active(pool, see, &seen);
    return seen;
}

static struct aiod_pool *hang(size_t count, unsigned stuck_max)
{
    struct aiod_pool *pool = make_pool(MAX, 0, 3600000);

    aiod_pool_set_slow_limits(pool, at_once_ns, stuck_max);
    gate_init(&gate, false);
    reaped_total = 0;
    submit_jobs(pool, hanging, count, &gate);
    loop_until_waiting(pool, &gate, count < MAX ? (unsigned)count : MAX);
    return pool;
}

static bool as_many_as_max(const struct aiod_pool_stats *stats)
{
    return stats->cur_threads <= MAX && stats->active_threads == 0;
}

static void let_go(struct aiod_pool *pool, size_t reaped)
{
    gate_open(&gate);
    loop_until_reaped(pool, reaped);
    loop_until_stats(pool, as_many_as_max);
    CHECK(check_invariants(pool).stuck_threads == 0);
    CHECK(look(pool).count == 0);
    end_pool(pool);
}

static void stuck_workers_are_replaced(void)
{
    struct aiod_pool *pool = hang(STUCK, 16);
    struct seen seen;

    submit_jobs(pool, &other, 1, NULL);
    loop_once(pool, 0);
    CHECK(check_invariants(pool).queued == 1 && check_invariants(pool).cur_threads == MAX);
    CHECK(check_invariants(pool).stuck_threads == 0); /* no search was made yet */

    seen = find_slow(pool, 64);
    CHECK(seen.count == STUCK && seen.requests[0] == &hanging[0].request && seen.requests[1] == &hanging[1].request);
    CHECK(seen.tids[0] == hanging[0].worker && seen.tids[1] == hanging[1].worker);
    CHECK(check_invariants(pool).stuck_threads == STUCK);
    loop_until_reaped(pool, 1);
    CHECK(other.runs == 1);
    CHECK(check_invariants(pool).cur_threads == MAX + 1 && check_invariants(pool).max_threads == MAX);

    CHECK(find_slow(pool, 64).count == 0); /* each request is reported once */
    CHECK(look(pool).count == STUCK);
    let_go(pool, STUCK + 1);
    CHECK(hanging[0].runs == 1 && hanging[1].runs == 1);
}

/* Requests that did not fit are reported by the next search. */
static void unreported_requests_come_with_the_next_search(void)
{
    struct aiod_pool *pool = hang(STUCK, 16);

    CHECK(find_slow(pool, 1).count == 1);
    CHECK(find_slow(pool, 1).count == 1);
    CHECK(find_slow(pool, 1).count == 0);
    let_go(pool, STUCK);
}

static void replacements_are_limited(void)
{
    struct aiod_pool *pool = hang(8, 3);

    for (unsigned i = 0; i < 8; i++) {
        find_slow(pool, 64);
        loop_until_waiting(pool, &gate, i < 3 ? MAX + 1 + i : MAX + 3);
        loop_once(pool, 0);
    }
    CHECK(check_invariants(pool).cur_threads == MAX + 3 && check_invariants(pool).queued == 3);
    CHECK(check_invariants(pool).stuck_threads == MAX + 3);
    aiod_pool_set_slow_limits(pool, 0, 0); /* takes effect at once: max_threads again */
    gate_open(&gate);
    loop_until_reaped(pool, 8);
    loop_until_stats(pool, as_many_as_max);
    end_pool(pool);
}

static void no_request_is_slow_without_a_limit(void)
{
    struct aiod_pool *pool = hang(STUCK, 16);

    aiod_pool_set_slow_limits(pool, 0, 16);
    CHECK(find_slow(pool, 64).count == 0);
    CHECK(check_invariants(pool).stuck_threads == 0);
    CHECK(look(pool).count == STUCK);
    let_go(pool, STUCK);
}

/* Not slow: a young request, and one that waits in the queue, however long. */
static void young_and_queued_requests_are_not_slow(void)
{
    struct aiod_pool *pool = hang(STUCK + 1, 16);

    aiod_pool_set_slow_limits(pool, UINT64_C(3600000000000), 16);
    CHECK(find_slow(pool, 64).count == 0);
    CHECK(look(pool).count == STUCK);
    CHECK(check_invariants(pool).stuck_threads == 0);
    let_go(pool, STUCK + 1);
}

/* The limits change while workers are stuck: their replacements stay. */
static void replacements_survive_a_resize(void)
{
    struct aiod_pool *pool = hang(STUCK, 16);

    find_slow(pool, 64);
    CHECK(aiod_pool_resize(pool, 1, 0) == 0);
    submit_jobs(pool, &other, 1, NULL);
    loop_until_reaped(pool, 1);
    CHECK(check_invariants(pool).cur_threads == 3);
    CHECK(aiod_pool_resize(pool, AIOD_THREADS_MAX, 0) == 0); /* beyond which there are no slots */
    CHECK(aiod_pool_resize(pool, MAX, 0) == 0);
    let_go(pool, STUCK + 1);
}

/* ---- flows ------------------------------------------------------------------------------------------------------- */

static int64_t run(struct aiod_request *request)
{
    struct job *job = (struct job *)request;

    if (job->gate != NULL) {
        gate_pass(job->gate);
    }
    return 0;
}

static void submit_of(struct aiod_pool *pool, struct job *job, struct aiod_flow *flow, struct gate *at)
{
    *job = (struct job){.request = {.run = run, .flow = flow, .queued_ns = aiod_now_ns()}, .gate = at};
    aiod_pool_submit(pool, &job->request, 1);
}

/* Two flows may have one active request each, which is slow: their next requests do not wait for it any more. */
static void slow_requests_do_not_hold_back_their_flow(void)
{
    struct aiod_pool *pool = make_pool(8, 0, 3600000);
    struct aiod_flow one = {0}, another = {0};

    aiod_pool_set_slow_limits(pool, at_once_ns, 16);
    aiod_pool_set_shares(pool, 0, 1, 0);
    gate_init(&gate, false);
    reaped_total = 0;
    submit_of(pool, &hanging[0], &one, &gate);
    submit_of(pool, &hanging[1], &another, &gate);
    loop_until_waiting(pool, &gate, 2);
    submit_of(pool, &other, &one, NULL);
    loop_once(pool, 0);
    CHECK(check_invariants(pool).queued == 1);
    CHECK(find_slow(pool, 64).count == 2);
    loop_until_reaped(pool, 1);
    CHECK(one.active == 0 && another.active == 0); /* no worker changes them at this moment */
    gate_open(&gate);
    loop_until_reaped(pool, 3);
    end_pool(pool);
    CHECK(one.active == 0 && another.active == 0);
}

/*
 * An export has reached its limit of slow requests: its other requests wait, in any session, and other exports get the
 * replacements.
 */
static void an_export_that_hangs_leaves_workers(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 3600000);
    struct aiod_rate *export = aiod_rate_create();
    struct aiod_flow one = {.rates = {export}}, another = {.rates = {export}}, healthy = {0};
    struct aiod_pool_stats stats;
    struct job more[2];

    CHECK(export != NULL);
    aiod_pool_set_slow_limits(pool, at_once_ns, 4);
    gate_init(&gate, false);
    reaped_total = 0;
    for (size_t i = 0; i < 4; i++) {
        submit_of(pool, &hanging[i], &one, &gate);
    }
    loop_until_waiting(pool, &gate, 4);
    submit_of(pool, &more[0], &one, NULL);
    submit_of(pool, &more[1], &another, NULL);
    CHECK(find_slow(pool, 64).count == 4 && export->slow == 4);
    submit_of(pool, &other, &healthy, NULL);
    loop_until_reaped(pool, 1);
    aiod_pool_get_stats(pool, &stats); /* some are queued while workers are idle */
    CHECK(other.reaps == 1 && stats.queued == 2);
    gate_open(&gate);
    loop_until_reaped(pool, 7);
    CHECK(export->slow == 0);
    end_pool(pool);
    aiod_rate_unref(export);
}

/* Opens, directory operations and closes of an export can be slow like its I/O, and count with it. */
static void opens_of_an_export_that_hangs_leave_workers(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 3600000);
    struct aiod_rate *export = aiod_rate_create();
    struct aiod_rate *another = aiod_rate_create();
    struct aiod_flow io = {.rates = {export}};
    struct aiod_pool_stats stats;
    struct job more[2];

    CHECK(export != NULL && another != NULL);
    aiod_pool_set_slow_limits(pool, at_once_ns, 4);
    gate_init(&gate, false);
    reaped_total = 0;
    for (size_t i = 0; i < 4; i++) {
        submit_of(pool, &hanging[i], &export->control, &gate);
    }
    loop_until_waiting(pool, &gate, 4);
    submit_of(pool, &more[0], &export->control, NULL);
    submit_of(pool, &more[1], &io, NULL);
    CHECK(find_slow(pool, 64).count == 4 && export->slow == 4);
    submit_of(pool, &other, &another->control, NULL);
    loop_until_reaped(pool, 1);
    aiod_pool_get_stats(pool, &stats);
    CHECK(other.reaps == 1 && stats.queued == 2);
    gate_open(&gate);
    loop_until_reaped(pool, 7);
    CHECK(export->slow == 0 && export->control.active == 0);
    end_pool(pool);
    aiod_rate_unref(export);
    aiod_rate_unref(another);
}

/*
 * They do not compete with I/O: a session beside them may have any number of active requests, and no rate is charged.
 */
static void opens_are_not_counted_or_charged(void)
{
    const struct aiod_rate_limits one_an_hour = {.per_second = 1, .burst_ns = 1};
    struct aiod_pool *pool = make_pool(8, 0, 3600000);
    struct aiod_rate *export = aiod_rate_create();
    struct aiod_flow io = {.rates = {NULL}};

    CHECK(export != NULL);
    aiod_pool_set_rate(pool, export, &one_an_hour);
    export->requests_until_ns = aiod_now_ns() + UINT64_C(3600000000000);
    aiod_pool_set_shares(pool, 0, 1, 0);
    gate_init(&gate, false);
    reaped_total = 0;
    for (size_t i = 0; i < 3; i++) {
        submit_of(pool, &hanging[i], &export->control, &gate);
        submit_of(pool, &hanging[3 + i], &io, &gate);
    }
    loop_until_waiting(pool, &gate, 6);
    gate_open(&gate);
    loop_until_reaped(pool, 6);
    end_pool(pool);
    aiod_rate_unref(export);
}

/* ---- flushes: parked, and carried out by another worker ---------------------------------------------------------- */

enum {
    FLUSHERS = 5
};

static struct aiod_flushes flushes;
static struct gate disk[2]; /* the first flush waits at one gate, the next at the other */
static _Atomic unsigned syncs;

static int slow_fdatasync(int fd)
{
    (void)fd;
    gate_pass(&disk[syncs++]);
    return 0;
}

static int64_t run_flush(struct aiod_request *request)
{
    return aiod_flushes_flush(&flushes, request, 0);
}

static bool only_the_flusher_is_at_work(const struct aiod_pool_stats *stats)
{
    return stats->queued == 0 && stats->active_threads == 1 && stats->pending_threads + stats->new_threads == 0;
}

static size_t count_held(const struct seen *seen)
{
    size_t count = 0;

    for (size_t i = 0; i < seen->count; i++) {
        count += seen->tids[i] != 0;
    }
    return count;
}

/*
 * A flush that waits for another one holds no thread; the worker that flushes for all starts a new turn for each batch.
 */
static void parked_flushes_hold_one_worker(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 3600000);
    static struct aiod_os os;
    const struct aiod_os *before = aiod_os;
    struct seen seen;

    os = *aiod_os;
    os.fdatasync = slow_fdatasync;
    aiod_os = &os;
    aiod_pool_set_slow_limits(pool, at_once_ns, 16);
    aiod_flushes_init(&flushes, pool, 7);
    gate_init(&disk[0], false);
    gate_init(&disk[1], false);
    reaped_total = 0;
    for (size_t i = 0; i < FLUSHERS; i++) {
        hanging[i] = (struct job){.request = {.run = run_flush, .queued_ns = aiod_now_ns()}};
        aiod_pool_submit(pool, &hanging[i].request, 1);
        if (i == 0) {
            loop_until_waiting(pool, &disk[0], 1);
        }
    }
    loop_until_stats(pool, only_the_flusher_is_at_work);
    seen = find_slow(pool, 64);
    CHECK(seen.count == FLUSHERS && count_held(&seen) == 1 && seen.tids[0] != 0);
    CHECK(check_invariants(pool).stuck_threads == 1);

    gate_open(&disk[0]);
    loop_until_waiting(pool, &disk[1], 1);
    loop_until_reaped(pool, 1);
    CHECK(check_invariants(pool).stuck_threads == 0);
    seen = look(pool);
    CHECK(seen.count == FLUSHERS - 1 && count_held(&seen) == FLUSHERS - 1);
    CHECK(find_slow(pool, 64).count == 0); /* reported before */
    CHECK(check_invariants(pool).stuck_threads == 1);
    gate_open(&disk[1]);
    loop_until_reaped(pool, FLUSHERS);
    end_pool(pool);
    aiod_flushes_destroy(&flushes);
    aiod_os = before;
}

/* ---- at random --------------------------------------------------------------------------------------------------- */

static bool nobody_is_stuck(const struct aiod_pool_stats *stats)
{
    return stats->stuck_threads == 0 && stats->cur_threads <= MAX;
}

/* Requests start and end while the main loop searches, counts and changes the limits. */
static void searches_are_safe_under_load(void)
{
    enum {
        COUNT = 4000
    };
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job *jobs = calloc(COUNT, sizeof(*jobs));
    size_t told = 0;

    reaped_total = 0;
    for (size_t i = 0; i < COUNT; i += 20) {
        submit_jobs(pool, jobs + i, 20, NULL);
        aiod_pool_set_slow_limits(pool, i % 60 == 0 ? 1000 : at_once_ns, (unsigned)(i / 20 % 5));
        told += find_slow(pool, 64).count;
        CHECK(look(pool).count <= 64);
        check_invariants(pool);
        loop_once(pool, 0);
    }
    loop_until_reaped(pool, COUNT);
    CHECK(told <= COUNT);
    CHECK(aiod_pool_resize(pool, MAX, 0) == 0);
    loop_until_stats(pool, nobody_is_stuck);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1 && jobs[i].reaps == 1);
    }
    end_pool(pool);
    free(jobs);
}

int main(void)
{
    faults_install();
    stuck_workers_are_replaced();
    unreported_requests_come_with_the_next_search();
    replacements_are_limited();
    no_request_is_slow_without_a_limit();
    young_and_queued_requests_are_not_slow();
    replacements_survive_a_resize();
    slow_requests_do_not_hold_back_their_flow();
    an_export_that_hangs_leaves_workers();
    opens_of_an_export_that_hangs_leave_workers();
    opens_are_not_counted_or_charged();
    parked_flushes_hold_one_worker();
    searches_are_safe_under_load();
    return 0;
}
