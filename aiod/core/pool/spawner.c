/* spawner.c - creates worker threads (spawner.h explains the algorithm and its rules). */
#include "pool/spawner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/os.h"
#include "util/probes.h"

/* Add one worker to the backlog. Lock held. */
static void add_one(struct aiod_pool *pool, enum aiod_spawn_cause cause, uint64_t now_ns)
{
    struct aiod_spawn_backlog *entry = &pool->backlog[(pool->backlog_first + pool->new_threads) % AIOD_THREADS_MAX];

    *entry = (struct aiod_spawn_backlog){.since_ns = now_ns, .cause = cause};
    pool->new_threads++;
    pool->cur_threads++;
}

static bool add_backlog(struct aiod_pool *pool, bool again)
{
    size_t supply =
        pool->asleep_threads + pool->polling_threads + pool->waking_threads + pool->new_threads + pool->pending_threads;
    unsigned polls = pool->polling_on ? 1 : 0; /* of the supply: it polls on */
    bool had_backlog = pool->new_threads > 0;
    uint64_t now_ns = 0;

    /*
     * While creation fails, only the retry timer adds workers: otherwise every submission would try, and fail, at once.
     */
    if (pool->stopping || pool->retry_at_ns != 0) {
        return false;
    }
    while ((aiod_pool_takeable(pool, pool->active_threads + pool->waking_threads) + polls > supply ||
            pool->cur_threads < aiod_pool_threads_wanted(pool)) &&
           pool->cur_threads < aiod_pool_threads_allowed(pool)) {
        bool too_few = pool->cur_threads < pool->min_threads;

        now_ns = now_ns != 0 ? now_ns : aiod_now_ns();
        add_one(pool, again ? AIOD_SPAWN_RETRY : too_few ? AIOD_SPAWN_MIN : AIOD_SPAWN_BURST, now_ns);
        supply++;
    }
    return pool->new_threads > 0 && !had_backlog && pool->pending_threads == 0;
}

bool aiod_spawner_add_backlog(struct aiod_pool *pool)
{
    return add_backlog(pool, false);
}

/* The kernel keeps 15 characters of a name: cut the engine's name, not the number. */
static void name_thread(const struct aiod_pool *pool, const struct aiod_worker *worker)
{
    char name[64];
    char number[16];
    size_t number_length = (size_t)snprintf(number, sizeof(number), "/%u", (unsigned)(worker - pool->workers));
    size_t prefix_length = (size_t)snprintf(name, sizeof(name), "aiod-w/%s", pool->name);

    if (prefix_length + number_length > 15) {
        prefix_length = 15 - number_length;
    }
    memcpy(name + prefix_length, number, number_length + 1);
    pthread_setname_np(pthread_self(), name);
}

/* Lock held. */
static void count_birth(struct aiod_pool *pool, const struct aiod_worker *worker, uint64_t now_ns)
{
    unsigned living = pool->cur_threads - pool->new_threads - pool->pending_threads - (pool->polling_threads > 0);

    pool->threads_created++;
    pool->created_for[worker->cause]++;
    aiod_histogram_record(&pool->spawn_latency, now_ns - worker->requested_ns);
    AIOD_PROBE4(thread_spawn, pool->name, (int)worker->cause, worker->links, now_ns - worker->requested_ns);
    if (worker->links > pool->longest_chain) {
        pool->longest_chain = worker->links;
    }
    if (living > pool->threads_peak) {
        pool->threads_peak = living;
    }
}

/* The start of a new worker: it is no longer pending, and creates the next workers before its own work. */
static void *start_worker(void *arg)
{
    struct aiod_worker *worker = arg;
    struct aiod_pool *pool = worker->pool;
    pid_t tid = gettid();
    uint64_t now_ns = aiod_now_ns();

    pthread_mutex_lock(&pool->lock);
    pool->pending_threads--;
    pool->active_threads++;
    count_birth(pool, worker, now_ns);
    pool->retry_backoff_ns = AIOD_RETRY_BACKOFF_MIN_NS;
    worker->tid = tid;
    pthread_mutex_unlock(&pool->lock);

    name_thread(pool, worker);
    for (unsigned made = 0; made != AIOD_SPAWN_FAN_OUT && aiod_spawner_step(pool, worker); made++) {
    }
    aiod_pool_run_worker(pool, worker);
    return NULL;
}

/* The oldest worker of the backlog gets a slot and becomes pending. Lock held; the backlog is not empty. */
static struct aiod_worker *begin_creation(struct aiod_pool *pool, const struct aiod_worker *creator)
{
    const struct aiod_spawn_backlog *entry = &pool->backlog[pool->backlog_first];
    struct aiod_worker *worker = aiod_worker_slots_take(pool);

    worker->pool = pool;
    worker->requested_ns = entry->since_ns;
    worker->cause = entry->cause;
    worker->links = creator != NULL ? creator->links + 1 : 1;
    worker->chosen = false;
    worker->tid = 0;
    worker->since_ns = 0;
    pool->backlog_first = (pool->backlog_first + 1) % AIOD_THREADS_MAX;
    pool->new_threads--;
    pool->pending_threads++;
    return worker;
}

static int create_thread(struct aiod_pool *pool, struct aiod_worker *worker)
{
    pthread_t thread;

    return aiod_thread_create(&thread, &pool->thread_attr, start_worker, worker);
}

/*
 * Roll back after a failed creation. Existing workers continue; the doorbell makes the main loop set its retry timer.
 */
static void creation_failed(struct aiod_pool *pool, const struct aiod_worker *worker)
{
    uint64_t now_ns = aiod_now_ns();

    pthread_mutex_lock(&pool->lock);
    aiod_worker_slots_release(pool, worker);
    pool->spawn_failures++;
    pool->pending_threads--;
    pool->cur_threads -= 1 + pool->new_threads;
    pool->new_threads = 0;
    pool->retry_at_ns = now_ns + pool->retry_backoff_ns;
    pool->retry_backoff_ns *= 2;
    if (pool->retry_backoff_ns > AIOD_RETRY_BACKOFF_MAX_NS) {
        pool->retry_backoff_ns = AIOD_RETRY_BACKOFF_MAX_NS;
    }
    pthread_mutex_unlock(&pool->lock);
    aiod_eventfd_ring(pool->doorbell_fd);
}

bool aiod_spawner_step(struct aiod_pool *pool, const struct aiod_worker *creator)
{
    struct aiod_worker *worker;

    pthread_mutex_lock(&pool->lock);
    if (pool->new_threads == 0) {
        pthread_mutex_unlock(&pool->lock);
        return false;
    }
    worker = begin_creation(pool, creator);
    pthread_mutex_unlock(&pool->lock);

    if (create_thread(pool, worker) != 0) {
        creation_failed(pool, worker);
        return false;
    }
    return true;
}

void aiod_spawner_retry(struct aiod_pool *pool, uint64_t now_ns)
{
    bool due;

    pthread_mutex_lock(&pool->lock);
    due = pool->retry_at_ns != 0 && now_ns >= pool->retry_at_ns;
    if (due) {
        pool->retry_at_ns = 0;
        add_backlog(pool, true);
    }
    pthread_mutex_unlock(&pool->lock);
    if (due) {
        aiod_spawner_step(pool, NULL);
    }
}
