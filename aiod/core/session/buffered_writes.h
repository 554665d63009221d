/*
 * buffered_writes.h - how the writes of a handle through the page cache are carried out.
 *
 * Where writes to the file exclude each other in the kernel, those of the handle are a lane (pool/lane.h). The worker that
 * carries out the first write finds out: the questions may block.
 *
 * A small write is tried where it is taken from the ring, without blocking (RWF_NOWAIT), if no other write of the handle is
 * queued or active. XFS can do that, and btrfs with files without copy-on-write; ext4 and tmpfs cannot, and the handle
 * remembers it. On other files of btrfs every attempt fails, and so it does while the page cache has too many dirty pages:
 * after a failure 1, 3, 7, ... writes go to workers before the next attempt, up to ATTEMPT_SKIPS_MAX. An attempt that takes
 * long is not repeated before that number of writes: the file system did not keep the promise.
 *
 * Not in the lane: writes by O_DIRECT, which the kernel lets overlap, and durable writes (FUA), which wait for a flush that
 * they share. Neither are tried without blocking.
 */
#ifndef AIOD_BUFFERED_WRITES_H
#define AIOD_BUFFERED_WRITES_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/lane.h"

/* Part of a handle. All zero at first. */
struct aiod_buffered_writes {
    /* Accessed by atomic operations. */
    bool known;        /* the next two are */
    bool exclude;      /* they exclude each other */
    bool sync;         /* the kernel syncs each of them */
    bool never_nowait; /* the file system does not support RWF_NOWAIT for them */

    struct aiod_lane lane;

    /* Used by the thread that takes from the session's ring. */
    unsigned skips;      /* writes that are not tried, ... */
    unsigned skips_left; /* ... of which so many are left */
};

/* Find out about the file `fd`, unless that is known. For a worker that is about to write. */
void aiod_buffered_writes_learn(struct aiod_buffered_writes *writes, int fd);

/* The lane of a buffered write; NULL: the file needs none, or that is not known yet. Any thread. */
struct aiod_lane *aiod_buffered_writes_lane(struct aiod_buffered_writes *writes);

/*
 * May the next write be tried without blocking? Counts the writes for which it may not. For the thread that takes from the
 * session's ring, as the next two.
 */
bool aiod_buffered_writes_may_try(struct aiod_buffered_writes *writes);

/* A write was tried, and has `failed`, or took `service_ns`. */
void aiod_buffered_writes_failed(struct aiod_buffered_writes *writes);
void aiod_buffered_writes_took(struct aiod_buffered_writes *writes, uint64_t service_ns);

#endif
