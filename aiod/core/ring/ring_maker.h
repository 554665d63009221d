/*
 * ring_maker.h - the thread that allocates and frees the memory of rings.
 *
 * For 900 MiB these take 200 ms and 130 ms, during which the main loop or a worker would serve no client. One thread
 * per engine, created by the main loop's thread with the first ring. Its jobs run one after another, so that clients
 * with large rings keep at most one CPU busy.
 *
 * Rejected: the pool's workers. All of them may hang in a file system while memory has to be freed; and the last
 * request of a ring may end while the pool is stopping, when nothing may be submitted.
 *
 * Lock order: the maker's lock is taken last.
 */
#ifndef AIOD_RING_MAKER_H
#define AIOD_RING_MAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct aiod_ring_maker;

/* Embedded in the ring. The maker owns it from its submission until `run` is called. */
struct aiod_ring_job {
    void (*run)(struct aiod_ring_job *job);
    struct aiod_ring_job *next;
};

/* 0, or -errno. */
int aiod_ring_maker_create(struct aiod_ring_maker **maker, const char *name);

/* Main loop's thread. Queue the job; the first one creates the thread. 0, or -errno: the job will not run. */
int aiod_ring_maker_submit(struct aiod_ring_maker *maker, struct aiod_ring_job *job);

/*
 * Any thread. Queue a job that must not fail, which frees memory. After the maker has stopped, the calling thread runs
 * it.
 */
void aiod_ring_maker_finish(struct aiod_ring_maker *maker, struct aiod_ring_job *job);

/* Run the queued jobs, and end the thread. False: it is still busy after `timeout_ns`, and must not be freed. */
bool aiod_ring_maker_stop(struct aiod_ring_maker *maker, uint64_t timeout_ns);

/* Free a stopped maker. */
void aiod_ring_maker_destroy(struct aiod_ring_maker *maker);

/* The thread's id; 0: there is no thread. */
pid_t aiod_ring_maker_tid(struct aiod_ring_maker *maker);

#endif
