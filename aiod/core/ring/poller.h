/*
 * poller.h - the thread that takes the submissions of all rings.
 *
 * One thread per engine, created by the main loop's thread with the first ring, so that it inherits that thread's
 * affinity. It never creates workers: its submissions ring the pool's doorbell, and the main loop starts the chain of
 * creations, as for every submitter.
 *
 * Before it sleeps it polls for a while (halt_poll.h), unless it and all clients are confined to the same CPU: then no
 * client can submit while it polls.
 *
 * Main loop's thread for all functions. Lock order: the poller's lock is taken last.
 */
#ifndef AIOD_POLLER_H
#define AIOD_POLLER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "pool/pool.h"

struct aiod_poller;
struct aiod_ring;

/* Create a poller without a thread. `poll_max_ns`: the longest polling time; 0: no polling. */
int aiod_poller_create(struct aiod_poller **poller, const char *name, uint64_t poll_max_ns, unsigned rings_max);

/* Add a ring, and take a reference to it. The first ring creates the thread. 0, or -errno. */
int aiod_poller_add(struct aiod_poller *poller, struct aiod_ring *ring);

/* Remove a ring that has ended. Its reference is released soon. */
void aiod_poller_remove(struct aiod_poller *poller, struct aiod_ring *ring);

/* Release all rings, and end the thread. */
void aiod_poller_stop(struct aiod_poller *poller);

/* Free a stopped poller. */
void aiod_poller_destroy(struct aiod_poller *poller);

/* The thread's id; 0: there is no thread. */
pid_t aiod_poller_tid(struct aiod_poller *poller);

#endif
