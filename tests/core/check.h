/* check.h - used by all tests of the core: checks, injected faults, gates, and a main loop. */
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

#include "../patience.h"
#include "pool/pool.h"
#include "util/os.h"

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);                      \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

#define WAIT_MS scaled_ms(30000) /* time limit for a condition; only a failing test waits that long */

/* ---- gates, in place of sleeps ----------------------------------------------------------------------------------- */

/* Threads that arrive at a gate wait until it is opened. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;
    _Atomic unsigned waiting; /* threads that have arrived */
};

void gate_init(struct gate *gate, bool open);
void gate_open(struct gate *gate);
void gate_pass(struct gate *gate);

/* Wait, without a main loop, until `count` threads have arrived. */
void gate_wait_for(struct gate *gate, unsigned count);

/* ---- faults: system calls that fail, after cowsql/raft's test/lib/fault.h ---------------------------------------- */

struct faults {
    _Atomic int creations_good;            /* this many creations of threads succeed, ... */
    _Atomic int creations_bad;             /* ... then this many fail with EAGAIN */
    struct gate *_Atomic allocations_gate; /* where fallocate() waits before it allocates */
    _Atomic int allocation_error;          /* the errno of the next fallocate(); then 0 again */
    struct gate *_Atomic creations_gate;   /* where new workers wait before they create others; not the main loop */
    _Atomic int interrupts;                /* this many of the next transfers and flushes fail with EINTR */
    _Atomic int empty_writes;              /* this many of the next writes transfer nothing */
    struct gate *_Atomic writes_gate;      /* where a write waits, ... */
    _Atomic int writes_good;               /* ... after this many others */
    _Atomic size_t transfer_max;           /* the maximum bytes of one transfer; 0: no limit */
    _Atomic size_t error_after;            /* with `error`: transfers fail after this many bytes */
    _Atomic int error;                     /* errno; 0: none */
    _Atomic unsigned nowait_reads;         /* the number of reads with RWF_NOWAIT */
    _Atomic bool unsealed;                 /* add_seals() does nothing, and returns success */
    _Atomic int flush_error;               /* the errno of the next flush; then 0 again */
    _Atomic int uring_result;              /* of the next request that io_uring has started, ... */
    _Atomic int uring_results_more;        /* ... and of this many more; then 0 again: the kernel's */
};

extern struct faults faults;

/* Route the core's system calls through the faults. To be called first in main(). */
void faults_install(void);
void faults_reset(void);

/* Calls of thread_create() since faults_reset(): by one kernel thread; by all; the time of failure number `index`. */
size_t creations_by(pid_t tid);
size_t creations_total(void);
uint64_t creation_failed_ns(size_t index);

/*
 * The name of the threads that called fallocate() and munmap() since faults_reset(); NULL if there are different names.
 */
const char *allocator(void);

/* ---- a main loop like the engine's ------------------------------------------------------------------------------- */

/*
 * Handle doorbell, timer and completions of `pool` on the calling thread until `done(argument)`. Fails after WAIT_MS.
 */
void loop_until(struct aiod_pool *pool, bool (*done)(void *argument), void *argument);

/* One turn of the loop, which waits at most `wait_ms`. */
void loop_once(struct aiod_pool *pool, int wait_ms);

/* The same without reaping: is there something to reap? */
bool loop_wait(struct aiod_pool *pool, int wait_ms);

/* ---- requests ---------------------------------------------------------------------------------------------------- */

struct job {
    struct aiod_request request;
    struct gate *gate;      /* NULL: none */
    _Atomic unsigned runs;  /* counted by workers */
    _Atomic unsigned reaps; /* counted by the main loop */
    _Atomic pid_t worker;
    _Atomic int64_t answer; /* the result of run() */
};

/* Initialise `count` jobs as one batch, apart from their deadlines, which the caller has set. */
void prepare_jobs(struct job *jobs, size_t count, struct gate *gate);

/* The same, and submit them. */
void submit_jobs(struct aiod_pool *pool, struct job *jobs, size_t count, struct gate *gate);

/* loop_until() `count` threads have arrived at the gate. */
void loop_until_waiting(struct aiod_pool *pool, struct gate *gate, unsigned count);

/* loop_until() `count` jobs in total were reaped since the last reset. */
void loop_until_reaped(struct aiod_pool *pool, size_t count);
extern size_t reaped_total;

/* ---- pools ------------------------------------------------------------------------------------------------------- */

#define SPAWN_RETRY_NS UINT64_C(100000000)

struct aiod_pool *make_pool(unsigned max_threads, unsigned min_threads, uint64_t idle_timeout_ms);

/* Check the invariants; stop the pool, which needs no running loop; reap; destroy. */
void end_pool(struct aiod_pool *pool);

/* Check the pool's invariants at this moment (pool_state.h, spawner.h). */
struct aiod_pool_stats check_invariants(struct aiod_pool *pool);

/* loop_until() the stats satisfy `wanted`. */
void loop_until_stats(struct aiod_pool *pool, bool (*wanted)(const struct aiod_pool_stats *stats));

#endif
