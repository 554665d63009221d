/*
 * waiters.h - the threads that sleep until requests are done, and how they are woken (waiters.c). The client's lock
 * is held.
 */
#ifndef LIBAIOD_WAITERS_H
#define LIBAIOD_WAITERS_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;
struct aiod_op;
struct aiod_parked;

struct aiod_waiters {
    bool leading;      /* a thread watches the ring's memory for all of them */
    uint32_t wake_ups; /* of the leader by aiod_waiters_wake_all(); loaded without the lock, too */
    struct aiod_parked *parked;
    uint64_t room_count;   /* slots and buffers released so far; loaded without the lock, too */
    uint32_t room_waiters; /* threads that wait for room_count to change */
};

/*
 * Sleep until `op` (NULL: any request) is done, the thread is to lead, aiod_waiters_wake_all() is called, or the
 * deadline has come. The lock is not held meanwhile. True: `op` is done, and the lock is not held.
 */
bool aiod_waiters_park(struct aiod_client *client, const struct aiod_op *op, uint64_t deadline_ns);

/* `op` is done and its state says so: wake the parked threads that wait for it, or for any request. */
void aiod_waiters_wake_for(struct aiod_client *client, const struct aiod_op *op);

/* Wake the leader and all parked threads. */
void aiod_waiters_wake_all(struct aiod_client *client);

/* Wake a parked thread to lead, unless a thread leads. */
void aiod_waiters_choose_leader(struct aiod_client *client);

/* Around a leader's sleep. Drain the completions after aiod_waiters_end_leading(): an event loop may wait for them. */
void aiod_waiters_begin_leading(struct aiod_client *client);
void aiod_waiters_end_leading(struct aiod_client *client);

/* A slot or a buffer was released. */
void aiod_waiters_count_room(struct aiod_client *client);

#endif
