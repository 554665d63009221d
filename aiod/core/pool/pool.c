/*
 * pool.c - the pool's queue, its list of completed requests, submission, the main loop's timer work, and the pool's
 * creation and end.
 *
 * pool->lock protects the queue (pool_state.h). The done list needs no lock: workers push, and the reaper takes the
 * whole list.
 */
#include "pool/pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "pool/pool_state.h"
#include "pool/spawner.h"
#include "util/os.h"

#define LOST_WAKEUP_NS 5000000ull /* without a request taken for this long, one sleeper is woken as recovery */
#define ENDED_AT_ONCE 256u        /* requests ended under one hold of the lock */

/* ---- the queue: lock held ---------------------------------------------------------------------------------------- */

void aiod_pool_enqueue(struct aiod_pool *pool, struct aiod_request *request)
{
    request->state = AIOD_QUEUED;
    request->more_follow = false;
    request->next = NULL;
    request->previous = pool->queue_last;
    if (pool->queue_last != NULL) {
        pool->queue_last->next = request;
    } else {
        pool->queue_first = request;
    }
    pool->queue_last = request;
    pool->queued++;
    pool->startable += request->uring != NULL;
    aiod_fair_queue_add(&pool->fair_queue, request);
    if (request->deadline_ns != 0) {
        aiod_heap_insert(&pool->deadlines, &request->late, request->deadline_ns);
    }
}

void aiod_pool_unlink(struct aiod_pool *pool, struct aiod_request *request)
{
    if (request->previous != NULL) {
        request->previous->next = request->next;
    } else {
        pool->queue_first = request->next;
    }
    if (request->next != NULL) {
        request->next->previous = request->previous;
    } else {
        pool->queue_last = request->previous;
    }
    pool->queued--;
    pool->startable -= request->uring != NULL;
    aiod_fair_queue_remove(&pool->fair_queue, request);
    if (request->deadline_ns != 0) {
        aiod_heap_remove(&pool->deadlines, &request->late);
    }
    request->state = AIOD_ACTIVE;
}

/*
 * Remove a request that will not be started. The next one of its lane is queued first: a flow that waits for a rate goes on
 * waiting then, and nothing can be taken that could not be taken before.
 */
static void unlink_unstarted(struct aiod_pool *pool, struct aiod_request *request)
{
    aiod_fair_queue_leave_lane(&pool->fair_queue, request);
    aiod_pool_unlink(pool, request);
}

size_t aiod_pool_takeable(const struct aiod_pool *pool, unsigned others)
{
    others += pool->started;
    if (others >= pool->limit_threads) {
        return 0;
    }
    return others + pool->reserve_threads < pool->limit_threads
               ? pool->queued - pool->fair_queue.held - pool->fair_queue.in_lanes
               : pool->fair_queue.fresh;
}

bool aiod_pool_only_fresh(const struct aiod_pool *pool, unsigned more)
{
    return pool->active_threads + pool->started + more + pool->reserve_threads > pool->limit_threads;
}

static struct aiod_request *late_request(struct aiod_heap_node *late)
{
    return (struct aiod_request *)((char *)late - offsetof(struct aiod_request, late));
}

/*
 * Unlink up to ENDED_AT_ONCE requests that were queued at `limit_ns` or before. A list linked by `next`, oldest first.
 */
static struct aiod_request *unlink_oldest(struct aiod_pool *pool, uint64_t limit_ns)
{
    struct aiod_request *taken = NULL;
    struct aiod_request **tail = &taken;

    for (unsigned i = 0; i < ENDED_AT_ONCE && pool->queued > 0 && pool->queue_first->queued_ns <= limit_ns; i++) {
        *tail = pool->queue_first;
        unlink_unstarted(pool, *tail);
        tail = &(*tail)->next;
    }
    *tail = NULL;
    return taken;
}

/* Unlink up to ENDED_AT_ONCE requests whose deadline has passed. A list linked by `next`, earliest deadline first. */
static struct aiod_request *unlink_late(struct aiod_pool *pool, uint64_t now_ns)
{
    struct aiod_request *taken = NULL;
    struct aiod_request **tail = &taken;

    for (unsigned i = 0; i < ENDED_AT_ONCE && aiod_heap_least(&pool->deadlines) <= now_ns; i++) {
        *tail = late_request(pool->deadlines.root);
        unlink_unstarted(pool, *tail);
        tail = &(*tail)->next;
    }
    *tail = NULL;
    return taken;
}

struct aiod_request *aiod_pool_take_group(struct aiod_pool *pool, const void *group, struct aiod_request *mine)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *taken = NULL;
    struct aiod_request *request;

    pthread_mutex_lock(&pool->lock);
    aiod_active_requests_next_turn(pool, now_ns);
    for (request = mine; request != NULL; request = request->next) {
        aiod_active_requests_assign(request);
    }
    request = pool->queue_first;
    for (unsigned seen = 0; request != NULL && seen < AIOD_GROUP_SCAN; seen++) {
        struct aiod_request *next = request->next;

        if (request->group == group && !aiod_pool_deadline_passed(request, now_ns) &&
            aiod_fair_queue_take_along(&pool->fair_queue, request, now_ns)) {
            aiod_pool_unlink(pool, request);
            request->started_ns = request->begun_ns = now_ns;
            aiod_active_requests_add(pool, request);
            request->next = taken;
            taken = request;
        }
        request = next;
    }
    pthread_mutex_unlock(&pool->lock);
    return taken;
}

bool aiod_pool_deadline_passed(const struct aiod_request *request, uint64_t now_ns)
{
    return request->deadline_ns != 0 && now_ns >= request->deadline_ns;
}

/* ---- the done list: lock not held -------------------------------------------------------------------------------- */

bool aiod_pool_push_unannounced(struct aiod_pool *pool, struct aiod_request *request)
{
    struct aiod_request *head = atomic_load_explicit(&pool->done, memory_order_relaxed);

    request->done_ns = aiod_now_ns();
    __atomic_store_n(&request->state, AIOD_DONE, __ATOMIC_RELAXED);
    if (request->complete != NULL) {
        request->complete(request);
        return false;
    }
    do {
        request->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&pool->done, &head, request, memory_order_release,
                                                    memory_order_relaxed));
    return true;
}

/*
 * Only the first thread after the reaper's last look rings the doorbell. No completion is lost: a thread announces after it
 * has pushed, and the reaper resets `announced` before it takes the list. If the thread comes first, its exchange is read
 * by the reaper's, so the reaper takes what was pushed; else the thread finds the reset, and rings.
 */
void aiod_pool_announce(struct aiod_pool *pool)
{
    if (!atomic_exchange_explicit(&pool->announced, true, memory_order_acq_rel)) {
        aiod_eventfd_ring(pool->completion_fd);
    }
}

void aiod_pool_push_done(struct aiod_pool *pool, struct aiod_request *request)
{
    if (aiod_pool_push_unannounced(pool, request)) {
        aiod_pool_announce(pool);
    }
}

void aiod_pool_notify(struct aiod_pool *pool, struct aiod_request *request)
{
    aiod_pool_push_done(pool, request);
}

void aiod_pool_finish(struct aiod_pool *pool, struct aiod_request *request, int64_t result)
{
    pthread_mutex_lock(&pool->lock);
    aiod_active_requests_remove(pool, request);
    pthread_mutex_unlock(&pool->lock);
    request->result = result;
    aiod_pool_push_done(pool, request);
}

/* End requests that were never started. */
static void end_unstarted(struct aiod_pool *pool, struct aiod_request *list, int64_t result, enum aiod_reason reason)
{
    while (list != NULL) {
        struct aiod_request *next = list->next;

        list->result = result;
        list->reason = reason;
        aiod_pool_push_done(pool, list);
        list = next;
    }
}

struct aiod_request *aiod_pool_reap(struct aiod_pool *pool)
{
    struct aiod_request *newest;
    struct aiod_request *oldest = NULL;

    aiod_eventfd_clear(pool->completion_fd);
    atomic_exchange_explicit(&pool->announced, false, memory_order_acq_rel);
    newest = atomic_exchange_explicit(&pool->done, NULL, memory_order_acquire);
    while (newest != NULL) {
        struct aiod_request *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* ---- the main loop's timer: lock held ----------------------------------------------------------------------------- */

static uint64_t sooner_ns(uint64_t wanted_ns, uint64_t at_ns, uint64_t now_ns)
{
    uint64_t in_ns = at_ns > now_ns ? at_ns - now_ns : 0;

    return in_ns < wanted_ns ? in_ns : wanted_ns;
}

/* The caller takes the request that it keeps, so that no wake-up can be lost for that one. */
static uint64_t wanted_in_ns(const struct aiod_pool *pool, uint64_t now_ns)
{
    uint64_t wanted_ns = AIOD_POOL_NEVER;

    if (pool->queued > pool->fair_queue.in_lanes + aiod_pool_keeps_one() && aiod_pool_has_idle(pool)) {
        wanted_ns = LOST_WAKEUP_NS;
    }
    if (pool->deadlines.root != NULL) {
        wanted_ns = sooner_ns(wanted_ns, aiod_heap_least(&pool->deadlines), now_ns);
    }
    if (aiod_fair_queue_next_release_ns(&pool->fair_queue) != UINT64_MAX) {
        wanted_ns = sooner_ns(wanted_ns, aiod_fair_queue_next_release_ns(&pool->fair_queue), now_ns);
    }
    if (pool->retry_at_ns != 0) {
        wanted_ns = sooner_ns(wanted_ns, pool->retry_at_ns, now_ns);
        if (pool->cur_threads == 0 && pool->queued > 0) { /* the back-off may last longer than requests may wait */
            wanted_ns = sooner_ns(wanted_ns, pool->queue_first->queued_ns + pool->spawn_retry_ns, now_ns);
        }
    }
    return wanted_ns;
}

bool aiod_pool_timer_is_late(struct aiod_pool *pool, uint64_t now_ns)
{
    uint64_t wanted_ns = wanted_in_ns(pool, now_ns);
    bool wants = wanted_ns != AIOD_POOL_NEVER && now_ns + wanted_ns < pool->timer_at_ns;

    if (wants) { /* the main loop will set the timer so: other threads need not ring meanwhile */
        pool->timer_at_ns = now_ns + wanted_ns;
    }
    return wants;
}

/* ---- submission -------------------------------------------------------------------------------------------------- */

/*
 * Queue the requests, and choose what wakes workers for them. Lock held. True: the caller must ring the doorbell.
 *
 * A submitter wakes at most one sleeper, and none while another is waking. Woken workers wake further ones
 * (AIOD_WAKE_FAN_OUT), as new workers create further ones: waking all sleepers here would cost the submitter as much as
 * creating them.
 */
static bool enqueue_all(struct aiod_pool *pool, struct aiod_request *first, size_t count, struct aiod_worker **chosen,
                        unsigned *wake)
{
    bool ring;

    while (count-- > 0) {
        struct aiod_request *next = first->next;

        first->charged = false;
        aiod_pool_enqueue(pool, first);
        first = next;
    }
    aiod_uring_take(pool);
    aiod_polling_submitted(pool);
    ring = aiod_spawner_add_backlog(pool);
    *wake = pool->waking_threads == 0 ? aiod_pool_choose_sleepers(pool, chosen, 1) : 0;
    return ring;
}

void aiod_pool_submit(struct aiod_pool *pool, struct aiod_request *first, size_t count)
{
    struct aiod_worker *chosen[1];
    unsigned wake;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    ring = enqueue_all(pool, first, count, chosen, &wake);
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}

void aiod_pool_submit_beside_main_loop(struct aiod_pool *pool, struct aiod_request *first, size_t count)
{
    struct aiod_worker *chosen[1];
    uint64_t now_ns = first->queued_ns; /* may be a little earlier: the timer is set to an absolute time */
    unsigned wake;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    ring = enqueue_all(pool, first, count, chosen, &wake);
    ring = aiod_pool_timer_is_late(pool, now_ns) || ring;
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}

bool aiod_pool_cancel(struct aiod_pool *pool, struct aiod_request *request)
{
    bool queued;

    pthread_mutex_lock(&pool->lock);
    /* Queued and active change under the lock. Done is set without it, and means the same as active here. */
    queued = __atomic_load_n(&request->state, __ATOMIC_RELAXED) == AIOD_QUEUED;
    if (queued) {
        unlink_unstarted(pool, request);
        request->next = NULL;
    }
    pthread_mutex_unlock(&pool->lock);
    if (queued) {
        end_unstarted(pool, request, -ECANCELED, AIOD_REASON_CANCELLED);
    }
    return queued;
}

/* ---- for the main loop ------------------------------------------------------------------------------------------- */

void aiod_pool_spawn(struct aiod_pool *pool)
{
    aiod_eventfd_clear(pool->doorbell_fd);
    aiod_spawner_step(pool, NULL);
}

/*
 * Lost-wakeup recovery: requests are queued, workers sleep, and nothing was taken for LOST_WAKEUP_NS. Counted, and
 * expected never to happen. Lock held. The number of chosen sleepers.
 */
static unsigned recover_lost_wakeup(struct aiod_pool *pool, struct aiod_worker **chosen, uint64_t now_ns)
{
    if (!aiod_pool_has_idle(pool) || pool->waking_threads > 0 || aiod_pool_takeable(pool, pool->active_threads) == 0 ||
        now_ns - pool->last_taken_ns < LOST_WAKEUP_NS || now_ns - pool->queue_first->queued_ns < LOST_WAKEUP_NS) {
        return 0;
    }
    pool->lost_wakeups++;
    chosen[0] = aiod_pool_choose_sleeper(pool);
    return 1;
}

/*
 * A timer that is set stays so, though nothing may want it any more. Were it forgotten, the next submission would ring the
 * doorbell again: one wake-up of the main loop for each request.
 */
uint64_t aiod_pool_tick_wanted(struct aiod_pool *pool)
{
    uint64_t now_ns = aiod_now_ns();
    uint64_t wanted_ns;

    pthread_mutex_lock(&pool->lock);
    wanted_ns = wanted_in_ns(pool, now_ns);
    if (pool->timer_at_ns != AIOD_POOL_NEVER) {
        wanted_ns = sooner_ns(wanted_ns, pool->timer_at_ns, now_ns);
    }
    pool->timer_at_ns = wanted_ns == AIOD_POOL_NEVER ? AIOD_POOL_NEVER : now_ns + wanted_ns;
    pthread_mutex_unlock(&pool->lock);
    return wanted_ns;
}

uint64_t aiod_pool_tick(struct aiod_pool *pool)
{
    struct aiod_worker *chosen[1];
    struct aiod_request *late = NULL;
    struct aiod_request *unserved = NULL;
    uint64_t now_ns = aiod_now_ns();
    bool ring = false;
    unsigned wake;

    aiod_spawner_retry(pool, now_ns);
    pthread_mutex_lock(&pool->lock);
    pool->timer_at_ns = AIOD_POOL_NEVER; /* it has fired */
    wake = recover_lost_wakeup(pool, chosen, now_ns);
    if (aiod_fair_queue_next_release_ns(&pool->fair_queue) <= now_ns) {
        aiod_fair_queue_release_ready(&pool->fair_queue, now_ns);
        ring = aiod_spawner_add_backlog(pool);
        wake = wake == 0 && pool->waking_threads == 0 ? aiod_pool_choose_sleepers(pool, chosen, 1) : wake;
    }
    late = unlink_late(pool, now_ns);
    if (pool->cur_threads == 0 && pool->retry_at_ns != 0 && now_ns > pool->spawn_retry_ns) {
        unserved = unlink_oldest(pool, now_ns - pool->spawn_retry_ns);
    }
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
    end_unstarted(pool, late, -ETIMEDOUT, AIOD_REASON_DEADLINE);
    end_unstarted(pool, unserved, -EAGAIN, AIOD_REASON_NO_THREADS);
    return aiod_pool_tick_wanted(pool);
}

/* Choose up to `limit` sleepers, at most AIOD_THREADS_MAX, to look at the queue and the limits again. Lock held. */
static unsigned choose_any(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned limit)
{
    unsigned count = 0;

    while (count < limit && pool->asleep_threads + aiod_polling_recallable(pool) > 0) {
        chosen[count++] = aiod_pool_choose_sleeper(pool);
    }
    return count;
}

/* Compute what depends on max_threads: the reserve, and the limit of slow requests per export. */
static void set_shares(struct aiod_pool *pool)
{
    unsigned room = pool->max_threads / 16;

    pool->reserve_threads = pool->reserve_wanted < room ? pool->reserve_wanted : room;
    aiod_fair_queue_limit_slow(&pool->fair_queue, (pool->max_threads + 1) / 2);
}

/*
 * More requests may be taken than before: add the missing workers to the backlog, and wake a sleeper. Drops the lock.
 */
static void unlock_and_supply(struct aiod_pool *pool)
{
    struct aiod_worker *chosen[1];
    bool ring = aiod_spawner_add_backlog(pool);
    unsigned wake = aiod_pool_choose_sleepers(pool, chosen, 1);

    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}

void aiod_pool_set_shares(struct aiod_pool *pool, unsigned reserve_threads, unsigned active_max,
                          uint64_t active_bytes_max)
{
    pthread_mutex_lock(&pool->lock);
    pool->reserve_wanted = reserve_threads;
    set_shares(pool);
    aiod_fair_queue_limit(&pool->fair_queue, active_max, active_bytes_max);
    unlock_and_supply(pool);
}

void aiod_pool_set_rate(struct aiod_pool *pool, struct aiod_rate *rate, const struct aiod_rate_limits *limits)
{
    pthread_mutex_lock(&pool->lock);
    aiod_rate_set(rate, limits);
    aiod_fair_queue_release_all(&pool->fair_queue, rate);
    unlock_and_supply(pool);
}

void aiod_pool_disable_rates(struct aiod_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    aiod_fair_queue_disable_rates(&pool->fair_queue);
    unlock_and_supply(pool);
}

/* The limits changed: reduce the backlog, and choose surplus sleepers, which then exit. Lock held. Their number. */
static unsigned shrink(struct aiod_pool *pool, struct aiod_worker **chosen)
{
    aiod_pool_set_limit(pool);
    while (pool->cur_threads > aiod_pool_threads_allowed(pool) && pool->new_threads > 0) {
        pool->new_threads--;
        pool->cur_threads--;
    }
    return pool->cur_threads > aiod_pool_threads_allowed(pool)
               ? choose_any(pool, chosen, pool->cur_threads - aiod_pool_threads_allowed(pool))
               : 0;
}

void aiod_pool_set_slow_limits(struct aiod_pool *pool, uint64_t slow_ns, unsigned stuck_threads_max)
{
    struct aiod_worker *chosen[AIOD_THREADS_MAX];
    unsigned wake;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    pool->slow_ns = slow_ns;
    pool->stuck_threads_max = stuck_threads_max;
    wake = shrink(pool, chosen);
    ring = aiod_spawner_add_backlog(pool);
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}

int aiod_pool_resize(struct aiod_pool *pool, unsigned max_threads, unsigned min_threads)
{
    struct aiod_worker *chosen[AIOD_THREADS_MAX];
    unsigned wake;
    bool ring;

    if (max_threads < 1 || max_threads > AIOD_THREADS_MAX || min_threads > max_threads) {
        return -EINVAL;
    }
    pthread_mutex_lock(&pool->lock);
    pool->max_threads = max_threads;
    pool->min_threads = min_threads;
    wake = shrink(pool, chosen);
    set_shares(pool);
    ring = aiod_spawner_add_backlog(pool);
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
    return 0;
}

void aiod_pool_get_stats(struct aiod_pool *pool, struct aiod_pool_stats *stats)
{
    unsigned beyond;

    pthread_mutex_lock(&pool->lock);
    beyond = pool->polling_threads > 0;
    *stats = (struct aiod_pool_stats){
        .max_threads = pool->max_threads,
        .stuck_threads = pool->stuck_threads,
        .min_threads = pool->min_threads,
        .cur_threads = pool->cur_threads - beyond,
        .idle_threads = pool->asleep_threads + pool->polling_threads + pool->waking_threads - beyond,
        .waking_threads = pool->waking_threads,
        .active_threads = pool->active_threads,
        .new_threads = pool->new_threads,
        .pending_threads = pool->pending_threads,
        .threads_peak = pool->threads_peak,
        .queued = pool->queued,
        .in_lanes = pool->fair_queue.in_lanes,
        .threads_created = pool->threads_created,
        .longest_chain = pool->longest_chain,
        .spawn_failures = pool->spawn_failures,
        .uring_inflight = pool->started + pool->started_slow,
        .uring_failures = pool->uring_failures,
        .uring_requests = pool->uring_requests,
        .uring_returned = pool->uring_returned,
        .lost_wakeups = pool->lost_wakeups,
    };
    memcpy(stats->created_for, pool->created_for, sizeof(stats->created_for));
    pthread_mutex_unlock(&pool->lock);
}

struct aiod_throttling aiod_pool_get_throttling(struct aiod_pool *pool, const struct aiod_rate *rate)
{
    struct aiod_throttling throttling;

    pthread_mutex_lock(&pool->lock);
    throttling = (struct aiod_throttling){.waiting = rate->waiting_flows, .throttled_ns = rate->throttled_ns};
    if (rate->waiting_flows > 0) {
        throttling.throttled_ns += aiod_now_ns() - rate->throttled_since_ns;
    }
    pthread_mutex_unlock(&pool->lock);
    return throttling;
}

void aiod_pool_get_spawn_latency(struct aiod_pool *pool, struct aiod_histogram *histogram)
{
    pthread_mutex_lock(&pool->lock);
    *histogram = pool->spawn_latency;
    pthread_mutex_unlock(&pool->lock);
}

size_t aiod_pool_worker_tids(struct aiod_pool *pool, pid_t *tids)
{
    const struct aiod_worker *worker;
    size_t count = 0;

    pthread_mutex_lock(&pool->lock);
    for (size_t from = 0; (worker = aiod_worker_slots_next(pool, from)) != NULL;
         from = (size_t)(worker - pool->workers) + 1) {
        if (worker->tid != 0) {
            tids[count++] = worker->tid;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return count;
}

int aiod_pool_completion_fd(const struct aiod_pool *pool)
{
    return pool->completion_fd;
}

int aiod_pool_doorbell_fd(const struct aiod_pool *pool)
{
    return pool->doorbell_fd;
}

/* ---- creation and end of the pool -------------------------------------------------------------------------------- */

static int init_locks(struct aiod_pool *pool)
{
    int error = aiod_mutex_init(&pool->lock);

    if (error == 0) {
        error = pthread_cond_init(&pool->all_left, NULL);
    }
    if (error == 0) {
        error = pthread_cond_init(&pool->moved, NULL);
    }
    if (error == 0) {
        error = pthread_cond_init(&pool->polling_ended, NULL);
    }
    if (error == 0) {
        error = pthread_attr_init(&pool->thread_attr);
    }
    if (error == 0) {
        error = pthread_attr_setdetachstate(&pool->thread_attr, PTHREAD_CREATE_DETACHED);
    }
    if (error == 0) {
        error = pthread_attr_setstacksize(&pool->thread_attr, AIOD_WORKER_STACK_BYTES);
    }
    for (size_t i = 0; i < AIOD_THREADS_MAX; i++) {
        sem_init(&pool->workers[i].wake, 0, 0);
    }
    return -error;
}

static int init_doorbells(struct aiod_pool *pool)
{
    pool->completion_fd = aiod_eventfd_create();
    if (pool->completion_fd < 0) {
        return pool->completion_fd;
    }
    pool->doorbell_fd = aiod_eventfd_create();
    if (pool->doorbell_fd < 0) {
        close(pool->completion_fd);
        return pool->doorbell_fd;
    }
    return 0;
}

int aiod_pool_create(struct aiod_pool **result, const struct aiod_pool_config *config)
{
    struct aiod_pool *pool = calloc(1, sizeof(*pool));
    int error;

    if (pool == NULL) {
        return -ENOMEM;
    }
    snprintf(pool->name, sizeof(pool->name), "%s", config->name);
    pool->idle_timeout_ns = config->idle_timeout_ns;
    pool->spawn_retry_ns = config->spawn_retry_ns;
    pool->retry_backoff_ns = AIOD_RETRY_BACKOFF_MIN_NS;
    pool->timer_at_ns = AIOD_POOL_NEVER;
    error = init_doorbells(pool);
    if (error != 0) {
        free(pool);
        return error;
    }
    error = init_locks(pool);
    if (error == 0) {
        error = aiod_pool_resize(pool, config->max_threads, config->min_threads);
    }
    if (error != 0) {
        aiod_pool_destroy(pool);
        return error;
    }
    *result = pool;
    return 0;
}

/* Wait until the last worker has exited. Lock held. */
bool aiod_pool_all_left(const struct aiod_pool *pool)
{
    return pool->cur_threads == 0 && pool->leaving_threads == 0;
}

static bool wait_all_left(struct aiod_pool *pool, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};

    while (!aiod_pool_all_left(pool)) {
        if (pthread_cond_clockwait(&pool->all_left, &pool->lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT) {
            break;
        }
    }
    return aiod_pool_all_left(pool);
}

/* End the queued requests. Workers take no requests any more. */
static void cancel_all(struct aiod_pool *pool)
{
    struct aiod_request *cancelled;

    do {
        pthread_mutex_lock(&pool->lock);
        cancelled = unlink_oldest(pool, UINT64_MAX);
        pthread_mutex_unlock(&pool->lock);
        end_unstarted(pool, cancelled, -ECANCELED, AIOD_REASON_CANCELLED);
    } while (cancelled != NULL);
}

bool aiod_pool_stop(struct aiod_pool *pool, uint64_t timeout_ns)
{
    struct aiod_worker *chosen[AIOD_THREADS_MAX];
    unsigned wake;
    bool all_left;

    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pool->cur_threads -= pool->new_threads;
    pool->new_threads = 0;
    wake = choose_any(pool, chosen, AIOD_THREADS_MAX);
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    cancel_all(pool);

    pthread_mutex_lock(&pool->lock);
    all_left = wait_all_left(pool, timeout_ns);
    pthread_mutex_unlock(&pool->lock);
    return all_left;
}

void aiod_pool_destroy(struct aiod_pool *pool)
{
    for (size_t i = 0; i < AIOD_THREADS_MAX; i++) {
        sem_destroy(&pool->workers[i].wake);
    }
    aiod_uring_destroy_slots(pool);
    pthread_attr_destroy(&pool->thread_attr);
    pthread_cond_destroy(&pool->polling_ended);
    pthread_cond_destroy(&pool->moved);
    pthread_cond_destroy(&pool->all_left);
    pthread_mutex_destroy(&pool->lock);
    close(pool->completion_fd);
    close(pool->doorbell_fd);
    free(pool);
}
