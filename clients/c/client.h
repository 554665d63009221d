/*
 * client.h - the state of a client, private to libaiod.
 *
 * Each file has its part of the state. Calls between the files go one way: a file calls only those that stand
 * before it here (tests/unit/test_libaiod_layers.py).
 *
 *     error, endpoint, wire, attach                        messages for the caller; the socket; attaching to an engine
 *     forks, polling                                       properties of the process and of the thread
 *     buffer_pool, buffer_areas                            the ring's buffer area
 *     loop, waiters                                        sleeping and waking
 *     buffers, queue                                       buffers; requests in flight
 *     held_locks, open_files, calls                        the caller's locks and handles; calls on the socket
 *     session_end                                          the end of a session
 *     reopen, reattach, resume_requests, resume            continuing with another engine
 *     wait, requests                                       waiting for requests; submitting and reaping them
 *     file_calls, ring_files                               opening and closing files: by message, by the ring
 *     files, locks, events, session, blocking, paths       the other functions of aiod.h
 *
 * Lock order: `socket_lock`, then `lock`. No thread sleeps with `lock` held.
 */
#ifndef LIBAIOD_CLIENT_H
#define LIBAIOD_CLIENT_H

#include <assert.h>
#include <pthread.h>
#include <sys/types.h>

#include "aiod.h"
#include "buffer_areas.h"
#include "calls.h"
#include "loop.h"
#include "open_files.h"
#include "polling.h"
#include "queue.h"
#include "waiters.h"

static_assert(sizeof(struct aiod_ring_sqe) == 64 && sizeof(struct aiod_ring_cqe) == 32 &&
                  sizeof(struct aiod_ring_header) == 6 * AIOD_RING_LINE_BYTES,
              "docs/ring.md");
static_assert(sizeof(off_t) == sizeof(uint64_t), "offsets are of 64 bits");

struct aiod_resume;
struct aiod_export_names;

struct aiod_client {
    /*
     * Constant. The descriptors and the memory at `base` become the next engine's without changing number or
     * address.
     */
    int socket;
    int doorbell;
    char *base;           /* the ring's memory but for the buffer area */
    uint64_t queue_bytes; /* its length */
    struct aiod_ring_header *header;
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    uint32_t entries;
    uint64_t request_bytes_max;
    uint64_t call_timeout_ns;
    unsigned forks; /* for aiod_forked() */
    const struct aiod_queue_hooks *hooks;
    struct aiod_resume *resume;         /* NULL: the session ends with its engine */
    struct aiod_open_files *open_files; /* of `resume`; NULL: the caller has the engine's handles */

    pthread_mutex_t socket_lock; /* held while another engine is attached to */
    uint64_t next_cookie;        /* of calls; atomic */

    pthread_mutex_t lock;

    /* Protected by lock. */
    int ended;              /* errno; 0: the session has not ended */
    const char *end_reason; /* NULL: see aiod_end_reason() */
    bool away;         /* no engine is connected: another is looked for, and requests keep their slots until then */
    pid_t engine_pid;  /* 0: unknown; loaded without the lock, too */
    uint32_t features; /* of the engine: bits of enum aiod_ring_feature */
    uint32_t borrowed; /* buffers of blocking calls, which release them soon */
    struct aiod_buffer_areas areas;
    struct aiod_queue queue;
    struct aiod_waiters waiters;
    struct aiod_polling polling;       /* while the engine is awake */
    struct aiod_polling short_polling; /* while it sleeps: for no longer than a sleep and a wake-up would take */
    struct aiod_loop loop;
    struct aiod_calls calls;
    struct aiod_export_names *names; /* of the exports whose files were opened */
    uint32_t opened_by_ring;         /* and not closed by it */
};

/* Why the session has ended, as far as it is known. */
static inline const char *aiod_end_reason(const struct aiod_client *client)
{
    return client->end_reason != NULL ? client->end_reason : "the engine has closed the connection or died";
}

#endif
