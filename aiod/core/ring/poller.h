/*
 * poller.h - polling the rings of an engine: takes the submissions of all of them.
 *
 * The pool's idle workers poll (pool/polling.c): with the first ring the pool creates two for it, which inherit the main
 * loop's affinity as all workers do. The leader polls for a while (halt_poll.h) before it sleeps, unless it and all clients
 * are confined to the same CPU: then no client can submit while it polls.
 *
 * Main loop's thread for all functions. Lock order: the poller's lock is taken last.
 */
#ifndef AIOD_POLLER_H
#define AIOD_POLLER_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/pool.h"

struct aiod_poller;
struct aiod_polled;

/*
 * Create a poller, whose functions the pool's idle workers use from now on. `poll_max_ns`: the longest polling time; 0: no
 * polling. 0, or -ENOMEM or -EMFILE.
 */
int aiod_poller_create(struct aiod_poller **poller, struct aiod_pool *pool, uint64_t poll_max_ns, unsigned rings_max);

/* Add a ring, and take a reference to it. 0, or -errno; -EAGAIN: no worker could be created, or there are rings_max. */
int aiod_poller_add(struct aiod_poller *poller, struct aiod_polled *ring);

/*
 * Use another doorbell (-1: none) for a ring that was added, and look at the ring. The former one must not be closed
 * before. 0, or -errno: then it has none (-ENOENT: the poller has stopped).
 */
int aiod_poller_set_doorbell(struct aiod_poller *poller, struct aiod_polled *ring, int doorbell_fd);

/* Remove a ring that has ended. Its reference is released soon. */
void aiod_poller_remove(struct aiod_poller *poller, struct aiod_polled *ring);

/* Wait until no worker polls any more, and release all rings. */
void aiod_poller_stop(struct aiod_poller *poller);

/* Free a stopped poller. */
void aiod_poller_destroy(struct aiod_poller *poller);

#endif
