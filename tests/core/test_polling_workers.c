/*
 * A polling worker that finds a request carries it out itself, and wakes no thread; it leaves the request to
 * others where max_threads workers are active. The place that workers poll is the test's: it offers one job at a time.
 */
#include "check.h"

struct place {
    struct aiod_idle_polling polling; /* first */
    struct aiod_pool *pool;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *offered; /* NULL: none */
    struct gate *gate;   /* of that job */
    unsigned polling_now;
    unsigned wakes;
    _Atomic unsigned kept; /* jobs that their finder kept */
    bool hands_over;       /* and handed over then */
    pid_t finder;          /* the worker that submitted the last job */
};

static struct place place;

static bool lead(struct aiod_idle_polling *polling)
{
    (void)polling;
    return true;
}

/* True: the caller is to stop polling, for the job that it keeps. Lock held, and dropped meanwhile. */
static bool submit_offered(void)
{
    struct job *job = place.offered;
    bool keeps;

    place.offered = NULL;
    place.finder = gettid();
    pthread_mutex_unlock(&place.lock);
    submit_jobs(place.pool, job, 1, place.gate);
    keeps = aiod_pool_keeps_one();
    if (keeps && place.hands_over) {
        aiod_pool_hand_over_kept(place.pool);
        CHECK(!aiod_pool_keeps_one());
    }
    pthread_mutex_lock(&place.lock);
    place.kept += keeps;
    return keeps && !place.hands_over;
}

static void poll_place(struct aiod_idle_polling *polling, bool leads)
{
    bool stops = false;

    CHECK(polling == &place.polling && leads);
    pthread_mutex_lock(&place.lock);
    place.polling_now++;
    pthread_cond_broadcast(&place.changed);
    while (!stops && !aiod_pool_recalls(place.pool)) {
        if (place.offered != NULL) {
            stops = submit_offered();
        } else {
            pthread_cond_wait(&place.changed, &place.lock);
        }
    }
    place.polling_now--;
    pthread_mutex_unlock(&place.lock);
}

static void wake(struct aiod_idle_polling *polling)
{
    CHECK(polling == &place.polling);
    pthread_mutex_lock(&place.lock);
    place.wakes++;
    pthread_cond_broadcast(&place.changed);
    pthread_mutex_unlock(&place.lock);
}

static bool is_polled_by(void *argument)
{
    bool is;

    pthread_mutex_lock(&place.lock);
    is = place.polling_now == *(unsigned *)argument;
    pthread_mutex_unlock(&place.lock);
    return is;
}

static void loop_until_polled_by(unsigned workers)
{
    loop_until(place.pool, is_polled_by, &workers);
}

static void begin(unsigned max_threads)
{
    place = (struct place){.polling = {.lead = lead, .poll = poll_place, .wake = wake}};
    pthread_mutex_init(&place.lock, NULL);
    pthread_cond_init(&place.changed, NULL);
    place.pool = make_pool(max_threads, 0, 3600000);
    reaped_total = 0;
    aiod_pool_set_polling(place.pool, &place.polling);
    CHECK(aiod_pool_start_polling(place.pool) == 0);
    loop_until_polled_by(2);
}

static void end(void)
{
    aiod_pool_stop_polling(place.pool);
    CHECK(place.polling_now == 0);
    end_pool(place.pool);
}

static void offer(struct job *job, struct gate *gate)
{
    pthread_mutex_lock(&place.lock);
    place.offered = job;
    place.gate = gate;
    pthread_cond_broadcast(&place.changed);
    pthread_mutex_unlock(&place.lock);
}

static void the_worker_that_finds_a_request_carries_it_out(void)
{
    enum {
        COUNT = 50
    };
    static struct job jobs[COUNT];

    begin(4);
    for (size_t i = 0; i < COUNT; i++) {
        offer(&jobs[i], NULL);
        loop_until_reaped(place.pool, i + 1);
        CHECK(jobs[i].runs == 1 && jobs[i].worker == place.finder);
        loop_until_polled_by(2);
    }
    CHECK(place.wakes == 0 && place.kept == COUNT && check_invariants(place.pool).threads_created == 2);
    end();
}

static bool one_is_queued(const struct aiod_pool_stats *stats)
{
    return stats->queued == 1;
}

/* One worker may be active: the other one polls on, and leaves what it finds to the first. */
static void the_last_worker_polls_on(void)
{
    static struct job first, second;
    struct gate gate;

    begin(1);
    gate_init(&gate, false);
    offer(&first, &gate);
    loop_until_waiting(place.pool, &gate, 1);
    offer(&second, NULL);
    loop_until_stats(place.pool, one_is_queued);
    CHECK(second.runs == 0 && place.finder != first.worker && place.kept == 1);
    gate_open(&gate);
    loop_until_reaped(place.pool, 2);
    CHECK(second.runs == 1);
    CHECK(check_invariants(place.pool).threads_created == 2);
    end();
}

/* A worker may not have to stop polling after all. */
static void another_worker_takes_what_is_handed_over(void)
{
    static struct job job;

    begin(4);
    place.hands_over = true;
    offer(&job, NULL);
    loop_until_reaped(place.pool, 1);
    CHECK(place.kept == 1 && job.runs == 1 && place.wakes >= 1);
    end();
}

/* A request of another thread recalls a polling worker where no worker sleeps, but never the last one. */
static void a_submitter_recalls_a_polling_worker(void)
{
    static struct job jobs[2];
    struct gate gate;

    begin(1);
    gate_init(&gate, false);
    submit_jobs(place.pool, &jobs[0], 1, &gate);
    loop_until_waiting(place.pool, &gate, 1);
    submit_jobs(place.pool, &jobs[1], 1, NULL);
    loop_until_polled_by(1);
    loop_until_stats(place.pool, one_is_queued);
    CHECK(jobs[1].runs == 0);
    gate_open(&gate);
    loop_until_reaped(place.pool, 2);
    CHECK(place.wakes >= 1);
    end();
}

int main(void)
{
    faults_install();
    the_worker_that_finds_a_request_carries_it_out();
    the_last_worker_polls_on();
    another_worker_takes_what_is_handed_over();
    a_submitter_recalls_a_polling_worker();
    return 0;
}
