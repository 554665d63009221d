/*
 * polled.h - something whose entries the polling workers take: a client's ring (ring.h) or a guest's virtqueue
 * (vhost/virtqueue.h).
 *
 * The poller (poller.h), its list (rings.h) and the wakes of clients (client_wakes.h) know nothing else of it.
 */
#ifndef AIOD_POLLED_H
#define AIOD_POLLED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct aiod_polled;

struct aiod_polled_operations {
    /* Any thread: add or release a reference. */
    void (*get)(struct aiod_polled *polled);
    void (*put)(struct aiod_polled *polled);
    /* Any thread: take entries, and execute or queue them. Their number; 0 while another thread takes. */
    unsigned (*take)(struct aiod_polled *polled);
    /* Any thread: wake the client if it sleeps. */
    void (*wake_client)(struct aiod_polled *polled);
    /* Leader: are there entries to take? */
    bool (*has_entries)(struct aiod_polled *polled);
    /* Leader: tell the client whether the engine sleeps, and so waits for the doorbell. has_entries() follows. */
    void (*set_sleeping)(struct aiod_polled *polled, bool sleeping);
    /* Leader: is none in flight? The answer may be outdated. */
    bool (*seems_idle)(const struct aiod_polled *polled);
    /* Leader: the number of entries that were taken, modulo 2^32. */
    uint32_t (*taken)(const struct aiod_polled *polled);
};

struct aiod_polled {
    const struct aiod_polled_operations *operations; /* constant */
    int doorbell_fd;  /* an eventfd that the client writes; the engine only waits for it; -1: none */
    pid_t client_pid; /* constant: the process at the other end; 0: unknown */

    /* The leader's (rings.c). */
    unsigned awake_at;    /* one more than its index in the list of awake ones; 0: dormant */
    uint32_t retire_head; /* taken() when the leader last looked for unused ones */
    struct aiod_polled *next_removed;
};

#endif
