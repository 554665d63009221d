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

struct aiod_ring;
struct aiod_ring_maker;

/* 0, or -errno. */
int aiod_ring_maker_create(struct aiod_ring_maker **maker, const char *name);

/*
 * Main loop's thread. Have aiod_ring_make() called: AIOD_TASK_RING_MADE comes to the main loop then. The ring is the maker's
 * until that. 0, or -errno: no thread could be created.
 */
int aiod_ring_maker_make(struct aiod_ring_maker *maker, struct aiod_ring *ring);

/*
 * Any thread. Have aiod_ring_unmake() called, of a ring that was made and that nobody refers to: AIOD_TASK_RING_GONE comes to
 * the main loop then. Once the maker has stopped this very thread does it.
 */
void aiod_ring_maker_unmake(struct aiod_ring_maker *maker, struct aiod_ring *ring);

/* Do what is queued, and end the thread. False after `timeout_ns`: it is at work still, and must stay. */
bool aiod_ring_maker_stop(struct aiod_ring_maker *maker, uint64_t timeout_ns);

/* A stopped one. */
void aiod_ring_maker_destroy(struct aiod_ring_maker *maker);

/* Its thread's id; 0: there is none. */
pid_t aiod_ring_maker_tid(struct aiod_ring_maker *maker);

#endif
