/*
 * ring_maker.h - the thread that makes the memory of rings, and gives it back.
 *
 * Both take as long as the memory is large: for 900 MiB 200 ms and 130 ms, in which neither the main loop nor the poller
 * would serve anybody. One thread an engine, created by the main loop's thread with the first ring; what it is given it does
 * one after the other, so that clients with large rings keep one CPU busy at most.
 *
 * Rejected: workers of the pool. They may all hang in a file system, while memory has to be given back; and the last request
 * of a ring may end while the pool stops, when nothing may be submitted to it.
 */
#ifndef AIOD_RING_MAKER_H
#define AIOD_RING_MAKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct aiod_ring_maker;

/* Embedded in the ring that it is about; the maker's from aiod_ring_maker_submit() or _finish() until `run` is called. */
struct aiod_ring_job {
    void (*run)(struct aiod_ring_job *job);
    struct aiod_ring_job *next;
};

/* 0, or -errno. */
int aiod_ring_maker_create(struct aiod_ring_maker **maker, const char *name);

/* Main loop's thread. Create the thread with the first job, and queue the job. 0, or -errno: then the job will not run. */
int aiod_ring_maker_submit(struct aiod_ring_maker *maker, struct aiod_ring_job *job);

/*
 * Any thread. Queue a job that must not fail: giving memory back. After the maker has stopped the calling thread runs the
 * job itself.
 */
void aiod_ring_maker_finish(struct aiod_ring_maker *maker, struct aiod_ring_job *job);

/* Do what is queued, and end the thread. False after `timeout_ns`: it is at work still, and must stay. */
bool aiod_ring_maker_stop(struct aiod_ring_maker *maker, uint64_t timeout_ns);

/* A stopped one. */
void aiod_ring_maker_destroy(struct aiod_ring_maker *maker);

/* Its thread's id; 0: there is none. */
pid_t aiod_ring_maker_tid(struct aiod_ring_maker *maker);

#endif
