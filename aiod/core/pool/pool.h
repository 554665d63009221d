/*
 * pool.h - the worker pool: a queue, its workers, and what they have completed.
 *
 * Who may call what: submit, cancel, stats from any thread; create, destroy, reap, spawn, tick, resize, stop from the main
 * loop's thread. No system call is made while the pool's lock is held.
 */
#ifndef AIOD_POOL_H
#define AIOD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/histogram.h"
#include "pool/rate.h"
#include "pool/request.h"

#define AIOD_THREADS_MAX 4096u
#define AIOD_POOL_NEVER UINT64_MAX
#define AIOD_GROUP_SCAN 256u /* how far aiod_pool_take_group() looks: the pool's lock is held meanwhile */

/*
 * How many workers a newborn creates, and a woken worker wakes, before its own work. One makes a chain whose every link
 * pays a scheduling delay; two makes it a tree.
 */
#ifndef AIOD_SPAWN_FAN_OUT
#define AIOD_SPAWN_FAN_OUT 2u
#endif
#ifndef AIOD_WAKE_FAN_OUT
#define AIOD_WAKE_FAN_OUT 2u
#endif

struct aiod_pool;

struct aiod_pool_config {
    const char *name; /* of the engine; workers are named aiod-w/NAME/NUMBER, shortened to what the kernel keeps */
    unsigned max_threads;
    unsigned min_threads;
    uint64_t idle_timeout_ns;
    uint64_t spawn_retry_ns; /* with no thread at all, requests fail after this */
};

/* Why a worker was created. */
enum aiod_spawn_cause {
    AIOD_SPAWN_BURST, /* requests waited for which there was no worker */
    AIOD_SPAWN_MIN,   /* there were fewer than min_threads */
    AIOD_SPAWN_RETRY, /* an earlier creation had failed */
    AIOD_SPAWN_CAUSES,
};

struct aiod_pool_stats {
    unsigned max_threads;
    unsigned stuck_threads; /* workers that have had the same in hand for slow_ns */
    unsigned min_threads;
    unsigned cur_threads;  /* asleep + waking + active + pending + new */
    unsigned idle_threads; /* asleep + waking */
    unsigned waking_threads;
    unsigned active_threads;
    unsigned new_threads;     /* owed, not created yet */
    unsigned pending_threads; /* created, not running yet */
    unsigned threads_peak;    /* running at once; what was only owed does not count */
    size_t queued;
    uint64_t threads_created;
    uint64_t created_for[AIOD_SPAWN_CAUSES]; /* their sum is threads_created */
    unsigned longest_chain;                  /* most creations in a row from the main loop to a newborn */
    uint64_t spawn_failures;
    uint64_t lost_wakeups; /* requests found waiting beside a sleeper by the belt; expected 0 */
};

/* Make a pool and, through the spawner, its min_threads. 0, or -errno. */
int aiod_pool_create(struct aiod_pool **pool, const struct aiod_pool_config *config);

/* Free a stopped pool: aiod_pool_stop() must have returned true, and everything been reaped. */
void aiod_pool_destroy(struct aiod_pool *pool);

/* eventfd, readable when aiod_pool_reap() has something. */
int aiod_pool_completion_fd(const struct aiod_pool *pool);

/* eventfd, readable when aiod_pool_spawn() is wanted: the spawner's bottom half. */
int aiod_pool_doorbell_fd(const struct aiod_pool *pool);

/* Queue `count` requests, linked by `next` from `first`. They come back from aiod_pool_reap(), each once. */
void aiod_pool_submit(struct aiod_pool *pool, struct aiod_request *first, size_t count);

/* End a queued request with -ECANCELED; it comes back from aiod_pool_reap(). False: it was no longer queued. */
bool aiod_pool_cancel(struct aiod_pool *pool, struct aiod_request *request);

/*
 * On a worker that carries out the parked requests `mine`, linked by `next`, of `group` (not NULL): take the group's other
 * requests off the queue, as parked ones, as far as their rates let them pass. Linked by `next`, NULL when there are none among
 * the AIOD_GROUP_SCAN oldest.
 */
struct aiod_request *aiod_pool_take_group(struct aiod_pool *pool, const void *group, struct aiod_request *mine);

/*
 * On a worker: end the parked request `request` with `result`, its reason having been set. The worker must be at work for
 * the pool meanwhile, so that the pool outlives the call.
 */
void aiod_pool_finish(struct aiod_pool *pool, struct aiod_request *request, int64_t result);

/* Hand `request`, that was never submitted, to the reaper: word of something else that has ended. Any thread. */
void aiod_pool_notify(struct aiod_pool *pool, struct aiod_request *request);

bool aiod_pool_deadline_passed(const struct aiod_request *request, uint64_t now_ns);

/* Take all that is done, linked by `next`, oldest first; NULL when there is none. Clears the completion eventfd. */
struct aiod_request *aiod_pool_reap(struct aiod_pool *pool);

/* The main loop's answer to the doorbell: clears it, and creates at most one worker. */
void aiod_pool_spawn(struct aiod_pool *pool);

/*
 * Timer work of the main loop: retries failed creations, ends requests whose deadline passed in the queue, and wakes a
 * sleeper when requests wait and nothing was taken for 5 ms. Returns ns until it wants to be called again, or
 * AIOD_POOL_NEVER.
 */
uint64_t aiod_pool_tick(struct aiod_pool *pool);

/*
 * After aiod_pool_submit() on another thread than the main loop's: ring the doorbell if the pool wants aiod_pool_tick() before
 * the time that the main loop was told last.
 */
void aiod_pool_want_timer(struct aiod_pool *pool);

/* What aiod_pool_tick() would return, doing nothing. */
uint64_t aiod_pool_tick_wanted(struct aiod_pool *pool);

/* Give `rate` (rate.h) other limits. */
void aiod_pool_set_rate(struct aiod_pool *pool, struct aiod_rate *rate, const struct aiod_rate_limits *limits);

/* Rates are not heeded any more: the daemon is to stop in time. */
void aiod_pool_disable_rates(struct aiod_pool *pool);

/*
 * How workers are shared among flows (fair_queue.h): the last `reserve_threads` of them (a sixteenth of max_threads at most) are for
 * flows with nothing in service; while more than one asks, a flow has at most `active_max` requests and about
 * `active_bytes_max` bytes in service. 0: no such rule, as at first.
 */
void aiod_pool_share(struct aiod_pool *pool, unsigned reserve_threads, unsigned active_max, uint64_t active_bytes_max);

/* Change the limits: 1 <= max <= AIOD_THREADS_MAX, min <= max, else -EINVAL. Surplus workers leave when next idle or done. */
int aiod_pool_resize(struct aiod_pool *pool, unsigned max_threads, unsigned min_threads);

/*
 * A worker that has had the same in hand for `slow_ns` (0: none ever) is stuck; as many as are stuck, at most
 * `stuck_threads_max`, may be there beyond max_threads. They are counted by aiod_pool_find_slow().
 */
void aiod_pool_watch(struct aiod_pool *pool, uint64_t slow_ns, unsigned stuck_threads_max);

/* A request in service, as long as the pool's lock is held. */
struct aiod_active_request {
    const struct aiod_request *request;
    uint64_t age_ns; /* since a worker took it */
    pid_t tid;       /* of the worker that has it in hand; 0: it is parked */
};

/* Show every request in service, oldest first, until `visit` returns false. It is called with the pool's lock held. */
void aiod_pool_visit_active(struct aiod_pool *pool,
                            bool (*visit)(const struct aiod_active_request *sight, void *argument), void *argument);

/*
 * Show those that have become slow since the last call, alike; each once (what `visit` returns false for comes again). Workers
 * that are stuck are replaced.
 */
void aiod_pool_find_slow(struct aiod_pool *pool, bool (*visit)(const struct aiod_active_request *sight, void *argument),
                         void *argument);

void aiod_pool_get_stats(struct aiod_pool *pool, struct aiod_pool_stats *stats);

/* ns from the moment that a worker was owed until it ran. */
void aiod_pool_get_spawn_latency(struct aiod_pool *pool, struct aiod_histogram *histogram);

/* Thread ids of living workers into `tids` (room for AIOD_THREADS_MAX); returns how many. */
size_t aiod_pool_worker_tids(struct aiod_pool *pool, pid_t *tids);

/*
 * affinity.c: give every living worker the calling thread's affinity. Returns how many had another, or -errno when one could
 * not be moved. Main loop's thread. A newborn on its way may have the old one still: call it again later.
 */
int aiod_pool_follow(struct aiod_pool *pool);

/* affinity.c: the same for one thread that will not end meanwhile. 1: moved; 0: it was there already; or -errno. */
int aiod_affinity_move(pid_t tid);

/*
 * Cancel what is queued, send the workers home and wait for them up to `timeout_ns`. False: some are still at work, the
 * pool must stay. Nothing may be submitted afterwards.
 */
bool aiod_pool_stop(struct aiod_pool *pool, uint64_t timeout_ns);

#endif
