/*
 * rings.h - the rings of a poller: those that the leader looks at, and those whose clients ring the doorbell. A guest's
 * virtqueue is a ring as well here (polled.h).
 *
 * A ring is awake while its client submits: the leader looks at it in each pass, and its client makes no system call. A
 * ring that is not used becomes dormant. The leader does not look at it any more: a thousand idle rings cost nothing
 * while a few are in use. Its client finds engine_sleeps set, as if the engine slept, and rings the doorbell. The thread
 * that the doorbell wakes notes that here (aiod_rings_rung), and the leader wakes the ring in its next pass.
 *
 * Each ring has a slot, which it keeps. The main loop changes the slots under the lock and counts the changes; the leader
 * copies what has changed to its own slots.
 */
#ifndef AIOD_RINGS_H
#define AIOD_RINGS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct aiod_polled;

struct aiod_rings {
    unsigned slot_count; /* constant */

    atomic_uint changes;    /* of `wanted`; counts */
    atomic_bool any_rung;   /* stored after a bit of `rung` */
    _Atomic uint64_t *rung; /* a bit for each slot: the doorbell of its ring has rung */

    pthread_mutex_t lock;        /* taken last */
    struct aiod_polled **wanted; /* by slot, one reference each; NULL: unused; protected by lock */

    /* The leader's. */
    struct aiod_polled **known; /* by slot, one reference each; NULL: unused */
    unsigned known_count;
    struct aiod_polled **awake; /* without references of their own */
    unsigned awake_count;
    unsigned changes_seen;
};

/* 0, or -ENOMEM. To be destroyed in both cases. */
int aiod_rings_init(struct aiod_rings *rings, unsigned rings_max);
void aiod_rings_destroy(struct aiod_rings *rings);

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

/* Add a ring, and take a reference to it. Its slot, or -EAGAIN: all are used. */
int aiod_rings_add(struct aiod_rings *rings, struct aiod_polled *ring);

/* The slot of a ring that was added; slot_count: it is not there. */
unsigned aiod_rings_slot_of(struct aiod_rings *rings, const struct aiod_polled *ring);

/* Remove a ring. The caller gets a reference to it. False: it is not there. */
bool aiod_rings_remove(struct aiod_rings *rings, const struct aiod_polled *ring);

/* No thread leads any more: release all rings. */
void aiod_rings_clear(struct aiod_rings *rings);

/* ---- any thread -------------------------------------------------------------------------------------------------- */

/* The doorbell of the ring in `slot` has rung. The leader must look, or the caller must lead. */
void aiod_rings_rung(struct aiod_rings *rings, unsigned slot);

/* ---- the leader -------------------------------------------------------------------------------------------------- */

/* Have rings been added or removed, or dormant ones rung? */
bool aiod_rings_has_news(const struct aiod_rings *rings);

/* Follow the main loop's changes, and wake the rings that have rung. */
void aiod_rings_update(struct aiod_rings *rings);

/* Are there rings whose doorbells must be listened to while the leader is awake? */
bool aiod_rings_has_dormant(const struct aiod_rings *rings);

/* Have awake rings entries, or requests in flight? */
bool aiod_rings_has_entries(const struct aiod_rings *rings);
bool aiod_rings_has_inflight(const struct aiod_rings *rings);

/* Tell the clients of the awake rings whether the engine sleeps. */
void aiod_rings_sleeping(struct aiod_rings *rings, bool sleeping);

/* Make the rings dormant that were not used since the last call. `sleeping`: their clients know that the engine sleeps. */
void aiod_rings_retire(struct aiod_rings *rings, bool sleeping);

#endif
