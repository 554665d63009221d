/*
 * ring.h - the engine's side of one shared-memory ring.
 *
 * Threads. The leader (poller.h) takes submissions. Workers write completions into the completion queue themselves,
 * which saves a hand-over of tens of microseconds, and then look for new submissions: under load no thread is woken for
 * a request. The main loop creates the ring, adds and removes handles, and ends the ring. The shared state is protected
 * by `lock`, which is held for a few dozen instructions and not over a system call.
 *
 * Lock order: `taking`, then `lock`, then that of the table of files. The pool's lock is not taken under `lock`.
 *
 * Trust. Nothing in the shared memory is trusted. An entry is copied once, then checked, then used. The engine keeps
 * its own copy of the indices that it writes. A client that breaks the rules of aiod_ring.h, or whose memory has a hole
 * that cannot be filled, loses its session.
 *
 * Creation. The main loop creates the ring; the maker's thread (ring_maker.h) allocates its memory and notifies the
 * main loop, which gives the ring to the session and to the poller, unless the session has ended.
 *
 * End. References are held by the session, by the poller, by each request in flight, and by the notice that the ring is
 * broken. With the last reference, the maker's thread frees the memory and notifies the main loop through the pool's
 * done list.
 */
#ifndef AIOD_RING_H
#define AIOD_RING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool/pool.h"
#include "ring/collect.h"
#include "ring/cookies.h"
#include "ring/polled.h"
#include "ring/ring_maker.h"
#include "ring/ring_memory.h"
#include "session/io.h"
#include "session/op_stats.h"
#include "session/session.h"
#include "util/buffers.h"

#define AIOD_RING_BATCH 64u                      /* entries taken before it is another ring's turn */
#define AIOD_RING_BATCH_BYTES_MAX (256u * 1024u) /* bytes of inline reads per batch */

struct aiod_ring;

/* A slot for a request. */
struct aiod_ring_request {
    struct aiod_io io; /* first */
    struct aiod_ring *ring;
    struct aiod_cookie cookie;
    uint32_t number;                /* of the handle that an open makes, or that the main loop closes */
    struct aiod_session_flow *flow; /* of a CLOSE_FILE that the main loop carries out: its handle may be gone */
    struct aiod_ring_request *next_free;
};

struct aiod_ring {
    struct aiod_polled polled; /* first */

    /* Constant after creation. */
    struct aiod_ring_memory memory;
    struct aiod_session *session; /* one reference, which the main loop releases */
    struct aiod_pool *pool;
    struct aiod_ring_maker *maker;
    struct aiod_buffers *buffers;
    struct aiod_files *files;
    struct aiod_collect_timer *collect_timer;
    const bool *draining; /* new requests are refused; read by atomic operations */
    int wake_fd;          /* a duplicate of the socket; -1: none */
    uint64_t inline_read_max;
    uint64_t request_bytes_max;
    uint32_t handles_max;

    /* Owned by the maker from the submission of a job to the notice at its end. */
    uint32_t entries;
    uint64_t area_bytes;
    bool allocated;       /* the memory is allocated */
    int allocation_error; /* 0, or -errno of the allocation */
    struct aiod_ring_job allocate_job;
    struct aiod_ring_job free_job;
    struct aiod_task allocated_notice;

    /* The main loop's. */
    bool attached;          /* the only ring of its session that has ever been: its requests count in the flows' sets */
    struct aiod_ring *next; /* the list of rings */
    struct aiod_ring *previous;

    pthread_mutex_t taking; /* held by the thread that takes submissions; only tried, never waited for */
    uint32_t sq_head;       /* written by the thread that takes, by atomic operations */

    atomic_uint refs;
    atomic_bool ended; /* no entry is taken any more */

    pthread_mutex_t lock;

    /* Protected by lock. */
    uint32_t cq_tail;
    uint32_t cq_head;             /* the last value that was read */
    uint32_t inflight;            /* changed by aiod_ring_add_inflight() only */
    uint64_t bytes_inflight;      /* of reads and writes */
    struct aiod_handle **handles; /* by index, as the slots of the session */
    struct aiod_ring_request *free;
    struct aiod_cookies cookies; /* of the queued requests */
    struct aiod_ring_opens opens;
    struct aiod_stats stats; /* refused entries that name no handle; the others are in the flows of the session */

    /* Written once, before broken_notice is sent. */
    const char *broken;
    struct aiod_task broken_notice;
    struct aiod_task freed_notice;

    struct aiod_ring_request requests[]; /* memory.entries */
};

struct aiod_ring_config {
    struct aiod_session *session;
    struct aiod_pool *pool;
    struct aiod_ring_maker *maker;
    struct aiod_buffers *buffers;
    struct aiod_files *files;
    struct aiod_collect_timer *collect_timer;
    const bool *draining;
    uint64_t inline_read_max;
    uint32_t entries;
    uint64_t area_bytes;
    int wake_fd; /* will be duplicated; -1: the client waits by futex only */
};

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

/*
 * Create a ring without memory, and with one reference, the session's. aiod_ring_memory_bytes() was not 0. 0, or
 * -errno.
 */
int aiod_ring_create(struct aiod_ring **ring, const struct aiod_ring_config *config);

/* Start the allocation of the memory; AIOD_TASK_RING_ALLOCATED notifies the main loop. 0, or -errno: no thread. */
int aiod_ring_allocate(struct aiod_ring *ring);

/* The memory is allocated: add the session's handles. */
void aiod_ring_add_handles(struct aiod_ring *ring);

/* The ring that a notice belongs to. */
struct aiod_ring *aiod_ring_of_allocated(struct aiod_task *notice);
struct aiod_ring *aiod_ring_of_broken(struct aiod_task *notice);
struct aiod_ring *aiod_ring_of_freed(struct aiod_task *notice);

/* Add a new handle of the session. */
void aiod_ring_add_handle(struct aiod_ring *ring, struct aiod_handle *handle);

/* Remove a handle that is being closed. False: the ring has requests in flight on it; aiod_handle.ring_idle follows. */
bool aiod_ring_forget_handle(struct aiod_ring *ring, struct aiod_handle *handle);

/* Take no more entries, cancel the queued requests, and release the session's reference. */
void aiod_ring_end(struct aiod_ring *ring);

/* Before aiod_ring_end(): tell the client about the shutdown (bits of enum aiod_ring_shutdown_notice). */
void aiod_ring_set_shutdown_notice(struct aiod_ring *ring, uint32_t notice);

/*
 * After AIOD_TASK_RING_FREED, or for a ring without memory: free the rest. Its counts are added to those of their exports
 * and of the session, and to `stats` where they belong to no export.
 */
void aiod_ring_free(struct aiod_ring *ring, struct aiod_stats *stats);

/* Add the ring's counts to `stats`, which the caller owns. */
void aiod_ring_add_stats(struct aiod_ring *ring, struct aiod_stats *stats);

/* Add them to aiod_export_stats.shown, and to `stats` where they belong to no export. */
void aiod_ring_show_stats(struct aiod_ring *ring, struct aiod_stats *stats);

/* ---- any thread -------------------------------------------------------------------------------------------------- */

void aiod_ring_get(struct aiod_ring *ring);

/* Release a reference. With the last one the maker frees the memory; AIOD_TASK_RING_FREED notifies the main loop. */
void aiod_ring_put(struct aiod_ring *ring);

uint32_t aiod_ring_inflight(struct aiod_ring *ring);

/* Add `change` to the requests in flight, and return their number. Lock held. */
uint32_t aiod_ring_add_inflight(struct aiod_ring *ring, uint32_t change);

uint64_t aiod_ring_bytes_inflight(struct aiod_ring *ring);

/* ---- threads that take: the leader, and workers that completed a request (ring_admission.c) ---------------------- */

/* Take up to AIOD_RING_BATCH entries, and execute or queue them. Their number; 0 while another thread takes. */
unsigned aiod_ring_take(struct aiod_ring *ring);

/* aiod_polled_operations of a ring. */
bool aiod_ring_has_entries(struct aiod_polled *polled);
void aiod_ring_set_sleeping(struct aiod_polled *polled, bool sleeping);

/* ---- files that the ring opens and closes by itself (collect.h, ring_opens.c): the main loop's thread ------------- */

/* Has an open been refused since the last call because every lent number was in use? */
bool aiod_ring_opens_ran_out(struct aiod_ring *ring);

/* Lend a number to the ring, which has less than AIOD_RING_NUMBERS_MAX. */
void aiod_ring_opens_lend(struct aiod_ring *ring, uint32_t number);

/* Take back a number that is not in use. False: there is none. */
bool aiod_ring_opens_take_back(struct aiod_ring *ring, uint32_t *number);

/* Is there something to collect? Without the lock, so the answer may be outdated, but not for what a client knows. */
bool aiod_ring_opens_any(const struct aiod_ring *ring);

/*
 * Collect handles that are open, in the order of opening, linked by ring_next: the caller registers them. Frees the
 * closed ones.
 */
struct aiod_handle *aiod_ring_opens_collect(struct aiod_ring *ring, enum aiod_collect which);

/* ---- the same: threads that take, and workers --------------------------------------------------------------------- */

/* Take a number for an OPEN_FILE. False: there is none. Lock held. */
bool aiod_ring_opens_begin(struct aiod_ring *ring, uint32_t *number);

/*
 * The OPEN_FILE has ended with `result`: make the handle, and write the record to the client's buffer, or return the
 * number. The request's result. Lock not held.
 */
int64_t aiod_ring_opens_finish(struct aiod_ring_request *request, int64_t result);

/* The file of a CLOSE_FILE is closed: let the supervisor close its descriptor, too. Lock not held. */
void aiod_ring_opens_drop(const struct aiod_ring *ring, const struct aiod_handle *handle);

/*
 * Remove the handle from the ring for a CLOSE_FILE, which closes `descriptors` (-1: none). False: it has to be
 * closed by a message, because requests are in flight on it, or a close may wait for a server. Lock held.
 */
bool aiod_ring_opens_begin_close(struct aiod_ring *ring, struct aiod_handle *handle, int descriptors[2]);

/*
 * Has the main loop to carry out the CLOSE_FILE, because it has the handle already? Not while requests are in flight on it, nor
 * where a close may wait for a server. Lock held.
 */
bool aiod_ring_opens_passes_close(const struct aiod_handle *handle);

/*
 * Give up the handle, whose CLOSE_FILE `request` is for the main loop: AIOD_TASK_RING_CLOSE. The ring uses the handle no
 * more, and the request has its number. Lock held; aiod_ring_opens_notify_close() must follow without it.
 */
void aiod_ring_opens_pass_close(struct aiod_ring_request *request, struct aiod_handle *handle);
void aiod_ring_opens_notify_close(struct aiod_ring_request *request);

/* Main loop's thread: the file is closed, or cannot be (`result`, of the `reason`). Answer the request. */
void aiod_ring_opens_answer_close(struct aiod_ring_request *request, int64_t result, enum aiod_reason reason);

/* The descriptor is closed, and the CLOSE_FILE does not use the handle any more. Lock held. */
void aiod_ring_opens_end_close(struct aiod_ring *ring, struct aiod_handle *handle);

/* ---- between ring.c and ring_admission.c ------------------------------------------------------------------------- */

/* The result of a request. */
struct aiod_ring_completion {
    uint64_t cookie;
    int64_t result;
    uint64_t written;
    enum aiod_reason reason;
};

/* Write a completion to the completion queue, in which it has room. Lock held; aiod_ring_wake_client() must follow, soon. */
void aiod_ring_publish(struct aiod_ring *ring, const struct aiod_ring_completion *end);

/* Wake the client if it sleeps. Lock not held. */
void aiod_ring_wake_client(struct aiod_ring *ring);

/*
 * The same, if it has not seen all completions: the worker that is to wake it for several of them may hang in its next request.
 * Main loop's thread.
 */
void aiod_ring_wake_unseen(struct aiod_ring *ring);

/* Complete a request, and release its slot and its handles. Lock not held. */
void aiod_ring_finish(struct aiod_ring_request *request, const struct aiod_ring_completion *end,
                      const struct aiod_timing *timing);

/* The client broke a rule, which `why` describes: end the ring, and notify the main loop once. */
void aiod_ring_break(struct aiod_ring *ring, const char *why);

/*
 * Is a page of the memory missing (memory_guard.h)? If so, the ring is broken. To be called after the memory was used:
 * values that were read must not be used, and values that were written did not reach the client.
 */
bool aiod_ring_is_lost(struct aiod_ring *ring);

#endif
