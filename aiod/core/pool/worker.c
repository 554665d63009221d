/* worker.c - the life of a worker: asleep, waking, active; and the choice of workers to wake. */
#include "pool/pool_state.h"

#include <errno.h>
#include <time.h>

#include "pool/spawner.h"
#include "util/os.h"
#include "util/probes.h"

#define SHORT_NS 50000u            /* a request that took no longer may wait for others to be announced with it */
#define UNANNOUNCED_MIN_NS 100000u /* how long such requests wait, at least and at most */
#define UNANNOUNCED_MAX_NS 400000u
#define WAITING_MIN 8u /* requests that keep a worker busy while it takes a client to wake and to submit more */

/* ---- sleepers: lock held ----------------------------------------------------------------------------------------- */

static void push_sleeper(struct aiod_pool *pool, struct aiod_worker *worker)
{
    worker->chosen = false;
    worker->below = pool->sleepers;
    worker->above = NULL;
    if (pool->sleepers != NULL) {
        pool->sleepers->above = worker;
    }
    pool->sleepers = worker;
    pool->asleep_threads++;
}

static void remove_sleeper(struct aiod_pool *pool, struct aiod_worker *worker)
{
    if (worker->above != NULL) {
        worker->above->below = worker->below;
    } else {
        pool->sleepers = worker->below;
    }
    if (worker->below != NULL) {
        worker->below->above = worker->above;
    }
    pool->asleep_threads--;
}

/* The caller posts the worker's `wake` after it dropped the lock. */
struct aiod_worker *aiod_pool_choose_sleeper(struct aiod_pool *pool)
{
    struct aiod_worker *worker = pool->sleepers;

    if (worker == NULL) {
        aiod_polling_recall_one(pool);
        return NULL;
    }
    remove_sleeper(pool, worker);
    worker->chosen = true;
    pool->waking_threads++;
    AIOD_PROBE3(thread_wake, pool->name, (int)worker->tid, (int)(worker - pool->workers));
    return worker;
}

unsigned aiod_pool_choose_sleepers(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned limit)
{
    unsigned count = 0;

    while (count < limit && aiod_pool_has_idle(pool) &&
           aiod_pool_takeable(pool, pool->active_threads + pool->waking_threads) > pool->waking_threads) {
        chosen[count++] = aiod_pool_choose_sleeper(pool);
    }
    return count;
}

void aiod_pool_post_chosen(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (chosen[i] != NULL) {
            sem_post(&chosen[i]->wake);
        } else {
            pool->polling->wake(pool->polling);
        }
    }
}

/* ---- the worker -------------------------------------------------------------------------------------------------- */

/* Sleep until posted (true) or until the idle timeout (false). Lock not held. */
static bool sleep_until_posted(struct aiod_pool *pool, struct aiod_worker *worker)
{
    uint64_t until_ns = aiod_now_ns() + pool->idle_timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    int result;

    do {
        result = sem_clockwait(&worker->wake, CLOCK_MONOTONIC, &until);
    } while (result < 0 && errno == EINTR);
    return result == 0;
}

/* Consume a post that is certain to come. Lock not held. */
static void take_post(struct aiod_worker *worker)
{
    while (sem_wait(&worker->wake) < 0) {
    }
}

/* What a worker has finished, and has not made known to the reaper, or to the client. */
struct finished {
    struct aiod_request *request; /* not delivered yet; NULL: none */
    const struct aiod_lane *lane; /* whose turn it had */
    uint32_t unannounced;         /* others that are delivered, but not announced; */
    uint64_t unannounced_ns;      /* since when; */
    bool completed;               /* by aiod_request.complete, without the reaper */
};

/* The request that the worker has taken next. */
struct next {
    const struct aiod_request *request;
    /* Read under the pool's lock: its lane (NULL: none), and how many wait there. */
    const struct aiod_lane *lane;
    uint32_t waiting;
};

/*
 * Deliver the completion of the request that this worker carried out, if there is one. Lock not held.
 *
 * The completion is delivered late, when the worker is available again: it has taken its next request, or is among the
 * sleepers. A client may submit again at once, and must not need another worker for that. A worker that is chosen
 * before it sleeps costs no system call on either side.
 */
static void deliver(struct aiod_pool *pool, struct finished *finished)
{
    struct aiod_request *request = finished->request;
    bool clients_wait = finished->unannounced > 0 && finished->completed;
    bool reaper_waits = finished->unannounced > 0 && !finished->completed;

    finished->request = NULL;
    finished->unannounced = 0;
    if ((request != NULL && aiod_pool_push_unannounced(pool, request)) || reaper_waits) {
        aiod_pool_announce(pool);
    }
    if (clients_wait) {
        pool->polling->announce();
    }
}

/*
 * Does the worker go on with a request of the same kind, so that both can be announced together? To wake a client at its ring
 * costs less than a message, and the client wants to go on: it waits only while the worker is busy enough.
 */
static bool has_company(const struct aiod_pool *pool, const struct finished *finished, const struct next *next)
{
    const struct aiod_request *request = finished->request;

    if (request == NULL || finished->lane == NULL || finished->lane != next->lane ||
        request->complete != next->request->complete) {
        return false;
    }
    return request->complete == NULL ||
           (pool->polling != NULL && next->waiting >= WAITING_MIN && next->waiting > finished->unannounced + 1);
}

/*
 * Is the finished request announced together with requests behind it? Those are the writes of the same lane, which this
 * worker goes on with, of which about half are done before that: the other half keeps it busy until the client has sent
 * more. A message of each completion would cost the daemon and the client more than the write, and a client that sleeps at its
 * ring would be woken for each write. A write that took long is announced at once, since so may the next one.
 */
static bool waits_for_more(const struct aiod_pool *pool, const struct finished *finished, const struct next *next)
{
    const struct aiod_request *request = finished->request;
    uint64_t now_ns;
    uint64_t took_ns;
    uint64_t since_ns;
    uint64_t limit_ns;

    if (!has_company(pool, finished, next)) {
        return false;
    }
    now_ns = next->request->begun_ns;
    took_ns = now_ns - request->begun_ns;
    since_ns = finished->unannounced > 0 ? finished->unannounced_ns : request->begun_ns;
    limit_ns = took_ns * next->waiting;
    limit_ns = limit_ns > UNANNOUNCED_MIN_NS ? limit_ns : UNANNOUNCED_MIN_NS;
    limit_ns = limit_ns < UNANNOUNCED_MAX_NS ? limit_ns : UNANNOUNCED_MAX_NS;
    return took_ns < SHORT_NS && now_ns - since_ns < limit_ns;
}

/* Deliver the finished request, now that the worker has taken `next`. */
static void deliver_before(struct aiod_pool *pool, struct finished *finished, const struct next *next)
{
    struct aiod_request *request = finished->request;

    if (!waits_for_more(pool, finished, next)) {
        deliver(pool, finished);
        return;
    }
    if (finished->unannounced++ == 0) {
        finished->unannounced_ns = request->begun_ns;
    }
    finished->completed = request->complete != NULL;
    finished->request = NULL;
    request->more_follow = true;
    aiod_pool_push_unannounced(pool, request);
}

/* May this active worker take a request? Lock held. */
static bool may_take(const struct aiod_pool *pool)
{
    return aiod_pool_takeable(pool, pool->active_threads - 1) > 0;
}

/* Poll until there may be something to do. Lock held on entry and return. */
static void poll_while_idle(struct aiod_pool *pool, struct finished *finished)
{
    bool others_recalled;

    pool->active_threads--;
    aiod_polling_enter(pool);
    do {
        bool leads;

        pthread_mutex_unlock(&pool->lock);
        leads = pool->polling->lead(pool->polling);
        deliver(pool, finished);
        pool->polling->poll(pool->polling, leads);
        pthread_mutex_lock(&pool->lock);
    } while (!aiod_polling_must_stop(pool));
    others_recalled = aiod_polling_leave(pool);
    pool->active_threads++;
    if (others_recalled || aiod_uring_inflight() > 0) {
        pthread_mutex_unlock(&pool->lock);
        if (others_recalled) { /* one wake-up may have served two recalls */
            pool->polling->wake(pool->polling);
        }
        aiod_uring_drain(pool);
        pthread_mutex_lock(&pool->lock);
    }
}

/*
 * Sleep until there may be something to do. Lock held on entry and return. False: the worker must exit.
 *
 * Exiting and being chosen exclude each other, because both are decided under the lock. A worker that was chosen when
 * its sleep timed out must still consume the post: otherwise its next sleep would end at once.
 */
static bool wait_idle(struct aiod_pool *pool, struct aiod_worker *worker, struct finished *finished)
{
    bool posted;

    if (aiod_polling_has_room(pool)) {
        poll_while_idle(pool, finished);
        return true;
    }
    pool->active_threads--;
    push_sleeper(pool, worker);
    do {
        pthread_mutex_unlock(&pool->lock);
        deliver(pool, finished);
        posted = sleep_until_posted(pool, worker);
        pthread_mutex_lock(&pool->lock);
    } while (!worker->chosen && aiod_pool_takeable(pool, pool->active_threads + pool->waking_threads) == 0 &&
             pool->cur_threads <= aiod_pool_threads_wanted(pool));

    if (worker->chosen) {
        if (!posted) { /* still counted as waking: otherwise its request would seem to have no worker */
            pthread_mutex_unlock(&pool->lock);
            take_post(worker);
            pthread_mutex_lock(&pool->lock);
        }
        pool->waking_threads--;
    } else {
        remove_sleeper(pool, worker);
    }
    pool->active_threads++;
    return worker->chosen || may_take(pool);
}

/* Take the next request; NULL if all are held back. Lock held. */
static struct aiod_request *take_request(struct aiod_pool *pool)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *request = aiod_fair_queue_pick(&pool->fair_queue, aiod_pool_only_fresh(pool, 0), now_ns);

    if (request == NULL) {
        return NULL;
    }
    aiod_pool_unlink(pool, request);
    request->shared = pool->fair_queue.shared;
    pool->last_taken_ns = now_ns;
    request->started_ns = request->begun_ns = pool->last_taken_ns;
    aiod_active_requests_next_turn(pool, pool->last_taken_ns);
    aiod_active_requests_add(pool, request);
    return request;
}

/*
 * Run the request, or end it if its deadline has passed. Returns the request if its completion is to be delivered. Lock
 * not held.
 */
static struct aiod_request *execute(struct aiod_request *request)
{
    int64_t result;

    if (aiod_pool_deadline_passed(request, request->started_ns)) {
        request->started_ns = 0;
        request->reason = AIOD_REASON_DEADLINE;
        result = -ETIMEDOUT;
    } else {
        result = request->run(request);
    }
    if (result == AIOD_PARKED) {
        return NULL; /* parked: another worker may have ended it already */
    }
    request->result = result;
    return request;
}

void aiod_pool_exit_worker(struct aiod_pool *pool, struct aiod_worker *worker)
{
    struct aiod_worker *chosen[1];
    unsigned wake = 0;
    bool ring;

    aiod_affinity_wait_settled(pool, worker);
    pool->active_threads--;
    pool->cur_threads--;
    pool->leaving_threads++;
    aiod_worker_slots_release(pool, worker);
    /* A worker that exits because max_threads shrank may have been woken for a request: wake another one. */
    if (pool->waking_threads == 0) {
        wake = aiod_pool_choose_sleepers(pool, chosen, 1);
    }
    ring = aiod_spawner_add_backlog(pool);
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
    aiod_uring_exit(pool);

    pthread_mutex_lock(&pool->lock);
    pool->leaving_threads--;
    if (pool->stopping && aiod_pool_all_left(pool)) {
        /* With the lock held, against the rule: once it is dropped, the stopping thread may free the pool. */
        pthread_cond_broadcast(&pool->all_left);
    }
    pthread_mutex_unlock(&pool->lock);
}

/* A flow waits for a rate, and the main loop's timer is set too late for it: the main loop must be woken. Lock held. */
bool aiod_pool_timer_is_late_for_rates(struct aiod_pool *pool)
{
    uint64_t wake_ns = aiod_fair_queue_next_release_ns(&pool->fair_queue);
    bool wants = wake_ns < pool->timer_at_ns;

    if (wants) {
        pool->timer_at_ns = wake_ns; /* the main loop will set the timer so */
    }
    return wants;
}

/* Lock held. */
static struct next next_of(const struct aiod_request *request)
{
    const struct aiod_lane *lane = request->lane;

    return (struct next){.request = request, .lane = lane, .waiting = lane != NULL ? lane->waiting : 0};
}

static bool must_exit(const struct aiod_pool *pool)
{
    return pool->stopping || pool->cur_threads > aiod_pool_threads_allowed(pool);
}

void aiod_pool_run_worker(struct aiod_pool *pool, struct aiod_worker *worker)
{
    struct finished finished = {0};
    bool stay = true;

    aiod_active_requests_set_worker(worker);
    pthread_mutex_lock(&pool->lock);
    while (stay && (finished.request != NULL || finished.unannounced > 0 || !must_exit(pool))) {
        struct aiod_worker *chosen[AIOD_WAKE_FAN_OUT];
        struct aiod_request *request;
        struct next next;
        unsigned wake;
        bool ring;

        if (must_exit(pool)) { /* deliver first, then check again: other workers may have exited meanwhile */
            pthread_mutex_unlock(&pool->lock);
            deliver(pool, &finished);
            pthread_mutex_lock(&pool->lock);
            continue;
        }
        request = may_take(pool) ? take_request(pool) : NULL;
        ring = aiod_pool_timer_is_late_for_rates(pool);
        if (request == NULL && ring) {
            pthread_mutex_unlock(&pool->lock);
            aiod_eventfd_ring(pool->doorbell_fd);
            pthread_mutex_lock(&pool->lock);
            continue;
        }
        if (request == NULL) {
            stay = wait_idle(pool, worker, &finished);
            continue;
        }
        wake = aiod_pool_choose_sleepers(pool, chosen, AIOD_WAKE_FAN_OUT);
        next = next_of(request);
        pthread_mutex_unlock(&pool->lock);
        deliver_before(pool, &finished, &next);
        aiod_pool_post_chosen(pool, chosen, wake);
        if (ring) {
            aiod_eventfd_ring(pool->doorbell_fd);
        }
        finished.request = execute(request);
        pthread_mutex_lock(&pool->lock);
        if (finished.request != NULL) {
            finished.lane = finished.request->lane;
            aiod_active_requests_remove(pool, finished.request);
        }
        aiod_active_requests_next_turn(pool, 0);
        aiod_fair_queue_update(&pool->fair_queue, pool->last_taken_ns);
    }
    aiod_pool_exit_worker(pool, worker);
}
