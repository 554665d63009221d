/*
 * pool_state.h - the pool's state, private to pool.c, worker.c, spawner.c, active_requests.c, worker_slots.c and affinity.c.
 *
 * Lock order: pool->lock is the only lock, held for a few dozen instructions, never over a system call. What has to be
 * woken is chosen under it and woken after it.
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
 * A worker's place. Places are never freed before the pool, so that posting `wake` after the lock was dropped is safe even
 * if its worker has already left.
 */
struct aiod_worker {
    sem_t wake; /* posted exactly once by whoever set `chosen` */

    /* Constant from the decision to create the worker on. */
    struct aiod_pool *pool;
    uint64_t requested_ns;
    enum aiod_spawn_cause cause;
    unsigned links; /* creations in a row from the main loop to this worker */

    /* Protected by the pool's lock. */
    bool chosen;               /* moved from asleep to waking; a post of `wake` is on its way */
    pid_t tid;                 /* 0: not born yet */
    struct aiod_worker *below; /* the stack of sleepers, most recently used on top */
    struct aiod_worker *above;
    uint64_t turn;     /* counts what it has had in hand, in this place */
    uint64_t since_ns; /* since when it has had the same in hand; 0: nothing */
    bool stuck;        /* for so long that it is counted in stuck_threads */
};

/* A worker that is owed: since when, and why. */
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

    pthread_mutex_t lock;

    /* Protected by lock: the queue. */
    struct aiod_request *queue_first;
    struct aiod_request *queue_last;
    size_t queued;
    struct aiod_fair_queue fair_queue; /* the same requests, by whose they are */
    unsigned reserve_wanted;
    unsigned reserve_threads;   /* as many of them as max_threads has room for */
    struct aiod_heap deadlines; /* the same requests, by their deadlines, if they have one */
    uint64_t last_taken_ns;
    uint64_t timer_at_ns; /* what the main loop was told last about aiod_pool_tick(); AIOD_POOL_NEVER */
    bool stopping;

    /* Protected by lock: the workers. cur == asleep + waking + active + pending + new. */
    unsigned max_threads;
    unsigned limit_threads; /* max_threads, and what stuck workers add to it */
    unsigned min_threads;
    unsigned cur_threads;
    unsigned asleep_threads;
    unsigned waking_threads;
    unsigned active_threads;
    unsigned new_threads;
    unsigned pending_threads;
    struct aiod_worker *sleepers;
    pthread_cond_t all_left;
    const struct aiod_worker *moving; /* its affinity is being set: it must not leave */
    pthread_cond_t moved;

    /* Protected by lock: the requests in service, oldest first, and the workers that are stuck with theirs. */
    struct aiod_request *active_first;
    struct aiod_request *active_last;
    uint64_t slow_ns; /* 0: nothing is ever slow */
    unsigned stuck_threads;
    unsigned stuck_threads_max;

    /* Protected by lock: the owed, a ring of new_threads entries, oldest first. */
    struct aiod_spawn_backlog backlog[AIOD_THREADS_MAX];
    size_t backlog_first;

    /* Protected by lock: creation that failed. */
    uint64_t retry_at_ns; /* 0: creation is not known to fail */
    uint64_t retry_backoff_ns;

    /* Protected by lock: counters. */
    unsigned threads_peak;
    uint64_t threads_created;
    uint64_t created_for[AIOD_SPAWN_CAUSES];
    unsigned longest_chain;
    uint64_t spawn_failures;
    uint64_t lost_wakeups;
    struct aiod_histogram spawn_latency;

    /* Protected by lock: a bit for each place in use. */
    uint64_t used_slots[AIOD_SLOT_WORDS];
    struct aiod_worker workers[AIOD_THREADS_MAX];
};

/* worker_slots.c: the lowest free place, so that numbers in thread names stay small. Lock held; there is one, cur being <= max. */
struct aiod_worker *aiod_worker_slots_take(struct aiod_pool *pool);

/* worker_slots.c: give it back. Lock held. */
void aiod_worker_slots_release(struct aiod_pool *pool, const struct aiod_worker *worker);

/* worker_slots.c: the first place in use from number `from` on; NULL: none. Lock held. */
struct aiod_worker *aiod_worker_slots_next(struct aiod_pool *pool, size_t from);

/* spawner.c: owe the workers that the queue and min_threads need. Lock held. True: the doorbell has to be rung. */
bool aiod_spawner_add_backlog(struct aiod_pool *pool);

/*
 * spawner.c: create one owed worker, if any; `creator` is the calling newborn, NULL the main loop. Lock not held. False:
 * none was owed, or creation failed.
 */
bool aiod_spawner_step(struct aiod_pool *pool, const struct aiod_worker *creator);

/* spawner.c: creation is retried when its time has come. Lock not held. */
void aiod_spawner_retry(struct aiod_pool *pool, uint64_t now_ns);

/* active_requests.c: the calling thread is this worker. Lock not held. */
void aiod_active_requests_set_worker(struct aiod_worker *worker);

/* active_requests.c: the calling worker has something else in hand from now on; `now_ns` 0: nothing. Lock held. */
void aiod_active_requests_next_turn(struct aiod_pool *pool, uint64_t now_ns);

/* active_requests.c: the calling worker has it in hand for this turn, too; it is in service already. Lock held. */
void aiod_active_requests_assign(struct aiod_request *request);

/* active_requests.c: a request that the calling worker has taken is in service, its begun_ns being set; and no more. Lock held. */
void aiod_active_requests_add(struct aiod_pool *pool, struct aiod_request *request);
void aiod_active_requests_remove(struct aiod_pool *pool, struct aiod_request *request);

/* active_requests.c: limit_threads by max_threads and by who is stuck. Lock held. */
void aiod_pool_set_limit(struct aiod_pool *pool);

/* pool.c: how many queued requests a worker may take while `others` are at work or waking. Lock held. */
size_t aiod_pool_takeable(const struct aiod_pool *pool, unsigned others);

/* pool.c: take a queued request off the queue; it is active then. Lock held. */
void aiod_pool_unlink(struct aiod_pool *pool, struct aiod_request *request);

/* pool.c: hand a finished request to the reaper. Lock not held. */
void aiod_pool_push_done(struct aiod_pool *pool, struct aiod_request *request);

/* affinity.c: wait until `worker` is not being moved. Lock held on entry and return. */
void aiod_affinity_settled(struct aiod_pool *pool, const struct aiod_worker *worker);

/* worker.c: the most recently used sleeper moves from asleep to waking; there is one. Lock held. */
struct aiod_worker *aiod_pool_choose_sleeper(struct aiod_pool *pool);

/* worker.c: choose up to `limit` sleepers, no more than there are requests that no waking worker will take. Lock held. */
unsigned aiod_pool_choose_sleepers(struct aiod_pool *pool, struct aiod_worker **chosen, unsigned limit);

/* worker.c: wake whom was chosen. Lock not held. */
void aiod_pool_post_chosen(struct aiod_worker **chosen, unsigned count);

/* worker.c: a newborn's life, from birth to its end; called by the spawner's start routine. */
void aiod_pool_work(struct aiod_pool *pool, struct aiod_worker *worker);

/* worker.c: the calling worker leaves. Lock held on entry, dropped on return; the pool may be gone afterwards. */
void aiod_pool_leave(struct aiod_pool *pool, struct aiod_worker *worker);

#endif
