/* Everything at once, at random: submitters, cancellations, deadlines, resizes, failing creations, exiting workers. */
#include "check.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

enum {
    ROUNDS = 24,
    SUBMITTERS = 3,
    EACH = 600,
    BATCH_MAX = 12
};

/* ---- randomness: xorshift, from a seed that a failure prints ----------------------------------------------------- */

static uint32_t below(uint64_t *state, uint32_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32) % limit;
}

/* ---- submitters -------------------------------------------------------------------------------------------------- */

struct submitter {
    struct aiod_pool *pool;
    struct job *jobs;
    uint64_t chance;
};

static void wait_until_reaped(const struct job *job)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (job->reaps == 0) {
        CHECK(aiod_now_ns() < end_ns);
        sched_yield();
    }
}

static uint64_t some_deadline_ns(uint64_t *chance)
{
    switch (below(chance, 8)) {
    case 0:
        return aiod_now_ns() + below(chance, 2000000);
    case 1:
        return UINT64_MAX;
    default:
        return 0;
    }
}

static void *submit_at_random(void *argument)
{
    struct submitter *submitter = argument;
    size_t count;

    for (size_t i = 0; i < EACH; i += count) {
        count = 1 + below(&submitter->chance, BATCH_MAX);
        count = count < EACH - i ? count : EACH - i;
        for (size_t j = i; j < i + count; j++) {
            submitter->jobs[j].request.deadline_ns = some_deadline_ns(&submitter->chance);
        }
        submit_jobs(submitter->pool, submitter->jobs + i, count, NULL);
        if (below(&submitter->chance, 4) == 0) {
            aiod_pool_cancel(submitter->pool,
                             &submitter->jobs[below(&submitter->chance, (uint32_t)(i + count))].request);
        }
        if (below(&submitter->chance, 3) == 0) { /* let workers fall asleep */
            wait_until_reaped(&submitter->jobs[i + count - 1]);
        }
    }
    return NULL;
}

/* ---- the observer ------------------------------------------------------------------------------------------------ */

struct watch {
    struct aiod_pool *pool;
    _Atomic bool over;
};

/* Checks the invariants all the time, also between two steps of the other threads. */
static void *watch_invariants(void *argument)
{
    struct watch *watch = argument;

    while (!watch->over) {
        check_invariants(watch->pool);
        sched_yield();
    }
    return NULL;
}

/* ---- the main loop ----------------------------------------------------------------------------------------------- */

static void disturb(struct aiod_pool *pool, uint64_t *chance)
{
    unsigned max_threads = 1 + below(chance, 12);

    switch (below(chance, 40)) {
    case 0:
        CHECK(aiod_pool_resize(pool, max_threads, 0) == 0);
        break;
    case 1:
        CHECK(aiod_pool_resize(pool, max_threads, below(chance, max_threads + 1)) == 0);
        break;
    case 2:
        faults.creations_bad = 0;
        faults.creations_good = (int)below(chance, 6);
        faults.creations_bad = (int)below(chance, 3);
        break;
    case 3:
        CHECK(aiod_pool_follow_affinity(pool) >= 0);
        break;
    default:
        break;
    }
}

static void check_outcome(const struct job *job)
{
    const struct aiod_request *request = &job->request;

    CHECK(job->reaps == 1 && request->state == AIOD_DONE);
    if (job->runs == 1) {
        CHECK(request->result == 7 && request->reason == AIOD_REASON_BY_KERNEL && request->started_ns != 0);
        return;
    }
    CHECK(job->runs == 0 && request->started_ns == 0);
    CHECK((request->result == -ECANCELED && request->reason == AIOD_REASON_CANCELLED) ||
          (request->result == -ETIMEDOUT && request->reason == AIOD_REASON_DEADLINE) ||
          (request->result == -EAGAIN && request->reason == AIOD_REASON_NO_THREADS));
}

static bool all_reaped(void *argument)
{
    (void)argument;
    return reaped_total == (size_t)SUBMITTERS * EACH;
}

static void weather(struct aiod_pool *pool, uint64_t *chance)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (!all_reaped(NULL)) {
        CHECK(aiod_now_ns() < end_ns);
        disturb(pool, chance);
        loop_once(pool, (int)below(chance, 2));
        check_invariants(pool);
        if (below(chance, 4) == 0) {
            aiod_pool_tick(pool); /* needed or not */
        }
    }
}

static void storm(uint64_t seed)
{
    static const uint64_t idle_timeouts_ms[] = {0, 1, 1, 10000};
    uint64_t chance = seed;
    struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    struct watch watch = {.over = false};
    pthread_t watcher;
    struct aiod_pool *pool;

    fprintf(stderr, "seed %#llx\n", (unsigned long long)seed);
    faults_reset();
    pool = make_pool(1 + below(&chance, 12), 0, idle_timeouts_ms[below(&chance, 4)]);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){pool, calloc(EACH, sizeof(struct job)), seed + 1 + i};
        CHECK(pthread_create(&threads[i], NULL, submit_at_random, &submitters[i]) == 0);
    }
    watch.pool = pool;
    CHECK(pthread_create(&watcher, NULL, watch_invariants, &watch) == 0);
    weather(pool, &chance);
    watch.over = true;
    pthread_join(watcher, NULL);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(threads[i], NULL);
        for (size_t j = 0; j < EACH; j++) {
            check_outcome(&submitters[i].jobs[j]);
        }
        free(submitters[i].jobs);
    }
    faults_reset();
    end_pool(pool);
}

/* With a seed as the argument: that storm only. */
int main(int argc, char **argv)
{
    uint64_t seed = aiod_now_ns() | 1;

    faults_install();
    if (argc > 1) {
        storm(strtoull(argv[1], NULL, 0));
        return 0;
    }
    for (uint64_t round = 0; round < rounds(ROUNDS); round++) {
        storm(seed + round * UINT64_C(0x9e3779b97f4a7c15));
    }
    return 0;
}
