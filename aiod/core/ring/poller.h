/*
 * poller.h - the thread that takes what clients submit by their rings.
 *
 * One an engine, created by the main loop's thread with the first ring, so that it has that thread's affinity. It never
 * creates workers: what it submits rings the pool's doorbell, and the main loop starts the chain, as for any submitter.
 *
 * Before it sleeps it looks on for a while (halt_poll.h), but not where it and all its clients can only run on one and the same
 * CPU: nobody can submit there while it looks.
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

/* The main loop's thread for all of these. `poll_max_ns`: the longest it looks on before it sleeps; 0: it never does. */
int aiod_poller_create(struct aiod_poller **poller, const char *name, uint64_t poll_max_ns, unsigned rings_max);

/* Serve the ring, of which it holds a reference. The thread is created with the first one. 0, or -errno. */
int aiod_poller_add(struct aiod_poller *poller, struct aiod_ring *ring);

/* The ring has ended: let go of it, soon. */
void aiod_poller_remove(struct aiod_poller *poller, struct aiod_ring *ring);

/* Let go of all rings, and end the thread. */
void aiod_poller_stop(struct aiod_poller *poller);

/* A stopped one. */
void aiod_poller_destroy(struct aiod_poller *poller);

/* Its thread's id; 0: there is none. */
pid_t aiod_poller_tid(struct aiod_poller *poller);

#endif
