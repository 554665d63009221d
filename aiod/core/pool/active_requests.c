/*
 * active_requests.c - the list of active requests, and the detection of slow requests and stuck workers.
 *
 * A request is active from the moment a worker takes it until it ends, also while it is parked. It is added to the list
 * under the pool's lock, and removed before its completion is delivered: a thread that holds the lock may therefore
 * read every request on the list.
 *
 * A worker is stuck when it has worked on the same request for slow_ns, for example on a dead network file system or on
 * a disk in error recovery. Up to stuck_threads_max stuck workers do not count against max_threads, so that
 * replacements can be created. When a stuck worker returns, one worker exits, as after a shrink. A slow request no
 * longer counts against its flow either; otherwise it would hold back the other requests of the flow.
 */
#include "pool/pool_state.h"
#include "util/os.h"
#include "util/probes.h"

static _Thread_local struct aiod_worker *calling_worker; /* NULL on threads that are no workers */

void aiod_active_requests_set_worker(struct aiod_worker *worker)
{
    calling_worker = worker;
}

/* ---- lock held --------------------------------------------------------------------------------------------------- */

void aiod_pool_set_limit(struct aiod_pool *pool)
{
    unsigned room = AIOD_THREADS_MAX - pool->max_threads;
    unsigned more = pool->stuck_threads < pool->stuck_threads_max ? pool->stuck_threads : pool->stuck_threads_max;

    pool->limit_threads = pool->max_threads + (more < room ? more : room);
}

/* `worker` starts to work on something else; `now_ns` is 0 if it has nothing. */
static void turn(struct aiod_pool *pool, struct aiod_worker *worker, uint64_t now_ns)
{
    worker->turn++;
    worker->since_ns = now_ns;
    if (worker->stuck) {
        worker->stuck = false;
        pool->stuck_threads--;
        aiod_pool_set_limit(pool);
    }
}

void aiod_active_requests_next_turn(struct aiod_pool *pool, uint64_t now_ns)
{
    if (calling_worker != NULL) {
        turn(pool, calling_worker, now_ns);
    }
}

void aiod_active_requests_assign(struct aiod_request *request)
{
    request->worker = calling_worker;
    request->turn = calling_worker != NULL ? calling_worker->turn : 0;
    request->tid = calling_worker != NULL ? calling_worker->tid : 0;
}

void aiod_active_requests_add(struct aiod_pool *pool, struct aiod_request *request)
{
    aiod_fair_queue_started(&pool->fair_queue, request);
    request->slow = request->started = false;
    request->active_next = NULL;
    request->active_previous = pool->active_last;
    if (pool->active_last != NULL) {
        pool->active_last->active_next = request;
    } else {
        pool->active_first = request;
    }
    pool->active_last = request;
    aiod_active_requests_assign(request);
    AIOD_PROBE4(request_start, request, pool->name, request->begun_ns - request->queued_ns, request->cookie);
}

void aiod_active_requests_remove(struct aiod_pool *pool, struct aiod_request *request)
{
    if (request->started) {
        *(request->slow ? &pool->started_slow : &pool->started) -= 1;
    }
    if (request->slow) {
        aiod_fair_queue_slow_done(&pool->fair_queue, request);
    } else {
        aiod_fair_queue_done(&pool->fair_queue, request);
    }
    aiod_fair_queue_leave_lane(&pool->fair_queue, request);
    if (request->active_previous != NULL) {
        request->active_previous->active_next = request->active_next;
    } else {
        pool->active_first = request->active_next;
    }
    if (request->active_next != NULL) {
        request->active_next->active_previous = request->active_previous;
    } else {
        pool->active_last = request->active_previous;
    }
}

void aiod_active_requests_add_started(struct aiod_pool *pool, struct aiod_request *request)
{
    aiod_active_requests_add(pool, request);
    request->worker = NULL;
    request->started = true;
    pool->started++;
}

/* The thread that works on the request; 0 if it is parked. */
static pid_t tid_of(const struct aiod_request *request)
{
    return request->worker != NULL && request->worker->turn == request->turn ? request->worker->tid : 0;
}

static struct aiod_active_request describe(const struct aiod_request *request, uint64_t now_ns)
{
    return (struct aiod_active_request){
        .request = request,
        .age_ns = now_ns > request->begun_ns ? now_ns - request->begun_ns : 0,
        .tid = tid_of(request),
        .started = request->started,
    };
}

static void find_stuck_workers(struct aiod_pool *pool, uint64_t now_ns)
{
    struct aiod_worker *worker;

    for (size_t from = 0; (worker = aiod_worker_slots_next(pool, from)) != NULL;
         from = (size_t)(worker - pool->workers) + 1) {
        if (!worker->stuck && worker->since_ns != 0 && worker->since_ns + pool->slow_ns <= now_ns) {
            worker->stuck = true;
            pool->stuck_threads++;
            AIOD_PROBE3(stuck, pool->name, (int)worker->tid, now_ns - worker->since_ns);
        }
    }
    aiod_pool_set_limit(pool);
}

/* ---- for the main loop ------------------------------------------------------------------------------------------- */

void aiod_pool_visit_active(struct aiod_pool *pool,
                            bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument)
{
    uint64_t now_ns = aiod_now_ns();
    const struct aiod_request *request;
    bool more = true;

    pthread_mutex_lock(&pool->lock);
    for (request = pool->active_first; request != NULL && more; request = request->active_next) {
        struct aiod_active_request active = describe(request, now_ns);

        more = visit(&active, argument);
    }
    pthread_mutex_unlock(&pool->lock);
}

void aiod_pool_find_slow(struct aiod_pool *pool,
                         bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_worker *chosen[1];
    struct aiod_request *request;
    unsigned wake;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    if (pool->slow_ns == 0) {
        pthread_mutex_unlock(&pool->lock);
        return;
    }
    for (request = pool->active_first; request != NULL; request = request->active_next) {
        struct aiod_active_request active = describe(request, now_ns);

        if (active.age_ns < pool->slow_ns || (!request->slow && !visit(&active, argument))) {
            break;
        }
        if (!request->slow) {
            request->slow = true;
            aiod_fair_queue_mark_slow(&pool->fair_queue, request);
            pool->started -= request->started;
            pool->started_slow += request->started;
        }
    }
    find_stuck_workers(pool, now_ns);
    ring = aiod_spawner_add_backlog(pool);
    wake = aiod_pool_choose_sleepers(pool, chosen, 1);
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}
