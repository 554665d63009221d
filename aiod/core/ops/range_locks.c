/*
 * range_locks.c - range locks as one list per file, in the order of arrival. Each waiting range has a condition of its
 * own.
 */
#include "ops/range_locks.h"

void aiod_range_locks_init(struct aiod_range_locks *ranges)
{
    *ranges = (struct aiod_range_locks){.first = NULL};
    pthread_mutex_init(&ranges->lock, NULL);
}

void aiod_range_locks_destroy(struct aiod_range_locks *ranges)
{
    pthread_mutex_destroy(&ranges->lock);
}

static bool conflict(const struct aiod_range_lock *a, const struct aiod_range_lock *b)
{
    return (a->exclusive || b->exclusive) && a->start < b->end && b->start < a->end;
}

/* Count the earlier ranges that the new one must wait for. Lock held. */
static size_t count_blockers(const struct aiod_range_locks *ranges, const struct aiod_range_lock *range)
{
    size_t blockers = 0;

    if (!range->exclusive && ranges->exclusives == 0) {
        return 0;
    }
    for (const struct aiod_range_lock *earlier = ranges->first; earlier != NULL; earlier = earlier->next) {
        blockers += conflict(earlier, range);
    }
    return blockers;
}

/* Lock held. */
static void append(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    range->previous = ranges->last;
    range->next = NULL;
    *(ranges->last != NULL ? &ranges->last->next : &ranges->first) = range;
    ranges->last = range;
    ranges->exclusives += range->exclusive;
}

/* Lock held. */
static void unlink_entry(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    *(range->previous != NULL ? &range->previous->next : &ranges->first) = range->next;
    *(range->next != NULL ? &range->next->previous : &ranges->last) = range->previous;
    ranges->exclusives -= range->exclusive;
}

/* Lock held on entry and return, dropped while waiting. */
static void wait_for_blockers(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    pthread_cond_init(&range->free, NULL);
    ranges->waiting++;
    while (range->blockers > 0) {
        pthread_cond_wait(&range->free, &ranges->lock);
    }
    ranges->waiting--;
    pthread_cond_destroy(&range->free);
}

void aiod_range_lock_acquire(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    pthread_mutex_lock(&ranges->lock);
    range->blockers = count_blockers(ranges, range);
    append(ranges, range);
    if (range->blockers > 0) {
        wait_for_blockers(ranges, range);
    }
    pthread_mutex_unlock(&ranges->lock);
}

bool aiod_range_lock_try(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    bool acquired;

    pthread_mutex_lock(&ranges->lock);
    range->blockers = count_blockers(ranges, range);
    acquired = range->blockers == 0;
    if (acquired) {
        append(ranges, range);
    }
    pthread_mutex_unlock(&ranges->lock);
    return acquired;
}

void aiod_range_lock_release(struct aiod_range_locks *ranges, struct aiod_range_lock *range)
{
    pthread_mutex_lock(&ranges->lock);
    if (ranges->waiting > 0) {
        for (struct aiod_range_lock *later = range->next; later != NULL; later = later->next) {
            if (conflict(range, later) && --later->blockers == 0) {
                /* signalled with the lock held: a waiter that has returned destroys its condition */
                pthread_cond_signal(&later->free);
            }
        }
    }
    unlink_entry(ranges, range);
    pthread_mutex_unlock(&ranges->lock);
}
