/*
 * queue.h - one virtqueue of a device: requests from the guest to the pool, and back.
 *
 * Threads. The leader and workers take available entries and publish used ones, as they do with a ring (ring/ring.h). The
 * main loop starts and stops the queue, and changes where it lies in memory. Three things exclude each other:
 * - `taking` is held by the thread that takes; workers and the leader only try it.
 * - `lock` protects what completions change; it is held for a few dozen instructions and not over a system call.
 * - `looking` is set while the leader looks at the queue without a lock, many times in a microsecond. The main loop hides the
 *   queue from the leader (`shown`), waits until the leader does not look, and then takes both locks.
 * Lock order: `taking`, then `lock`. The pool's lock is not taken under `lock`.
 *
 * A queue takes entries while it is `shown`; requests in flight are published as long as it has a `virtqueue`. When the VMM
 * has gone, they end without a trace. The area of inflight.h has them then.
 *
 * A guest that breaks a rule has a broken queue: nothing is taken any more until the guest's driver resets the device.
 */
#ifndef AIOD_VHOST_QUEUE_H
#define AIOD_VHOST_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool/pool.h"
#include "ring/poller.h"
#include "ring/polled.h"
#include "session/io.h"
#include "session/op_stats.h"
#include "session/session.h"
#include "util/buffers.h"
#include "vhost/blk.h"
#include "vhost/inflight.h"
#include "vhost/notifier.h"
#include "vhost/virtqueue.h"

/* What the queues of a device share. Constant. */
struct aiod_vhost_backend {
    struct aiod_blk blk; /* but for its capacity */
    struct aiod_handle *handle;
    struct aiod_pool *pool;
    struct aiod_poller *poller;
    struct aiod_buffers *buffers;
    const bool *draining; /* nothing is taken; read by atomic operations */
    uint64_t inline_read_max;
    int notice_fd; /* an eventfd: the main loop has to look at the queues */
};

struct aiod_vhost_queue;

/* A request, with the number of the chain's head. */
struct aiod_vhost_request {
    struct aiod_io io; /* first */
    struct aiod_vhost_queue *queue;
    struct aiod_memory_table *table; /* a reference */
    struct aiod_chain chain;
    char *status;
    uint32_t written; /* bytes that the device writes if it succeeds */
    bool used;        /* in flight; protected by the queue's lock */
};

/* A request that failed, for the log. */
struct aiod_vhost_failure {
    enum aiod_op op;
    int error; /* errno; 0: none */
    uint64_t offset;
    uint64_t length;
};

struct aiod_vhost_queue {
    struct aiod_polled polled; /* first */

    /* Constant. */
    const struct aiod_vhost_backend *backend;
    unsigned number;
    struct aiod_notifier call; /* tells the guest of results */

    /* The main loop's. */
    struct aiod_notifier error;          /* tells the VMM that the queue is broken */
    struct aiod_vhost_request *requests; /* by head; changed only while the queue has no virtqueue and is idle */
    uint16_t room;                       /* of them */
    bool broken_told;                    /* the log says that the guest broke it */

    /* The leader's look. */
    atomic_bool looking;
    _Atomic(const struct aiod_virtqueue *) shown; /* NULL: nothing is taken */

    atomic_bool sleeping;         /* the leader waits for the doorbell; written under lock */
    _Atomic(const char *) broken; /* which rule the guest broke; NULL: none */

    pthread_mutex_t taking;

    /* Protected by taking. */
    struct aiod_inflight_left left; /* of the former engine: to be taken first */
    uint16_t left_taken;
    uint64_t counter;
    bool through;             /* writes are durable before they complete */
    atomic_ushort next;       /* index of the available entry that is taken next; others read it */
    atomic_uint taken;        /* entries, modulo 2^32 */
    atomic_ushort left_count; /* of `left`, those not taken; others read it */

    pthread_mutex_t lock;

    /* Protected by lock; the virtqueue is changed under both. */
    struct aiod_virtqueue *virtqueue; /* NULL: none */
    struct aiod_inflight_queue *notes;
    uint16_t used;      /* index of the next used entry */
    uint16_t signalled; /* `used` when the guest was last notified, or did not want it */
    uint32_t inflight;  /* others read it by atomic operations */
    struct aiod_stats stats;
    struct aiod_vhost_failure failure; /* the first one since the main loop took it */
    uint64_t failures;
    uint64_t resubmitted;
};

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

/* Create a queue, and give it to the poller. 0, or -errno. */
int aiod_vhost_queue_create(struct aiod_vhost_queue *queue, const struct aiod_vhost_backend *backend, unsigned number);

/* The pool and the poller have stopped. */
void aiod_vhost_queue_destroy(struct aiod_vhost_queue *queue);

struct aiod_vhost_start {
    struct aiod_virtqueue *virtqueue;  /* taken over */
    struct aiod_inflight_queue *notes; /* NULL: none */
    uint16_t next;                     /* index of the available entry to take first */
    bool through;
    bool enabled;
};

/* Start an idle queue. 0, or -ENOMEM. */
int aiod_vhost_queue_start(struct aiod_vhost_queue *queue, const struct aiod_vhost_start *start);

/* Take entries, or none, from now on. */
void aiod_vhost_queue_enable(struct aiod_vhost_queue *queue, bool enabled);

/* Use another virtqueue (in other memory) from now on; `virtqueue` is taken over. */
void aiod_vhost_queue_move(struct aiod_vhost_queue *queue, struct aiod_virtqueue *virtqueue);

/* The VMM has gone: take nothing, cancel queued requests, and publish nothing any more. */
void aiod_vhost_queue_abandon(struct aiod_vhost_queue *queue);

/* Drop the virtqueue of an idle queue that takes nothing. The index of the entry to take next. */
uint16_t aiod_vhost_queue_stop(struct aiod_vhost_queue *queue);

bool aiod_vhost_queue_is_running(struct aiod_vhost_queue *queue);
uint32_t aiod_vhost_queue_inflight(struct aiod_vhost_queue *queue);

/* Use these descriptors (-1: none), which stay the caller's, for the guest's notifications and for those of the guest. */
int aiod_vhost_queue_set_call(struct aiod_vhost_queue *queue, int fd);
int aiod_vhost_queue_set_kick(struct aiod_vhost_queue *queue, int fd);
int aiod_vhost_queue_set_error(struct aiod_vhost_queue *queue, int fd);

/* Take the first failure, and the number of failures; false: there was none. */
bool aiod_vhost_queue_take_failure(struct aiod_vhost_queue *queue, struct aiod_vhost_failure *failure, uint64_t *count);

void aiod_vhost_queue_add_stats(struct aiod_vhost_queue *queue, struct aiod_stats *stats);

#endif
