/*
 * held_locks.c - the list of an open file's locks.
 */
#include "held_locks.h"

#include <stdlib.h>

/* The last byte; a range of the length 0 has no end. */
static uint64_t last_of(uint64_t offset, uint64_t length)
{
    return length == 0 || length - 1 > UINT64_MAX - offset ? UINT64_MAX : offset + length - 1;
}

static void remove_at(struct aiod_held_locks *held, uint32_t index)
{
    held->locks[index] = held->locks[--held->count]; /* their order has no meaning */
}

static void remove_lost(struct aiod_held_locks *held, const struct aiod_held_lock *by)
{
    uint64_t last = last_of(by->offset, by->length);

    for (uint32_t i = held->count; i-- > 0;) {
        const struct aiod_held_lock *lock = &held->locks[i];

        if (lock->number == 0 && lock->offset <= last && by->offset <= last_of(lock->offset, lock->length)) {
            remove_at(held, i);
        }
    }
}

bool aiod_held_locks_add(struct aiod_held_locks *held, const struct aiod_held_lock *lock)
{
    struct aiod_held_lock *locks;

    remove_lost(held, lock);
    locks = realloc(held->locks, (held->count + 1) * sizeof(*locks));
    if (locks == NULL) {
        return false;
    }
    held->locks = locks;
    held->locks[held->count++] = *lock;
    return true;
}

void aiod_held_locks_remove(struct aiod_held_locks *held, uint64_t offset, uint64_t length)
{
    uint64_t last = last_of(offset, length);

    for (uint32_t i = held->count; i-- > 0;) {
        const struct aiod_held_lock *lock = &held->locks[i];

        if (offset <= lock->offset && last_of(lock->offset, lock->length) <= last) {
            remove_at(held, i);
        }
    }
}

void aiod_held_locks_commit(struct aiod_held_locks *held)
{
    for (uint32_t i = 0; i < held->count; i++) {
        held->locks[i].number = held->locks[i].next_number;
    }
}

void aiod_held_locks_clear(struct aiod_held_locks *held)
{
    free(held->locks);
    *held = (struct aiod_held_locks){0};
}
