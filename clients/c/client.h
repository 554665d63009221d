/*
 * client.h - a session's state, private to libaiod.
 *
 * Lock order: `socket_lock`, then `lock`; neither is held while a thread sleeps for a completion. Leader and followers: of
 * the threads that wait, one looks at the memory (the leader), the others are parked; whoever leaves lets one of those
 * lead.
 */
#ifndef AIOD_CLIENT_H
#define AIOD_CLIENT_H

#include <pthread.h>

#include "aiod.h"
#include "area.h"

enum op_state {
    OP_NEW,
    OP_INFLIGHT,
    OP_AWAITED,   /* somebody is in aiod_wait() for it */
    OP_ABANDONED, /* freed when it is done */
    OP_DONE,
};

struct parked {
    struct aiod_op *op; /* NULL: whatever is done next */
    pthread_cond_t cond;
    bool woken;
    struct parked *next;
};

struct aiod_client {
    /* Constant. */
    int socket;
    int doorbell;
    char *base;
    uint64_t bytes;
    struct aiod_ring_header *header;
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    char *area_base;
    uint64_t area_bytes;
    uint32_t entries;
    uint64_t request_bytes_max;
    uint64_t spin_max_ns;

    pthread_mutex_t socket_lock; /* a call and its answer */
    uint64_t next_cookie;

    pthread_mutex_t lock;

    /* Protected by lock. */
    int ended; /* errno */
    uint32_t sq_tail;
    uint32_t cq_head;
    uint32_t inflight;
    uint64_t next_number;
    struct aiod_op **places; /* by the low half of the cookie */
    uint32_t *free_places;   /* a stack of entries - inflight */
    struct aiod_op *done;    /* to be reaped, oldest first */
    struct aiod_op **done_tail;
    uint64_t done_count;
    bool leading;
    struct parked *parked;
    struct area area;
    uint64_t spin_ns; /* how long the next leader looks before it sleeps: adapted as the engine's poller does */
};

/* error.c: keep the sentence, printf-like; returns `error`, which is negative. */
int aiod_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* queue.c: the session has ended with errno `error` (positive): what is in flight ends so. Lock held. */
void aiod_end_session(struct aiod_client *client, int error);

#endif
