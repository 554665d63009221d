/*
 * check.h - what the core's tests share: checks, faults, gates, and a main loop.
 */
#ifndef CHECK_H
#define CHECK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/os.h"
#include "pool/pool.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define WAIT_MS 30000u /* how long a condition may take to come true; only a failing test waits so long */

/* ---- gates: instead of time ------------------------------------------------------------------------------------------ */

/* What comes to a gate waits until it is opened. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    _Atomic unsigned waiting; /* how many have come */
};

void gate_init(struct gate *gate, bool open);
void gate_open(struct gate *gate);
void gate_pass(struct gate *gate);

/* Waits, without a main loop, until `count` have come. */
void gate_wait_for(struct gate *gate, unsigned count);

/* ---- faults: the system calls that lie, after cowsql/raft's countdown ----------------------------------------------- */

struct faults {
    _Atomic int creations_good;            /* this many thread creations succeed, ... */
    _Atomic int creations_bad;             /* ... then this many fail with EAGAIN */
    struct gate *_Atomic allocations_gate; /* where fallocate() waits before it allocates */
    _Atomic int allocation_error;          /* errno of the next fallocate(); then 0 again */
    struct gate *_Atomic creations_gate;   /* where newborns wait before they create; the main loop does not */
    _Atomic int interrupts;                /* the next transfers and flushes fail with EINTR */
    _Atomic int empty_writes;              /* the next writes carry nothing, and say so */
    _Atomic size_t transfer_max;           /* bytes that one transfer carries at most; 0: no limit */
    _Atomic size_t error_after;            /* with `error`: transfers fail once this many bytes have gone */
    _Atomic int error;                     /* errno; 0: none */
    _Atomic unsigned nowait_reads;         /* how many reads with RWF_NOWAIT there were */
    _Atomic bool unsealed;                 /* add_seals() does nothing, and says that it has */
    _Atomic int flush_error;               /* errno of the next flush; then 0 again */
};

extern struct faults faults;

/* Route the core's system calls through the faults. Call first in main(). */
void faults_install(void);
void faults_reset(void);

/* What thread_create was asked since faults_reset(): by a kernel thread, by all, and when the `index`th failed. */
size_t creations_by(pid_t tid);
size_t creations_total(void);
uint64_t creation_failed_ns(size_t index);

/* The names of the threads that called fallocate() and munmap() since faults_reset(), if they are all the same; else NULL. */
const char *allocator(void);

/* ---- a main loop as the engine's -------------------------------------------------------------------------------------- */

/* Handles doorbell, timer and completions of `pool` on the calling thread until `done(argument)`; fails after WAIT_MS. */
void loop_until(struct aiod_pool *pool, bool (*done)(void *argument), void *argument);

/* One turn of it, waiting at most `wait_ms`. */
void loop_once(struct aiod_pool *pool, int wait_ms);

/* The same without reaping: whether there is something to reap. */
bool loop_wait(struct aiod_pool *pool, int wait_ms);

/* ---- requests --------------------------------------------------------------------------------------------------------- */

struct job {
    struct aiod_request request;
    struct gate *gate;      /* NULL: none */
    _Atomic unsigned runs;  /* by workers */
    _Atomic unsigned reaps; /* by the main loop */
    _Atomic pid_t worker;
    _Atomic int64_t answer; /* what run() returns */
};

/* Make `count` jobs and submit them as one batch. */
void submit_jobs(struct aiod_pool *pool, struct job *jobs, size_t count, struct gate *gate);

/* loop_until() `count` are at the gate. */
void loop_until_waiting(struct aiod_pool *pool, struct gate *gate, unsigned count);

/* loop_until() `count` jobs in all have been reaped since the last reset. */
void loop_until_reaped(struct aiod_pool *pool, size_t count);
extern size_t reaped_total;

/* ---- pools ------------------------------------------------------------------------------------------------------------ */

#define SPAWN_RETRY_NS UINT64_C(100000000)

struct aiod_pool *make_pool(unsigned max_threads, unsigned min_threads, uint64_t idle_timeout_ms);

/* Check the invariants, stop (running the loop meanwhile is not needed), reap, and destroy. */
void end_pool(struct aiod_pool *pool);

/* The invariants of the design, section 3, at this moment. */
struct aiod_pool_stats check_invariants(struct aiod_pool *pool);

/* loop_until() the stats satisfy `wanted`. */
void loop_until_stats(struct aiod_pool *pool, bool (*wanted)(const struct aiod_pool_stats *stats));

#endif
