/*
 * polling.c - idle workers that poll for requests, instead of sleeping until a submitter wakes them.
 *
 * Algorithm: leader and followers (Schmidt et al., Pattern-Oriented Software Architecture 2). Up to AIOD_POLLING_MAX idle
 * workers poll (struct aiod_idle_polling). One of them, the leader, finds requests and submits them to the pool. It keeps one
 * request: it stops polling and takes the next request from the queue, as every worker does, so that the fair queue
 * decides which one. So a request that arrives alone wakes no thread. The other one, the follower, sleeps until
 * requests arrive while the leader carries one out, and becomes the leader then.
 *
 * Polling goes on while max_threads workers are active: cached reads, cancellation and refusals need no worker. So the
 * pool has one thread more while polling is on, and the last polling worker never stops polling to take a request.
 *
 * A polling worker can be recalled, as a sleeper is woken. A recall names no worker: the first one that answers it stops
 * polling, and another one that saw it polls on.
 */
#include "pool/pool_state.h"

#include <errno.h>

#include "pool/spawner.h"
#include "util/os.h"

static _Thread_local bool polls;     /* the calling thread is a polling worker */
static _Thread_local bool keeps_one; /* and counts as waking, because of a request that it submitted */

static unsigned count_bound(const struct aiod_pool *pool)
{
    return atomic_load_explicit(&pool->bound_threads, memory_order_relaxed);
}

/* ---- lock held --------------------------------------------------------------------------------------------------- */

unsigned aiod_pool_threads_allowed(const struct aiod_pool *pool)
{
    return pool->limit_threads + (pool->polling_on && pool->limit_threads < AIOD_THREADS_MAX ? 1 : 0);
}

unsigned aiod_pool_threads_wanted(const struct aiod_pool *pool)
{
    if (!pool->polling_on) {
        return pool->min_threads;
    }
    return pool->min_threads + 1 > AIOD_POLLING_MAX ? pool->min_threads + 1 : AIOD_POLLING_MAX;
}

bool aiod_pool_has_idle(const struct aiod_pool *pool)
{
    return pool->asleep_threads > 0 || (pool->polling_threads > 1 && aiod_polling_recallable(pool) > 0);
}

/*
 * One worker is bound at a time: the others can be recalled, and the spawner counts on that. (The last polling worker is never
 * recalled, bound or not.)
 */
bool aiod_polling_may_bind(const struct aiod_pool *pool, bool bound)
{
    return polls && !keeps_one && (bound || count_bound(pool) == 0);
}

unsigned aiod_polling_recallable(const struct aiod_pool *pool)
{
    if (pool->stopping) {
        return pool->polling_threads; /* bound workers stop polling as well */
    }
    return pool->polling_threads > count_bound(pool) ? pool->polling_threads - count_bound(pool) : 0;
}

bool aiod_polling_has_room(const struct aiod_pool *pool)
{
    return pool->polling_on && pool->polling_users < AIOD_POLLING_MAX && !pool->stopping;
}

void aiod_polling_recall_one(struct aiod_pool *pool)
{
    pool->polling_threads--;
    pool->waking_threads++;
    pool->recalls++;
    atomic_store_explicit(&pool->polling_recalled, true, memory_order_relaxed);
}

/*
 * The worker keeps one if a sleeper would be woken for it otherwise, and if another worker polls on: that one is not
 * recalled, and keeps nothing itself, as long as it is the last.
 */
void aiod_polling_submitted(struct aiod_pool *pool)
{
    unsigned others = pool->active_threads + pool->waking_threads;

    if (polls && !keeps_one && aiod_uring_inflight() == 0 && pool->polling_threads > 1 &&
        aiod_pool_takeable(pool, others) > pool->waking_threads) {
        pool->polling_threads--;
        pool->waking_threads++;
        keeps_one = true;
    }
}

void aiod_polling_enter(struct aiod_pool *pool)
{
    pool->polling_threads++;
    pool->polling_users++;
    polls = true;
}

static bool all_must_stop(const struct aiod_pool *pool)
{
    return !pool->polling_on || pool->stopping || pool->cur_threads > aiod_pool_threads_allowed(pool);
}

bool aiod_polling_must_stop(struct aiod_pool *pool)
{
    bool must = keeps_one || pool->recalls > 0 || all_must_stop(pool);

    if (!must) {
        atomic_store_explicit(&pool->polling_recalled, false, memory_order_relaxed);
    }
    return must;
}

bool aiod_polling_leave(struct aiod_pool *pool)
{
    if (keeps_one) {
        pool->waking_threads--;
    } else if (pool->recalls > 0) {
        pool->recalls--;
        pool->waking_threads--;
    } else {
        pool->polling_threads--;
    }
    polls = keeps_one = false;
    if (--pool->polling_users == 0) {
        pthread_cond_broadcast(&pool->polling_ended);
    }
    if (pool->recalls == 0 && !all_must_stop(pool)) {
        atomic_store_explicit(&pool->polling_recalled, false, memory_order_relaxed);
        return false;
    }
    return pool->polling_users > 0;
}

/* ---- polling workers --------------------------------------------------------------------------------------------- */

bool aiod_pool_recalls(const struct aiod_pool *pool)
{
    return atomic_load_explicit(&pool->polling_recalled, memory_order_relaxed) &&
           (aiod_uring_inflight() == 0 || atomic_load_explicit(&pool->polling_ends, memory_order_relaxed));
}

bool aiod_pool_passes_recall(const struct aiod_pool *pool)
{
    return atomic_load_explicit(&pool->polling_recalled, memory_order_relaxed) && !aiod_pool_recalls(pool);
}

bool aiod_pool_other_is_bound(const struct aiod_pool *pool)
{
    return aiod_uring_inflight() == 0 && count_bound(pool) > 0;
}

bool aiod_pool_keeps_one(void)
{
    return keeps_one;
}

void aiod_pool_hand_over_kept(struct aiod_pool *pool)
{
    struct aiod_worker *chosen[1];
    unsigned wake = 0;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    keeps_one = false;
    pool->waking_threads--;
    pool->polling_threads++;
    ring = aiod_spawner_add_backlog(pool);
    if (pool->waking_threads == 0) {
        wake = aiod_pool_choose_sleepers(pool, chosen, 1);
    }
    ring = aiod_pool_timer_is_late(pool, aiod_now_ns()) || ring;
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

void aiod_pool_set_polling(struct aiod_pool *pool, struct aiod_idle_polling *polling)
{
    pool->polling = polling;
}

/* Workers that sleep already have to poll. Lock held; returns how many are chosen. */
static unsigned choose_to_poll(struct aiod_pool *pool, struct aiod_worker **chosen)
{
    unsigned count = 0;

    while (pool->polling_users + count < AIOD_POLLING_MAX && pool->asleep_threads > 0) {
        chosen[count++] = aiod_pool_choose_sleeper(pool);
    }
    return count;
}

int aiod_pool_start_polling(struct aiod_pool *pool)
{
    struct aiod_worker *chosen[AIOD_POLLING_MAX];
    bool has_threads;
    unsigned wake;

    pthread_mutex_lock(&pool->lock);
    pool->polling_on = true;
    atomic_store_explicit(&pool->polling_ends, false, memory_order_relaxed);
    wake = choose_to_poll(pool, chosen);
    aiod_spawner_add_backlog(pool);
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    aiod_spawner_step(pool, NULL);
    pthread_mutex_lock(&pool->lock);
    has_threads = pool->cur_threads > 0;
    pthread_mutex_unlock(&pool->lock);
    return has_threads ? 0 : -EAGAIN;
}

void aiod_pool_stop_polling(struct aiod_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->polling_on = false;
    atomic_store_explicit(&pool->polling_ends, true, memory_order_relaxed);
    atomic_store_explicit(&pool->polling_recalled, true, memory_order_relaxed);
    pthread_mutex_unlock(&pool->lock);
    pool->polling->wake(pool->polling);
    pthread_mutex_lock(&pool->lock);
    while (pool->polling_users > 0) {
        pthread_cond_wait(&pool->polling_ended, &pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
}
