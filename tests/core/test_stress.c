/*
 * Hundreds of thousands of small bursts into pools whose workers exit and are created within milliseconds, with
 * changing limits, creations that fail at each link of a chain in turn, and pools that are stopped and replaced in
 * between.
 *
 * BURSTS bursts, or as many as fit into 4 seconds (make soak: 40); the arguments are bursts, seconds and a seed.
 */
#include "check.h"

#include <errno.h>
#include <sched.h>

enum {
    SUBMITTERS = 2,
    LANES = 4, /* bursts that a submitter may have in flight */
    BURST_MAX = 8,
    LINKS_MAX = 12,
    BURSTS = 200000
};

/* ---- randomness: xorshift ---------------------------------------------------------------------------------------- */

static uint32_t below(uint64_t *state, uint32_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 32) % limit;
}

/* ---- the current pool -------------------------------------------------------------------------------------------- */

static pthread_rwlock_t pool_lock = PTHREAD_RWLOCK_INITIALIZER; /* held for reading while submitting */
static struct aiod_pool *pool;
static _Atomic bool over;
static _Atomic unsigned finished; /* submitters that have finished */
static _Atomic size_t bursts;
static _Atomic size_t requests;

struct lane {
    struct job jobs[BURST_MAX];
    size_t count;
};

static bool lane_is_free(const struct lane *lane)
{
    for (size_t i = 0; i < lane->count; i++) {
        if (lane->jobs[i].reaps == 0) {
            return false;
        }
    }
    return true;
}

/* Each request of a burst has ended once: executed, cancelled by a stop, or failed without any thread. */
static void check_lane(const struct lane *lane)
{
    for (size_t i = 0; i < lane->count; i++) {
        const struct job *job = &lane->jobs[i];

        CHECK(job->reaps == 1 && job->runs <= 1);
        CHECK(job->runs == 1 ? job->request.result == 7
                             : job->request.result == -ECANCELED || job->request.result == -EAGAIN);
    }
}

static void submit_burst(struct lane *lane, uint64_t *chance)
{
    lane->count = 1 + below(chance, BURST_MAX);
    bursts++;
    requests += lane->count;
    pthread_rwlock_rdlock(&pool_lock);
    submit_jobs(pool, lane->jobs, lane->count, NULL);
    pthread_rwlock_unlock(&pool_lock);
}

static void wait_for_lane(const struct lane *lane)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (!lane_is_free(lane)) {
        CHECK(aiod_now_ns() < end_ns);
        sched_yield();
    }
    check_lane(lane);
}

static void *submit_for_ever(void *argument)
{
    uint64_t chance = *(uint64_t *)argument;
    struct lane *lanes = calloc(LANES, sizeof(*lanes));

    while (!over) {
        struct lane *lane = &lanes[below(&chance, LANES)];

        wait_for_lane(lane);
        submit_burst(lane, &chance);
        if (below(&chance, 64) == 0) { /* long enough for workers to exit */
            usleep(1500);
        }
    }
    for (size_t i = 0; i < LANES; i++) {
        wait_for_lane(&lanes[i]);
    }
    free(lanes);
    finished++;
    return NULL;
}

/* ---- the main loop ----------------------------------------------------------------------------------------------- */

static void make_another(uint64_t *chance)
{
    size_t so_far = reaped_total;
    unsigned max_threads = 1 + below(chance, LINKS_MAX);

    pool = make_pool(max_threads, below(chance, 3) == 0 ? below(chance, max_threads + 1) : 0, below(chance, 3));
    reaped_total = so_far;
}

/* Stop the pool with its queued and active requests; then create another. */
static void stop_in_the_midst(uint64_t *chance)
{
    pthread_rwlock_wrlock(&pool_lock);
    end_pool(pool);
    make_another(chance);
    pthread_rwlock_unlock(&pool_lock);
}

static void disturb(uint64_t *chance, int *link)
{
    unsigned max_threads = 1 + below(chance, LINKS_MAX);

    switch (below(chance, 400)) {
    case 0:
        stop_in_the_midst(chance);
        break;
    case 1:
        CHECK(aiod_pool_resize(pool, max_threads, below(chance, max_threads + 1)) == 0);
        break;
    case 2:
    case 3:
        CHECK(aiod_pool_resize(pool, max_threads, 0) == 0);
        break;
    case 4:
        CHECK(aiod_pool_follow_affinity(pool) >= 0);
        break;
    case 5:
        faults_reset();
        faults.creations_good = *link;
        faults.creations_bad = 1;
        *link = (*link + 1) % LINKS_MAX;
        break;
    default:
        break;
    }
}

static bool all_finished(void *argument)
{
    (void)argument;
    return finished == SUBMITTERS;
}

int main(int argc, char **argv)
{
    size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 0) : BURSTS;
    uint64_t end_ns = aiod_now_ns() + (argc > 2 ? strtoul(argv[2], NULL, 0) : rounds(4)) * UINT64_C(1000000000);
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : aiod_now_ns() | 1;
    uint64_t chance = seed;
    uint64_t chances[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    int link = 0;

    fprintf(stderr, "seed %#llx\n", (unsigned long long)seed);
    faults_install();
    make_another(&chance);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        chances[i] = seed + 1 + i;
        CHECK(pthread_create(&threads[i], NULL, submit_for_ever, &chances[i]) == 0);
    }
    while (bursts < wanted && aiod_now_ns() < end_ns) {
        disturb(&chance, &link);
        loop_once(pool, (int)below(&chance, 2));
        check_invariants(pool);
    }
    over = true;
    loop_until(pool, all_finished, NULL);
    for (size_t i = 0; i < SUBMITTERS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(reaped_total == requests);
    fprintf(stderr, "%zu bursts, %zu requests\n", (size_t)bursts, (size_t)requests);
    end_pool(pool);
    return 0;
}
