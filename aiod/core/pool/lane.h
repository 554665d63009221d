/*
 * lane.h - a lane: requests that exclude each other in the kernel, so that only one of them is carried out at a time.
 *
 * A file system locks the inode for each buffered write to a regular file. Workers that write to one file at once do not
 * write faster: they spin or sleep for that lock, and each of them costs a wake-up. So the writes of a handle form a
 * lane. One of them has the turn: it is queued in its flow, or active. The others wait in the lane, and no worker is woken
 * for them. They can be cancelled and have deadlines like all queued requests. A request that ends passes the turn on, and
 * so does one that is found to be slow: the requests behind it do not hang with it.
 *
 * The lane belongs to a handle and not to a file, so that the fair queue decides between the sessions that use a file.
 *
 * Measured (4 KiB writes, 32 in flight, one file, 2 CPUs; all of them queued before): docs/benchmarks.md, Cost of a
 * request. With two turns a lane was no faster, and cost up to 60 % more CPU time at 4 in flight.
 *
 * Protected by the pool's lock. Only fair_queue.c changes it.
 */
#ifndef AIOD_LANE_H
#define AIOD_LANE_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_request;

/* Embedded in an object that lives longer than the requests. All zero at first. */
struct aiod_lane {
    struct aiod_request *first; /* waiting, oldest first, by flow_next */
    struct aiod_request *last;
    uint32_t waiting; /* their number */
    bool taken;       /* a request has the turn; written by atomic operations, for readers without the lock */
};

/* Has a request of the lane the turn? Any thread, without the lock: the answer may be outdated. */
static inline bool aiod_lane_taken(const struct aiod_lane *lane)
{
    return __atomic_load_n(&lane->taken, __ATOMIC_RELAXED);
}

#endif
