/*
 * ring.h - the engine's end of one shared-memory ring: what its client submits, and who completes it.
 *
 * Three kinds of threads meet here. The poller (core/ring/poller.h) takes submissions; workers complete what was queued, each
 * into the completion queue itself, since one hand-over less is tens of microseconds, and then look whether the client has
 * submitted more: so under load nobody is woken for a request; the main loop attaches, adds and forgets handles, and ends
 * the ring. What they share is under `lock`, held for a few dozen instructions and over no system
 * call.
 *
 * Nothing in the memory is trusted: an entry is copied once, then checked, then used; the indices that the engine writes it
 * keeps for itself; a client that breaks the rules of aiod_ring.h, or whose memory has a hole that cannot be filled, loses
 * its session.
 *
 * Its birth: the main loop creates it, the maker's thread (ring_maker.h) makes its memory and tells the main loop, which gives
 * it to the session and the poller then, unless the session has ended meanwhile.
 *
 * Its end: references are held by the session, by the poller, by each request in flight and by the notice that it is
 * broken. When the last one has gone the maker's thread gives the memory back and tells the main loop, by the pool's list of
 * what is done.
 */
#ifndef AIOD_RING_H
#define AIOD_RING_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/buffers.h"
#include "ring/cookies.h"
#include "session/io.h"
#include "session/op_stats.h"
#include "pool/pool.h"
#include "ring/ring_maker.h"
#include "ring/ring_memory.h"
#include "session/session.h"

#define AIOD_RING_BATCH 64u                      /* entries taken before the other rings have their turn */
#define AIOD_RING_BATCH_BYTES_MAX (256u * 1024u) /* of inline reads among them */

struct aiod_ring;

/* A request in flight: a place in its ring. */
struct aiod_ring_request {
    struct aiod_io io; /* first */
    struct aiod_ring *ring;
    struct aiod_cookie cookie;
    struct aiod_ring_request *next_free;
};

struct aiod_ring {
    /* Constant after creation. */
    struct aiod_ring_memory memory;
    struct aiod_session *session; /* one reference, the main loop's to give back */
    struct aiod_pool *pool;
    struct aiod_ring_maker *maker;
    struct aiod_buffers *buffers;
    const bool *draining; /* new requests are refused; read by atomic operations */
    int doorbell_fd;      /* eventfd: the client writes, nobody reads */
    int wake_fd;          /* the socket, a descriptor of the ring's own; -1: none */
    pid_t client_pid;     /* at the other end of it; 0: unknown */
    uint64_t inline_read_max;
    uint64_t request_bytes_max;
    uint32_t handles_max;

    /* The maker's while it has a job of the ring, until the notice that the job ends with. */
    uint32_t entries;
    uint64_t area_bytes;
    bool made;      /* there is memory */
    int make_error; /* 0, or -errno: there is none */
    struct aiod_ring_job make_job;
    struct aiod_ring_job unmake_job;
    struct aiod_task made_notice;

    struct aiod_ring *next; /* the main loop's: the engine's rings */
    struct aiod_ring *previous;

    pthread_mutex_t taking; /* held by who takes submissions; only tried, never waited for */
    uint32_t sq_head;       /* written by who takes, with atomic operations */

    uint32_t slept_head; /* the poller's: sq_head when it went to sleep last */

    atomic_uint refs;
    atomic_bool ended; /* nothing is taken any more */

    pthread_mutex_t lock;

    /* Protected by lock. */
    uint32_t cq_tail;
    uint32_t cq_head; /* as it was when last looked at */
    uint32_t inflight;
    uint64_t bytes_inflight;      /* of reads and writes */
    struct aiod_handle **handles; /* by index, as the session's slots */
    struct aiod_ring_request *free;
    struct aiod_cookies cookies; /* of what was queued and has not ended */
    struct aiod_stats stats;

    /* Written once, before broken_notice is handed to the main loop. */
    const char *broken;
    struct aiod_task broken_notice;
    struct aiod_task gone_notice;

    struct aiod_ring_request requests[]; /* memory.entries */
};

struct aiod_ring_config {
    struct aiod_session *session;
    struct aiod_pool *pool;
    struct aiod_ring_maker *maker;
    struct aiod_buffers *buffers;
    const bool *draining;
    uint64_t inline_read_max;
    uint32_t entries;
    uint64_t area_bytes;
    int wake_fd; /* is duplicated; -1: a client that waits by futex alone */
};

/* ---- the main loop's thread --------------------------------------------------------------------------------------- */

/* Without memory yet, and with one reference, the session's; aiod_ring_memory_bytes() was not 0. 0, or -errno. */
int aiod_ring_create(struct aiod_ring **ring, const struct aiod_ring_config *config);

/* Have the maker make the memory: AIOD_TASK_RING_MADE comes to the main loop then. 0, or -errno: no thread could be created. */
int aiod_ring_make(struct aiod_ring *ring);

/* It is made: let it know the session's handles. */
void aiod_ring_add_handles(struct aiod_ring *ring);

/* The ring whose notice it is. */
struct aiod_ring *aiod_ring_of_made(struct aiod_task *notice);
struct aiod_ring *aiod_ring_of_broken(struct aiod_task *notice);
struct aiod_ring *aiod_ring_of_gone(struct aiod_task *notice);

/* The session has a new handle. */
void aiod_ring_add_handle(struct aiod_ring *ring, struct aiod_handle *handle);

/* The session's handle is being closed. False: requests are in flight on it, aiod_handle.left comes when none is. */
bool aiod_ring_forget_handle(struct aiod_ring *ring, struct aiod_handle *handle);

/* Take nothing any more, cancel what is queued, give the session's reference back. */
void aiod_ring_end(struct aiod_ring *ring);

/* Before aiod_ring_end(): what the client is informed of at the shutdown (bits of enum aiod_ring_shutdown_notice). */
void aiod_ring_set_shutdown_notice(struct aiod_ring *ring, uint32_t notice);

/* After AIOD_TASK_RING_GONE, or of one that was not made: free what is left, counts going to `stats`. */
void aiod_ring_free(struct aiod_ring *ring, struct aiod_stats *stats);

/* ---- any thread ----------------------------------------------------------------------------------------------------- */

void aiod_ring_get(struct aiod_ring *ring);

/* With the last reference the maker gives the memory back: AIOD_TASK_RING_GONE comes to the main loop then. */
void aiod_ring_put(struct aiod_ring *ring);

uint32_t aiod_ring_inflight(struct aiod_ring *ring);
uint64_t aiod_ring_bytes_inflight(struct aiod_ring *ring);

/* How many submissions have been taken, modulo 2^32. */
uint32_t aiod_ring_taken(const struct aiod_ring *ring);

/* Add what was counted to `stats`, which is the caller's. */
void aiod_ring_add_stats(struct aiod_ring *ring, struct aiod_stats *stats);

/* ---- who takes: the poller, and workers that have completed a request (ring_admission.c) -------------------------------------------------------------------------- */

/* Take up to AIOD_RING_BATCH submissions, and carry out or queue them. Returns how many; 0 while another thread takes. */
unsigned aiod_ring_take(struct aiod_ring *ring);

/* Is there something to take? */
bool aiod_ring_has_entries(const struct aiod_ring *ring);

/* Say that the engine sleeps, or not. A look at aiod_ring_has_entries() must follow before it does. */
void aiod_ring_set_sleeping(struct aiod_ring *ring, bool sleeping);

/* ---- between ring.c and ring_admission.c ------------------------------------------------------------------------------ */

/* How a request ended. */
struct aiod_ring_completion {
    uint64_t cookie;
    int64_t result;
    uint64_t written;
    enum aiod_reason reason;
};

/* Put it into the completion queue, where room was kept for it. Lock held; aiod_ring_wake_client() has to follow. */
void aiod_ring_publish(struct aiod_ring *ring, const struct aiod_ring_completion *end);

/* Wake the client if it sleeps. Lock not held. */
void aiod_ring_wake_client(struct aiod_ring *ring);

/* The request is over, and `end` its completion: give its place and its handles back. Lock not held. */
void aiod_ring_finish(struct aiod_ring_request *request, const struct aiod_ring_completion *end,
                      const struct aiod_timing *timing);

/* The client has broken the rules, `why` says which one: the main loop is told, once. */
void aiod_ring_break(struct aiod_ring *ring, const char *why);

/*
 * Is a page of its memory gone (memory_guard.h)? Then it is broken by this. To be asked after the memory has been used: what
 * was read there is void, what was written there has reached nobody.
 */
bool aiod_ring_is_lost(struct aiod_ring *ring);

#endif
