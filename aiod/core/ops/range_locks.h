/*
 * range_locks.h - locks of byte ranges of one file, so that a write of a part of a block has the whole block for
 * itself.
 *
 * Rules. A range waits for earlier ranges that overlap it if either of the two is exclusive. Ranges are served in the
 * order of arrival: a waiting exclusive range holds back later ones that overlap it. Shared ranges neither wait for nor
 * search each other.
 *
 * Which request locks which range:
 * - A write through the page cache, or of whole blocks: its bytes, shared.
 * - A write of a part of a block: its blocks, exclusive. If a block reaches past the end of the file: from the first
 *   block to AIOD_RANGE_END, because the file's size is wrong meanwhile.
 * - A change of the file's size to N: from N to AIOD_RANGE_END, shared.
 * - An append, whose offset is not known before: the last byte (AIOD_RANGE_END - 1), shared. It conflicts only with
 *   writes that hold blocks past the end of the file.
 * - A read through an O_DIRECT handle: its bytes, shared, so that it does not read the padding of a last block.
 *
 * Deadlocks. A thread that holds a range must not acquire another one of the same file: it could wait behind an
 * exclusive range that waits for its first one. Of two files, the one whose aiod_range_locks has the lower address
 * comes first.
 */
#ifndef AIOD_RANGE_LOCKS_H
#define AIOD_RANGE_LOCKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AIOD_RANGE_END UINT64_MAX

/* On the stack of the thread that acquires it. */
struct aiod_range_lock {
    /* Filled before the acquisition; constant until the release. */
    uint64_t start; /* bytes */
    uint64_t end;   /* bytes; not included */
    bool exclusive;

    /* Protected by the lock of aiod_range_locks. */
    struct aiod_range_lock *previous;
    struct aiod_range_lock *next;
    size_t blockers;     /* earlier ranges that it waits for */
    pthread_cond_t free; /* initialised only while it waits */
};

/* The range locks of one file, used by all its handles. */
struct aiod_range_locks {
    pthread_mutex_t lock;

    /* Protected by lock. */
    struct aiod_range_lock *first; /* in the order of arrival, both held and waiting */
    struct aiod_range_lock *last;
    size_t exclusives; /* exclusive ranges in the list */
    size_t waiting;    /* exclusive ranges in the list */
};

void aiod_range_locks_init(struct aiod_range_locks *ranges);

/* No range is held or waiting. */
void aiod_range_locks_destroy(struct aiod_range_locks *ranges);

/* Wait for the range. Any thread that may block. `range` must stay at its address until aiod_range_lock_release(). */
void aiod_range_lock_acquire(struct aiod_range_locks *ranges, struct aiod_range_lock *range);

/* Acquire the range if that needs no waiting, as above. Any thread. */
bool aiod_range_lock_try(struct aiod_range_locks *ranges, struct aiod_range_lock *range);

void aiod_range_lock_release(struct aiod_range_locks *ranges, struct aiod_range_lock *range);

#endif
