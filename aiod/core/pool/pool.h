/*
 * pool.h - the worker pool: a queue of requests, the worker threads, and the completed requests.
 *
 * Threads: submit, cancel, notify and the statistics may be called by any thread; take_group and finish by workers; all
 * other functions by the main loop's thread. No system call is made while the pool's lock is held.
 *
 * Algorithms: creation of threads in spawner.h, the order of the queue in fair_queue.h, slow requests in
 * active_requests.c.
 */
#ifndef AIOD_POOL_H
#define AIOD_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pool/rate.h"
#include "pool/request.h"
#include "util/histogram.h"

#define AIOD_THREADS_MAX 4096u
#define AIOD_POOL_NEVER UINT64_MAX
#define AIOD_GROUP_SCAN 256u /* limits the search of aiod_pool_take_group(), which holds the pool's lock */

/*
 * The number of workers that a new worker creates, and that a woken worker wakes, before its own work. With 1 they form
 * a chain in which each link pays a scheduling delay; with 2 they form a tree.
 */
#ifndef AIOD_SPAWN_FAN_OUT
#define AIOD_SPAWN_FAN_OUT 2u
#endif
#ifndef AIOD_WAKE_FAN_OUT
#define AIOD_WAKE_FAN_OUT 2u
#endif

struct aiod_pool;

struct aiod_pool_config {
    const char *name; /* the engine's; workers are named aiod-w/NAME/NUMBER, cut to the kernel's limit */
    unsigned max_threads;
    unsigned min_threads;
    uint64_t idle_timeout_ns;
    uint64_t spawn_retry_ns; /* without any thread, requests fail after this time */
};

/* Why a worker was created. */
enum aiod_spawn_cause {
    AIOD_SPAWN_BURST, /* requests were queued, or rings were to be polled, without a worker for that */
    AIOD_SPAWN_MIN,   /* there were fewer than min_threads */
    AIOD_SPAWN_RETRY, /* an earlier creation had failed */
    AIOD_SPAWN_CAUSES,
};

struct aiod_pool_stats {
    unsigned max_threads;
    unsigned stuck_threads; /* workers that have worked on the same request for slow_ns */
    unsigned min_threads;
    unsigned cur_threads;  /* idle + active + pending + new; without the thread that polls beyond max_threads */
    unsigned idle_threads; /* asleep + polling + waking, likewise */
    unsigned waking_threads;
    unsigned active_threads;
    unsigned new_threads;     /* the backlog: to be created */
    unsigned pending_threads; /* created, and not running yet */
    unsigned threads_peak;    /* running at the same time, without the backlog */
    size_t queued;
    size_t in_lanes; /* of those: they wait for the turn of their lane (lane.h) */
    uint64_t threads_created;
    uint64_t created_for[AIOD_SPAWN_CAUSES]; /* their sum is threads_created */
    unsigned longest_chain;                  /* longest chain of creations from the main loop to a new worker */
    uint64_t spawn_failures;
    unsigned uring_inflight; /* active requests that were started by io_uring */
    unsigned uring_failures; /* io_urings that could not be created */
    uint64_t uring_requests; /* that were given to an io_uring and have ended, including: */
    uint64_t uring_returned; /* those that a worker had to run */
    uint64_t lost_wakeups;   /* recoveries of a lost wake-up; expected 0 */
};

/* Create a pool, and start the creation of min_threads workers. 0, or -errno. */
int aiod_pool_create(struct aiod_pool **pool, const struct aiod_pool_config *config);

/* Free a stopped pool: aiod_pool_stop() returned true, and everything was reaped. */
void aiod_pool_destroy(struct aiod_pool *pool);

/* An eventfd, readable when aiod_pool_reap() returns something. */
int aiod_pool_completion_fd(const struct aiod_pool *pool);

/* An eventfd, readable when the main loop must call aiod_pool_spawn(), the spawner's bottom half. */
int aiod_pool_doorbell_fd(const struct aiod_pool *pool);

#define AIOD_POLLING_MAX 2u /* workers: a leader and a follower */

/* How idle workers poll for requests (polling.c). All functions: any thread, without a lock. */
struct aiod_idle_polling {
    /*
     * Become the leader if there is none. Called before the worker delivers the completion of its last request: the client
     * may submit at once, and finds a leader. True: the caller is the leader.
     */
    bool (*lead)(struct aiod_idle_polling *polling);
    /* Poll, as the leader or as the follower, until aiod_pool_recalls(), or until the caller is to take what it keeps. */
    void (*poll)(struct aiod_idle_polling *polling, bool leads);
    /* Have a polling worker wake when the eventfd `fd` is signalled, and call aiod_uring_pass_on(data). 0, or -errno. */
    int (*watch)(struct aiod_idle_polling *polling, int fd, void *data);
    /* Have one polling worker check aiod_pool_recalls(). */
    void (*wake)(struct aiod_idle_polling *polling);
    /* Wake the clients of the requests that the calling thread has ended with aiod_request.more_follow. */
    void (*announce)(void);
};

/* Set the polling functions, once, before the first request. Polling is off. */
void aiod_pool_set_polling(struct aiod_pool *pool, struct aiod_idle_polling *polling);

/*
 * Have idle workers poll from now on, and create the workers for it. Main loop's thread. 0, or -EAGAIN: there is no worker,
 * and none could be created.
 */
int aiod_pool_start_polling(struct aiod_pool *pool);

/* Have no worker poll any more, and wait until the last one has stopped. Main loop's thread. */
void aiod_pool_stop_polling(struct aiod_pool *pool);

/* Polling worker: must one of them stop polling, which can be the calling one? */
bool aiod_pool_recalls(const struct aiod_pool *pool);

/* Polling worker that was woken: must another one stop polling, because the calling one is bound? Then wake that one. */
bool aiod_pool_passes_recall(const struct aiod_pool *pool);

/* Polling worker: is the other one bound (uring.h)? The answer may be old. */
bool aiod_pool_other_is_bound(const struct aiod_pool *pool);

/*
 * Polling worker: has it submitted requests, of which it keeps one? Then it has to stop polling, or to hand the request
 * over. It keeps none if max_threads leave no room, or if no other worker polls on.
 */
bool aiod_pool_keeps_one(void);

/* Polling worker that keeps one: leave it to another worker, and poll on. */
void aiod_pool_hand_over_kept(struct aiod_pool *pool);

/*
 * Polling worker: the number of requests that it has started by io_uring (uring.h) and that have not ended. If it is not 0,
 * the worker is bound: it is not recalled, and keeps no request.
 */
unsigned aiod_uring_inflight(void);

/* Queue `count` requests, linked by `next` from `first`. aiod_pool_reap() returns each of them once. */
void aiod_pool_submit(struct aiod_pool *pool, struct aiod_request *first, size_t count);

/*
 * The same on a thread that is not the main loop's: rings the doorbell if the pool needs aiod_pool_tick() earlier than the
 * main loop's timer is set.
 */
void aiod_pool_submit_beside_main_loop(struct aiod_pool *pool, struct aiod_request *first, size_t count);

/* End a queued request with -ECANCELED; aiod_pool_reap() returns it. False: it was not queued any more. */
bool aiod_pool_cancel(struct aiod_pool *pool, struct aiod_request *request);

/*
 * For a worker that carries out the parked requests `mine` (linked by `next`) of `group`, which is not NULL: take the
 * other queued requests of the group, as parked requests, as far as their rates allow. A list linked by `next`; NULL if
 * there are none among the AIOD_GROUP_SCAN oldest requests.
 */
struct aiod_request *aiod_pool_take_group(struct aiod_pool *pool, const void *group, struct aiod_request *mine);

/*
 * For a worker: end a parked request with `result`; the caller has set its reason. The worker must be at work for the
 * pool, so that the pool outlives the call.
 */
void aiod_pool_finish(struct aiod_pool *pool, struct aiod_request *request, int64_t result);

/* Return `request`, which was never submitted, from aiod_pool_reap(): a notice to the main loop. Any thread. */
void aiod_pool_notify(struct aiod_pool *pool, struct aiod_request *request);

bool aiod_pool_deadline_passed(const struct aiod_request *request, uint64_t now_ns);

/*
 * Take all completed requests, linked by `next`, oldest first; NULL if there are none. Clears the completion eventfd.
 */
struct aiod_request *aiod_pool_reap(struct aiod_pool *pool);

/* For the main loop when the doorbell is readable: clear it, and create at most one worker. */
void aiod_pool_spawn(struct aiod_pool *pool);

/*
 * Timer work of the main loop: retry failed creations, end queued requests whose deadline has passed, release flows
 * whose rate is ready, and recover lost wake-ups. The time in ns until the next call, or AIOD_POOL_NEVER.
 */
uint64_t aiod_pool_tick(struct aiod_pool *pool);

/* The result of aiod_pool_tick(), without the work. */
uint64_t aiod_pool_tick_wanted(struct aiod_pool *pool);

/* Change the limits of `rate` (rate.h). */
void aiod_pool_set_rate(struct aiod_pool *pool, struct aiod_rate *rate, const struct aiod_rate_limits *limits);

/* Disable rate limiting for good: the daemon is stopping, and must not take long. */
void aiod_pool_disable_rates(struct aiod_pool *pool);

/*
 * Set how workers are shared among flows (fair_queue.h). The last `reserve_threads` workers, at most a sixteenth of
 * max_threads, are reserved for flows without active requests. While several flows submit, each has at most
 * `active_max` requests and about `active_bytes_max` bytes active. 0 turns a rule off, the initial state.
 */
void aiod_pool_set_shares(struct aiod_pool *pool, unsigned reserve_threads, unsigned active_max,
                          uint64_t active_bytes_max);

/*
 * Change the limits: 1 <= max <= AIOD_THREADS_MAX and min <= max, else -EINVAL. Surplus workers exit when they are idle
 * or finish a request.
 */
int aiod_pool_resize(struct aiod_pool *pool, unsigned max_threads, unsigned min_threads);

/*
 * Set when a worker is stuck: when it has worked on the same request for `slow_ns` (0: never). Up to
 * `stuck_threads_max` stuck workers do not count against max_threads. aiod_pool_find_slow() finds them.
 */
void aiod_pool_set_slow_limits(struct aiod_pool *pool, uint64_t slow_ns, unsigned stuck_threads_max);

/* An active request. Valid while the pool's lock is held. */
struct aiod_active_request {
    const struct aiod_request *request;
    uint64_t age_ns; /* since a worker took the request */
    pid_t tid;       /* of the worker that works on the request; 0: the request is parked or started */
    bool started;    /* by io_uring */
};

/*
 * Call `visit` for each active request, oldest first, until it returns false. `visit` is called with the pool's lock
 * held.
 */
void aiod_pool_visit_active(struct aiod_pool *pool,
                            bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument);

/*
 * The same for requests that have become slow since the last call, each once; a request for which `visit` returns false
 * is visited again. Also counts stuck workers, and adds replacements to the backlog.
 */
void aiod_pool_find_slow(struct aiod_pool *pool,
                         bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument);

void aiod_pool_get_stats(struct aiod_pool *pool, struct aiod_pool_stats *stats);

/* How a rate limits requests. */
struct aiod_throttling {
    unsigned waiting;      /* flows that wait for the rate now: of an export, the sessions that wait */
    uint64_t throttled_ns; /* the time in which at least one has waited */
};

struct aiod_throttling aiod_pool_get_throttling(struct aiod_pool *pool, const struct aiod_rate *rate);

/* Durations in ns from the decision to create a worker until it runs. */
void aiod_pool_get_spawn_latency(struct aiod_pool *pool, struct aiod_histogram *histogram);

/* Write the thread ids of living workers to `tids`, which has room for AIOD_THREADS_MAX. Their number. */
size_t aiod_pool_worker_tids(struct aiod_pool *pool, pid_t *tids);

/*
 * affinity.c: set the affinity of every living worker to that of the calling thread, the main loop's. The number of
 * changed workers, or -errno if one could not be changed. A worker that is being created may still get the old
 * affinity: call this again later.
 */
int aiod_pool_follow_affinity(struct aiod_pool *pool);

/*
 * affinity.c: the same for one thread, which must not end during the call. 1: changed; 0: it had this affinity; or
 * -errno.
 */
int aiod_affinity_follow(pid_t tid);

/*
 * Cancel the queued requests, let the workers exit, and wait for them up to `timeout_ns`. False: workers are still in
 * system calls, and the pool must not be freed. Nothing may be submitted afterwards.
 */
bool aiod_pool_stop(struct aiod_pool *pool, uint64_t timeout_ns);

#endif
