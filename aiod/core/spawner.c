#include "spawner.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os.h"

bool aiod_spawner_owe(struct aiod_pool *pool)
{
    size_t supply = pool->asleep_threads + pool->waking_threads + pool->new_threads + pool->pending_threads;
    bool had_backlog = pool->new_threads > 0;

    /* While creation fails, the retry timer owes: else every submission would try, and fail, at once. */
    if (pool->stopping || pool->retry_at_ns != 0) {
        return false;
    }
    while ((pool->queued > supply || pool->cur_threads < pool->min_threads) && pool->cur_threads < pool->max_threads) {
        pool->cur_threads++;
        pool->new_threads++;
        supply++;
    }
    return pool->new_threads > 0 && !had_backlog && pool->pending_threads == 0;
}

/* The lowest free place, so that numbers in thread names stay small. Lock held; there is one, since cur <= max. */
static struct aiod_worker *take_place(struct aiod_pool *pool)
{
    struct aiod_worker *worker = pool->workers;

    while (worker->in_use) {
        worker++;
    }
    worker->in_use = true;
    worker->chosen = false;
    return worker;
}

/* The kernel keeps 15 characters: a long engine name is cut, the number is not. */
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

/* Birth: the newborn is no longer pending, and creates the next ones before anything else. */
static void *start_worker(void *arg)
{
    struct aiod_pool *pool = arg;
    struct aiod_worker *worker;
    pid_t tid = gettid();

    pthread_mutex_lock(&pool->lock);
    pool->pending_threads--;
    pool->active_threads++;
    pool->threads_created++;
    if (pool->cur_threads - pool->new_threads - pool->pending_threads > pool->threads_peak) {
        pool->threads_peak = pool->cur_threads - pool->new_threads - pool->pending_threads;
    }
    pool->retry_backoff_ns = AIOD_RETRY_BACKOFF_MIN_NS;
    worker = take_place(pool);
    worker->tid = tid;
    pthread_mutex_unlock(&pool->lock);

    name_thread(pool, worker);
    for (unsigned made = 0; made != AIOD_SPAWN_FAN_OUT && aiod_spawner_step(pool); made++) {
    }
    aiod_pool_work(pool, worker);
    return NULL;
}

/* Create one thread with all signals blocked but those that a fault in it raises. */
static int create_thread(struct aiod_pool *pool)
{
    sigset_t blocked;
    sigset_t before;
    pthread_t thread;
    int error;

    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = aiod_os->thread_create(&thread, &pool->thread_attr, start_worker, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* The rollback. The threads that are there carry on; the main loop is rung so that it arms its timer. */
static void creation_failed(struct aiod_pool *pool)
{
    uint64_t now_ns = aiod_now_ns();

    pthread_mutex_lock(&pool->lock);
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

bool aiod_spawner_step(struct aiod_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    if (pool->new_threads == 0) {
        pthread_mutex_unlock(&pool->lock);
        return false;
    }
    pool->new_threads--;
    pool->pending_threads++;
    pthread_mutex_unlock(&pool->lock);

    if (create_thread(pool) != 0) {
        creation_failed(pool);
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
        aiod_spawner_owe(pool);
    }
    pthread_mutex_unlock(&pool->lock);
    if (due) {
        aiod_spawner_step(pool);
    }
}
