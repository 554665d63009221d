/*
 * queue.h - requests in flight: their slots, submission entries and completions (queue.c). The client's lock is held.
 */
#ifndef LIBAIOD_QUEUE_H
#define LIBAIOD_QUEUE_H

#include "aiod.h"

/* The `state` of an aiod_op. */
enum aiod_op_state {
    OP_NEW,
    OP_INFLIGHT,
    OP_AWAITED,   /* a thread is in aiod_wait() for it, or will be */
    OP_ABANDONED, /* freed when it is done */
    OP_DONE,
};

struct aiod_queue {
    uint32_t sq_tail;
    uint32_t cq_head; /* loaded without the lock, too */
    uint32_t inflight;
    uint64_t next_number;   /* the high half of the next cookie */
    struct aiod_op **slots; /* in flight, by the low half of the cookie */
    uint32_t *free_slots;   /* a stack of entries - inflight */
    struct aiod_op *done;   /* to be reaped, oldest first */
    struct aiod_op **done_tail;
    uint64_t done_count; /* so far */
};

/*
 * What the session adds to the queue: session.c, or resume.c of a client that continues with another engine. `prepare`
 * is NULL where the session ends with its engine.
 */
struct aiod_queue_hooks {
    /* Adapt the entry of `op` to the engine that is connected. */
    void (*prepare)(struct aiod_client *client, const struct aiod_op *op, struct aiod_ring_sqe *sqe);

    /* `op` has a result. False: it stays in flight, to be submitted to the next engine. */
    bool (*completed)(struct aiod_client *client, struct aiod_op *op);

    /* The connection to the engine has ended, for the first time since it was made. */
    void (*connection_lost)(struct aiod_client *client);
};

/* For `client->entries` requests. False: out of memory. */
bool aiod_queue_init(struct aiod_client *client);
void aiod_queue_destroy(struct aiod_queue *queue);

/*
 * Give slots to as many of the requests as there is room for, and submit them if an engine is connected. Returns
 * how many.
 */
unsigned aiod_queue_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count);

/* Is a request on the handle in flight whose number (of `next_number`) is below `before`? */
bool aiod_queue_uses(const struct aiod_client *client, uint32_t handle, uint64_t before);

/* Submit all requests that have a slot and were not submitted to this engine. */
void aiod_queue_submit_again(struct aiod_client *client);

/* Take all completions that have arrived. */
void aiod_queue_drain(struct aiod_client *client);

/* The request is done: its result is set. */
void aiod_queue_settle(struct aiod_client *client, struct aiod_op *op);

/* Withdraw what the engine has not taken: those requests stay in flight, as not sent. Nothing is submitted to it any more. */
void aiod_queue_withdraw(struct aiod_client *client);

/* Settle all requests in flight with -`error`. */
void aiod_queue_fail_all(struct aiod_client *client, int error);

/* The list of requests to be reaped: append, remove if it is there, take up to `max`. */
void aiod_queue_append_done(struct aiod_client *client, struct aiod_op *op);
void aiod_queue_remove_done(struct aiod_client *client, struct aiod_op *op);
unsigned aiod_queue_reap(struct aiod_client *client, struct aiod_op **done, unsigned max);

/* Free the request and release its buffer, now or when it is done. */
void aiod_queue_abandon(struct aiod_client *client, struct aiod_op *op);

#endif
