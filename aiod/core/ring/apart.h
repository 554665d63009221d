/*
 * apart.h - where the follower sleeps while the other polling worker is bound (pool/uring.h).
 *
 * A bound worker polls on, and takes nothing that may block. So it answers every doorbell, and the follower is not needed at
 * the epoll set. There it would do harm: the kernel wakes the thread that went to sleep last, which is often the follower.
 * That one would be woken by the completions of the bound worker's requests, and would have to wake that worker: two wake-ups
 * for each batch, before anything is delivered.
 *
 * So the follower sleeps apart. It is woken when it is recalled, and when the other worker stops polling. The latter also
 * happens when that one is not bound any more: whether the follower sleeps apart is decided when it goes to sleep.
 *
 * Two threads may announce something to each other at once: each one stores its word, then loads the other's. So at least one
 * of the two sees the other (tests/model/polling.pml).
 */
#ifndef AIOD_APART_H
#define AIOD_APART_H

#include <stdatomic.h>
#include <stdbool.h>

#include "pool/pool.h"

struct aiod_apart {
    int event_fd;
    atomic_bool sleeps;  /* a follower sleeps here, or is about to */
    atomic_uint polling; /* workers that poll */
};

/* 0, or -errno. */
int aiod_apart_init(struct aiod_apart *apart);

/* Also after a failed aiod_apart_init(). */
void aiod_apart_destroy(struct aiod_apart *apart);

/* The calling worker is about to poll. */
void aiod_apart_begin_to_poll(struct aiod_apart *apart);

/* It polls no more. A follower that sleeps apart is woken, and has to look after the rings. */
void aiod_apart_cease_to_poll(struct aiod_apart *apart);

/* Polling worker: sleep apart. False: the other polling worker is not bound, and the caller has to sleep at the epoll set. */
bool aiod_apart_sleep(struct aiod_apart *apart, const struct aiod_pool *pool);

/* A polling worker is recalled: wake the follower that sleeps apart. False: there is none. */
bool aiod_apart_wake(struct aiod_apart *apart);

#endif
