/*
 * pool_state.h - the pool's state, private to pool.c, worker.c, spawner.c, active_requests.c, worker_slots.c, polling.c,
 * uring.c and affinity.c.
 *
 * Lock order: pool->lock is the only lock. It is held for a few dozen instructions, never over a system call: wake-ups
 * are decided under the lock and sent after it was dropped.
 */
#ifndef AIOD_POOL_STATE_H
#define AIOD_POOL_STATE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "pool/fair_queue.h"
#include "pool/pool.h"

/*
 * A worker's slot. Slots are freed with the pool only, so posting `wake` after the lock was dropped is safe even if the
 * worker has exited.
 */
struct aiod_worker {
    sem_t wake; /* posted exactly once by the thread that set `chosen` */

    /* Constant from the decision to create the worker. */
    struct aiod_pool *pool;
    uint64_t requested_ns;
    enum aiod_spawn_cause cause;
    unsigned links; /* length of the chain of creations from the main loop to this worker */

    /* Protected by the pool's lock. */
    bool chosen;               /* moved from asleep to waking; a post of `wake` follows */
    pid_t tid;                 /* 0: not running yet */
    struct aiod_worker *below; /* neighbours in the stack of sleepers, most recently used on top */
    struct aiod_worker *above;
    uint64_t turn;     /* counts the requests, or groups of requests, that this slot's workers worked on */
    uint64_t since_ns; /* the start of the current turn; 0: no request */
    bool stuck;        /* counted in stuck_threads */
};

#define AIOD_URINGS_MAX 8u /* each has two descriptors */

/* What outlives the worker that has an io_uring. Freed with the pool only. */
struct aiod_uring_slot {
    int event_fd;       /* signalled by completions; watched by all polling workers */
    bool has_event_fd;  /* used by the worker alone, as event_fd, until it has passed it to `watch` */
    atomic_bool sleeps; /* the worker has to be woken by event_fd */

    /* Protected by the pool's lock. */
    bool used;
};

/* A worker to be created: since when, and why. */
struct aiod_spawn_backlog {
    uint64_t since_ns;
    enum aiod_spawn_cause cause;
};

#define AIOD_SLOT_WORDS (AIOD_THREADS_MAX / 64u)

struct aiod_pool {
    /* Constant after creation. */
    char name[16];
    int completion_fd;
    int doorbell_fd;
    uint64_t idle_timeout_ns;
    uint64_t spawn_retry_ns;
    pthread_attr_t thread_attr;

    /* Pushed by workers, taken whole by the reaper. */
    _Atomic(struct aiod_request *) done;
    atomic_bool announced; /* completion_fd was rung after the reaper's last look */

    pthread_mutex_t lock;

    /* Protected by lock: the queue. */
    struct aiod_request *queue_first;
    struct aiod_request *queue_last;
    size_t queued;
    struct aiod_fair_queue fair_queue; /* the same requests, by flow */
    size_t startable;                  /* of the queued requests: those with aiod_request.uring */
    unsigned started;                  /* active requests in io_urings (uring.h), without slow ones */
    unsigned started_slow;
    unsigned reserve_wanted;
    unsigned reserve_threads;   /* reserve_wanted, limited by max_threads */
    struct aiod_heap deadlines; /* the same requests, by deadline; without those that have none */
    uint64_t last_taken_ns;
    uint64_t timer_at_ns; /* the main loop's timer is set for this time, or it was woken to set it; AIOD_POOL_NEVER */
    bool stopping;

    /* Protected by lock: the workers. cur == asleep + polling + waking + active + pending + new. */
    unsigned max_threads;
    unsigned limit_threads; /* max_threads, plus room for stuck workers */
    unsigned min_threads;
    unsigned cur_threads;
    unsigned asleep_threads;
    unsigned waking_threads;
    unsigned active_threads;
    unsigned new_threads;
    unsigned pending_threads;
    unsigned leaving_threads; /* not in cur_threads any more: they use the pool for the last time */
    struct aiod_worker *sleepers;
    pthread_cond_t all_left;

    /* Polling workers (polling.c). `polling` is constant; lock protects the others. */
    struct aiod_idle_polling *polling;
    bool polling_on;
    unsigned polling_threads; /* neither recalled nor about to take a request that they keep */
    unsigned polling_users;   /* threads that use `polling` */
    /* polling workers with requests in their io_uring: they are not recalled; written under lock, read without it */
    atomic_uint bound_threads;
    unsigned recalls;             /* of the waking threads: polling workers that are recalled */
    atomic_bool polling_ends;     /* likewise: bound workers stop polling as well */
    atomic_bool polling_recalled; /* written under lock, read without it */
    pthread_cond_t polling_ended; /* polling_users is 0 */

    /* io_urings (uring.c) */
    atomic_bool uring_wanted;
    struct aiod_uring_slot uring_slots[AIOD_URINGS_MAX];
    unsigned uring_failures; /* protected by lock, as the following */
    uint64_t uring_requests;
    uint64_t uring_returned;

    const struct aiod_worker *moving; /* its affinity is being set: it must not exit */
    pthread_cond_t moved;

    /* Protected by lock: the active requests, oldest first, and the stuck workers. */
    struct aiod_request *active_first;
    struct aiod_request *active_last;
    uint64_t slow_ns; /* 0: no request is slow */
    unsigned stuck_threads;
    unsigned stuck_threads_max;

    /* Protected by lock: the backlog of workers, a ring of new_threads entries, oldest first. */
    struct aiod_spawn_backlog backlog[AIOD_THREADS_MAX];
    size_t backlog_first;

    /* Protected by lock: failed creation. */
    uint64_t retry_at_ns; /* 0: the last creation succeeded */
    uint64_t retry_backoff_ns;

    /* Protected by lock: counters. */
    unsigned threads_peak;
    uint64_t threads_created;
    uint64_t created_for[AIOD_SPAWN_CAUSES];
    unsigned longest_chain;
    uint64_t spawn_failures;
    uint64_t lost_wakeups;
    struct aiod_histogram spawn_latency;

    /* Protected by lock: a bit for each slot in use. */
    uint64_t used_slots[AIOD_SLOT_WORDS];
    struct aiod_worker workers[AIOD_THREADS_MAX];
};

/*
 * worker_slots.c: take the lowest free slot, so that the numbers in thread names stay small. There is one, because cur
 * <= max. Lock held.
 */
struct aiod_worker *aiod_worker_slots_take(struct aiod_pool *pool);

/* worker_slots.c: free a slot. Lock held. */
void aiod_worker_slots_release(struct aiod_pool *pool, const struct aiod_worker *worker);

/* worker_slots.c: the first slot in use whose number is at least `from`; NULL if there is none. Lock held. */
struct aiod_worker *aiod_worker_slots_next(struct aiod_pool *pool, size_t from);

/*
 * spawner.c: add the workers that the queue and min_threads need to the backlog. Lock held. True: the caller must ring
 * the doorbell after it dropped the lock.
 */
bool aiod_spawner_add_backlog(struct aiod_pool *pool);

/*
 * spawner.c: create one worker of the backlog, if there is one. `creator` is the calling new worker, NULL for the main
 * loop. Lock not held. False: the backlog was empty, or creation failed.
 */
bool aiod_spawner_step(struct aiod_pool *pool, const struct aiod_worker *creator);

/* spawner.c: retry creation if the back-off has passed. Lock not held. */
void aiod_spawner_retry(struct aiod_pool *pool, uint64_t now_ns);

/* active_requests.c: the calling thread is this worker. Lock not held. */
void aiod_active_requests_set_worker(struct aiod_worker *worker);

/* active_requests.c: the calling worker starts a new turn; `now_ns` is 0 if it has no request. Lock held. */
void aiod_active_requests_next_turn(struct aiod_pool *pool, uint64_t now_ns);

/* active_requests.c: the calling worker works on this active request in its current turn. Lock held. */
void aiod_active_requests_assign(struct aiod_request *request);

/*
 * active_requests.c: a request that the calling worker took becomes active, its begun_ns being set; it ends. Lock held.
 */
void aiod_active_requests_add(struct aiod_pool *pool, struct aiod_request *request);
void aiod_active_requests_add_started(struct aiod_pool *pool, struct aiod_request *request); /* by io_uring */
void aiod_active_requests_remove(struct aiod_pool *pool, struct aiod_request *request);

/* active_requests.c: compute limit_threads from max_threads and the number of stuck workers. Lock held. */
void aiod_pool_set_limit(struct aiod_pool *pool);

/*
 * pool.c: the number of queued requests that a worker may take while `others` workers are active or waking. Lock held.
 */
size_t aiod_pool_takeable(const struct aiod_pool *pool, unsigned others);

/*
 * pool.c: is the next worker, or request to be started, reserved for flows without active requests? `more` are taken beside
 * the active workers and the started requests. Lock held.
 */
bool aiod_pool_only_fresh(const struct aiod_pool *pool, unsigned more);

/* pool.c: append a request to the queue. Lock held. */
void aiod_pool_enqueue(struct aiod_pool *pool, struct aiod_request *request);

/* pool.c: remove a request from the queue, and make it active. Lock held. */
void aiod_pool_unlink(struct aiod_pool *pool, struct aiod_request *request);

/* pool.c: deliver a finished request. Lock not held. */
void aiod_pool_push_done(struct aiod_pool *pool, struct aiod_request *request);

/*
 * pool.c: the first half of that. True: the request is on the done list, and the caller must call aiod_pool_announce(), for
 * this request or for one that it delivers later.
 */
bool aiod_pool_push_unannounced(struct aiod_pool *pool, struct aiod_request *request);

/* pool.c: have the reaper take the done list. Lock not held. */
void aiod_pool_announce(struct aiod_pool *pool);

/* affinity.c: wait until the affinity of `worker` is not being set. Lock held on entry and return. */
void aiod_affinity_wait_settled(struct aiod_pool *pool, const struct aiod_worker *worker);

/* polling.c: the number of threads that may exist: limit_threads, and one more while polling is on. Lock held. */
unsigned aiod_pool_threads_allowed(const struct aiod_pool *pool);

/* polling.c: the number of threads that must exist: min_threads, and those that poll. Lock held. */
unsigned aiod_pool_threads_wanted(const struct aiod_pool *pool);

/* polling.c: is there a worker to be chosen? The last polling worker is none. Lock held. */
bool aiod_pool_has_idle(const struct aiod_pool *pool);

/* polling.c: may one more idle worker poll? Lock held. */
bool aiod_polling_has_room(const struct aiod_pool *pool);

/* polling.c: move a polling worker to waking; there is one. Lock held; the caller calls `polling->wake` after that. */
void aiod_polling_recall_one(struct aiod_pool *pool);

/* polling.c: the calling thread has queued requests. If it is a polling worker, it keeps one. Lock held. */
void aiod_polling_submitted(struct aiod_pool *pool);

/* polling.c: may the calling worker start requests? `bound`: it has some. Lock held. */
bool aiod_polling_may_bind(const struct aiod_pool *pool, bool bound);

/* polling.c: the number of polling workers that can be recalled. Lock held. */
unsigned aiod_polling_recallable(const struct aiod_pool *pool);

/* polling.c: the calling worker, which no count includes now, starts to poll. Lock held. */
void aiod_polling_enter(struct aiod_pool *pool);

/* polling.c: must the calling worker stop polling, or has another one answered the recall? Lock held. */
bool aiod_polling_must_stop(struct aiod_pool *pool);

/* polling.c: the calling worker has stopped polling; no count includes it now. True: others are recalled. Lock held. */
bool aiod_polling_leave(struct aiod_pool *pool);

/* uring.c: take the queued requests that can be started, if the calling thread polls and has an io_uring. Lock held. */
void aiod_uring_take(struct aiod_pool *pool);

/* uring.c: the calling worker has stopped polling: wait until it is not bound. Lock not held. */
void aiod_uring_drain(struct aiod_pool *pool);

/* uring.c: the calling worker, which is not bound, exits. Lock not held. */
void aiod_uring_exit(struct aiod_pool *pool);

/* uring.c: the pool is being destroyed. */
void aiod_uring_destroy_slots(struct aiod_pool *pool);

/* worker.c: move the most recently used sleeper, or else a polling worker (NULL), to waking; there is one. Lock held. */
struct aiod_worker *aiod_pool_choose_sleeper(struct aiod_pool *pool);

/* worker.c: choose up to `limit` sleepers, but not more than there are requests without a waking worker. Lock held. */
unsigned aiod_pool_choose_sleepers(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned limit);

/*
 * worker.c: a flow waits for a rate, and the main loop's timer is set too late for it: the main loop must be woken. Lock
 * held.
 */
bool aiod_pool_timer_is_late_for_rates(struct aiod_pool *pool);

/*
 * pool.c: is the main loop's timer set too late for anything that the pool waits for? Then the caller must ring the doorbell
 * after it dropped the lock. Lock held.
 */
bool aiod_pool_timer_is_late(struct aiod_pool *pool, uint64_t now_ns);

/* worker.c: wake the chosen workers. Lock not held. */
void aiod_pool_post_chosen(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned count);

/* worker.c: the life of a worker, called by the spawner's start routine. */
void aiod_pool_run_worker(struct aiod_pool *pool, struct aiod_worker *worker);

/* pool.c: no worker uses the pool any more. Lock held. */
bool aiod_pool_all_left(const struct aiod_pool *pool);

/* worker.c: the calling worker exits. Lock held on entry, dropped on return; the pool may be freed afterwards. */
void aiod_pool_exit_worker(struct aiod_pool *pool, struct aiod_worker *worker);

#endif
