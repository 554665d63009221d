/*
 * held_locks.h - the locks of an open file, which the client claims from the next engine (held_locks.c). The client's
 * lock is held, unless a function says otherwise.
 */
#ifndef LIBAIOD_HELD_LOCKS_H
#define LIBAIOD_HELD_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_held_lock {
    uint64_t offset;
    uint64_t length; /* as of aiod_lock() */
    bool exclusive;
    uint64_t number;      /* by which an engine knows whether others have had the lock since; 0: it is lost */
    uint64_t next_number; /* at the engine that is being attached to; protected by socket_lock */
};

struct aiod_held_locks {
    struct aiod_held_lock *locks;
    uint32_t count;
};

/* Add a lock that was granted, in place of lost ones that it overlaps. False: out of memory. */
bool aiod_held_locks_add(struct aiod_held_locks *held, const struct aiod_held_lock *lock);

/* Remove the locks that lie within the range. */
void aiod_held_locks_remove(struct aiod_held_locks *held, uint64_t offset, uint64_t length);

/* Another engine has taken over: next_number applies from now on. */
void aiod_held_locks_commit(struct aiod_held_locks *held);

void aiod_held_locks_clear(struct aiod_held_locks *held);

#endif
