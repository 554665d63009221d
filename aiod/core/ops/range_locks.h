/*
 * range_locks.h - the byte ranges of one file that are in use, so that a write of part of a block can have its blocks alone.
 *
 * A range waits for those that came before it, overlap it, and are exclusive (or it is exclusive itself): first come,
 * first served, so that a waiting exclusive one holds back later ones that overlap it. Shared ones do not wait for
 * each other, nor look at each other.
 *
 * Who enters what:
 *   - a write through the page cache, or of whole blocks: its bytes, shared;
 *   - a write of part of a block: all its blocks, exclusive; when one of them reaches past the end of the file: from
 *     the first of them to AIOD_RANGE_END, since the size is wrong meanwhile;
 *   - a change of the size to N: from N to AIOD_RANGE_END, shared;
 *   - an append, which does not know yet where it lands: the last byte (AIOD_RANGE_END - 1), shared. That keeps it
 *     apart from all that have blocks past the end of the file, and from nothing else;
 *   - a read through an O_DIRECT handle: its bytes, shared, so that it never sees the padding of a last block.
 *
 * A thread that has entered one must not enter another of the same file: it would wait behind an exclusive one that
 * waits for its first. Of two files it enters the one with its ranges at the lower address first.
 */
#ifndef AIOD_RANGE_LOCKS_H
#define AIOD_RANGE_LOCKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AIOD_RANGE_END UINT64_MAX

/* On the stack of the thread that enters. */
struct aiod_range_lock {
    /* Filled before entering; constant until left. */
    uint64_t start; /* bytes */
    uint64_t end;   /* bytes; exclusive of it */
    bool exclusive;

    /* Protected by the lock of the ranges. */
    struct aiod_range_lock *previous;
    struct aiod_range_lock *next;
    size_t blockers;     /* earlier ones that it waits for */
    pthread_cond_t free; /* there is one only while it waits */
};

/* Of one file, by whatever handle. */
struct aiod_range_locks {
    pthread_mutex_t lock;

    /* Protected by lock. */
    struct aiod_range_lock *first; /* in the order of coming, those that wait among them */
    struct aiod_range_lock *last;
    size_t exclusives; /* of them */
    size_t waiting;    /* of them */
};

void aiod_range_locks_init(struct aiod_range_locks *ranges);

/* Nobody is inside. */
void aiod_range_locks_destroy(struct aiod_range_locks *ranges);

/* Any thread that may block. `range` stays where it is until aiod_range_lock_release(). */
void aiod_range_lock_acquire(struct aiod_range_locks *ranges, struct aiod_range_lock *range);

void aiod_range_lock_release(struct aiod_range_locks *ranges, struct aiod_range_lock *range);

#endif
