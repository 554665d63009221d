/*
 * core.h - the native half of an engine: sessions and their handles, rings, and the pool.
 *
 * Threads. All functions belong to the main loop's thread, and only aiod_core_stop() blocks. Requests run on the pool's
 * workers (pool/pool.h), of which idle ones poll the rings (pool/polling.c, ring/poller.h); two other kinds of threads
 * exist: the maker of rings (ring/ring_maker.h), and the threads that open files as the client (pool/open_as_client.h).
 *
 * Lock order, over all folders: aiod_file.position, range locks (ops/range_locks.h), a ring's `taking`, a ring's
 * `lock`, then one of the others, which are not nested: pool, flush, flush writers, buffer cache, poller, maker,
 * open_as_client.
 */
#ifndef AIOD_CORE_H
#define AIOD_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/files.h"
#include "pool/open_as_client_threads.h"
#include "pool/pool.h"
#include "ring/collect.h"
#include "session/io.h"
#include "session/op_stats.h"
#include "session/reply.h"
#include "session/session.h"
#include "util/buffers.h"

/* The limit for inline reads of one batch: copying must not keep the main loop busy. */
#define AIOD_INLINE_BATCH_BYTES_MAX (2u * 1024u * 1024u)

struct aiod_vhost_device;

struct aiod_core_config {
    struct aiod_pool_config pool;
    uint64_t inline_read_max; /* bytes; 0: no inline reads */
    size_t buffer_cache_max;  /* bytes */
    uint64_t poll_max_ns;     /* the longest time that the leader polls before it sleeps */
    unsigned rings_max;
};

struct aiod_core {
    struct aiod_pool *pool;
    struct aiod_buffers buffers;
    struct aiod_files files;
    struct aiod_export_stats *exports;
    struct aiod_stats stats; /* requests that belong to no export; without those of existing rings */
    uint64_t inline_read_max;
    uint64_t slow_ns;   /* 0: no request is slow */
    bool takes_repeats; /* accept requests with AIOD_REPEAT: during the grace period (engine/grace_period.py) */
    bool draining;      /* accessed by atomic operations: polling workers read it */
    bool stopping;
    bool stopped;
    uint64_t bytes_inflight; /* of requests by message */
    uint32_t inflight;       /* requests by message, and controls */
    uint32_t handle_count;
    uint64_t names_count; /* NAMES handles made so far */
    uint32_t lent_count;  /* numbers of handles that are lent to rings */
    struct aiod_collect_timer collect_timer;
    struct aiod_poller *poller;
    struct aiod_ring_maker *maker;
    struct aiod_open_as_client_threads open_as_client;
    struct aiod_ring *rings; /* doubly linked; a ring stays in the list until its memory is free */
    uint32_t ring_count;
    uint64_t ring_bytes;             /* of the rings' memory */
    struct aiod_vhost_device *vhost; /* NULL: the engine serves no guest */
};

/* Create a core, its pool and its threads' state. 0, or -errno. */
int aiod_core_create(struct aiod_core **core, const struct aiod_core_config *config);

/* Free the core. If workers are still in system calls, the memory that they use stays allocated. */
void aiod_core_destroy(struct aiod_core *core);

/*
 * Validates a SUBMIT batch of `count` records with their payloads, and executes or queues each request. Requests that
 * complete at once are in `*reply` (NULL: none), the others come from aiod_core_reap(). Takes a reference of each
 * payload that it keeps. NULL, or the error of the whole batch: then nothing was executed, and the caller must end the
 * session.
 */
const char *aiod_core_submit(struct aiod_core *core, struct aiod_session *session, uint64_t received,
                             const void *records, size_t count, struct aiod_payload **payloads, size_t payload_count,
                             struct aiod_reply **reply);

/* The result of aiod_core_reap(). */
struct aiod_reaped {
    struct aiod_reply *replies;    /* grouped by session, in the order of completion */
    struct aiod_control *controls; /* only those with a tag */
    struct aiod_session *broken;   /* linked by next_broken: sessions to end, for the reason in `broken` */
    /* linked by next_attached: aiod_core_attach() has finished, with the result in `attach_error` */
    struct aiod_session *attached;
    struct aiod_handle *to_close; /* linked by next_to_close: their clients have asked for it by their rings */
};

/* Take everything that has completed. The number of entries, notices to the core included. */
size_t aiod_core_reap(struct aiod_core *core, struct aiod_reaped *reaped);

void aiod_control_destroy(struct aiod_control *control);

/* Cancel the session's queued requests with these cookies. Sorts `cookies`. The number of cancelled requests. */
size_t aiod_core_cancel(struct aiod_core *core, struct aiod_session *session, uint64_t *cookies, size_t count);

/*
 * Open a file on a worker or, with `as`, on the export's thread with that identity (pool/open_as_client_threads.h);
 * ends as a control. An open that has not started after `timeout_ns` (0: no limit) ends with -ETIMEDOUT. Takes over
 * `as` in any case. 0, or -errno.
 *
 * `rate`, here and below, is that of the export; NULL: none. While requests of the export hang, its opens wait as well
 * (pool/fair_queue.h). They are not charged to the rate. `transport` is how the client's message came.
 */
int aiod_core_open(struct aiod_core *core, uint64_t tag, enum aiod_transport transport, struct aiod_rate *rate,
                   const char *root, const char *path, unsigned flags, const struct aiod_creation *creation,
                   struct aiod_identity *as, uint64_t timeout_ns);

/* Run a directory operation in the same way. Takes over `directory_op` and `as` in any case. 0, or -errno. */
int aiod_core_directory_op(struct aiod_core *core, uint64_t tag, enum aiod_transport transport, struct aiod_rate *rate,
                           struct aiod_directory_op *directory_op, struct aiod_identity *as, uint64_t timeout_ns);

/*
 * Open the file of a handle again by its name, and move the handle to the mount that is there now, if it is another one
 * (session/move_handle.h); ends as a control, with the result of aiod_handle_move(). As aiod_core_open() otherwise. -EBADF:
 * no such handle.
 */
int aiod_core_move_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                          const char *root, const char *path, bool no_links, struct aiod_identity *as,
                          uint64_t timeout_ns);

/* Describe a descriptor that an earlier engine had open (aiod_confined_adopt()), in the same way. 0, or -ENOMEM. */
int aiod_core_adopt(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd, unsigned flags);

/*
 * Make `fd` a handle of the session; `resumed` (NULL: a new file) describes its state in an earlier engine. `flush_fd`
 * (-1: none), an open file description for flushes only, is taken over in any case. The handle's number, or -EMFILE,
 * -ENOMEM: then `fd` still belongs to the caller.
 */
int64_t aiod_core_add_handle(struct aiod_core *core, struct aiod_session *session, int fd, int flush_fd, uint64_t dev,
                             uint64_t ino, const struct aiod_handle_use *use, const struct aiod_resumed *resumed);

/*
 * Make a NAMES handle of the session (`use->names`): it has no descriptor, so that it keeps no file system in use. The
 * handle's number, or -EMFILE, -ENOMEM.
 */
int64_t aiod_core_add_names(struct aiod_core *core, struct aiod_session *session, const struct aiod_handle_use *use);

/* Have all NAMES handles of the session serve no more requests: what its client may do has changed. */
void aiod_core_revoke_names(struct aiod_session *session);

/*
 * Lend numbers of handles to the session's ring (ring/collect.h), up to `count` of them, so many as the session's
 * limits allow. Their number; 0 without a ring.
 */
uint32_t aiod_core_lend_handles(struct aiod_core *core, struct aiod_session *session, uint32_t count);

/* Take back the numbers that the ring does not use. Their number. */
uint32_t aiod_core_take_back_handles(struct aiod_core *core, struct aiod_session *session);

/* Has an open by the session's ring been refused since the last call because every lent number was in use? */
bool aiod_core_ran_out_of_handles(const struct aiod_session *session);

/* Has the session's ring opened or closed files since it was collected? */
bool aiod_core_has_opened(const struct aiod_session *session);

/* The collect timer has expired: the sessions of which that is true, and that have an owner, linked by next_to_collect. */
struct aiod_session *aiod_core_sessions_to_collect(struct aiod_core *core);

/*
 * Register the handles that the session's ring has opened, or those that have been open for some time: linked by
 * ring_next, in the order of opening, until the next call.
 */
struct aiod_handle *aiod_core_collect_opened(struct aiod_core *core, struct aiod_session *session, bool all);

/* Close a descriptor on a worker; ends as a control, also if `fd` is -1. */
void aiod_core_close_fd(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd);

/* Close a handle as soon as it has no requests in flight; ends as a control. 0, or -EBADF. */
int aiod_core_close_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number);

/*
 * AIOD_TASK_RING_CLOSE: the handle that the caller has to close by aiod_core_close_handle(), whose end answers the request.
 * NULL: it is closed already, and the request is answered.
 */
struct aiod_handle *aiod_core_take_ring_close(struct aiod_ring_request *request);

/*
 * Make durable everything that is completed on the handle's file; ends as a control. 0, or -EBADF, -ENOMEM, or -EIO:
 * writes may have been lost, which the handle's next flush will report.
 */
int aiod_core_flush_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number);

/*
 * Announce the end of the drain to the session's client by its ring, if it has one: nothing is in flight any more.
 * `flushed`: everything that was completed is durable.
 */
void aiod_core_announce_drained(struct aiod_session *session, bool flushed);

/*
 * Cancel the session's queued requests, close its handles, and deliver nothing any more. The caller's reference stays.
 */
void aiod_core_end_session(struct aiod_core *core, struct aiod_session *session);

/* Refuse new requests from now on. */
void aiod_core_drain(struct aiod_core *core);

/* The descriptors of a ring for its client. They stay the ring's. */
struct aiod_attached {
    int memory_fd;
    int doorbell_fd;
    uint64_t memory_bytes;
};

/*
 * Start to create a ring for the session (ring/ring.h), which takes longer for more memory. `wake_fd` is the client's
 * socket, which is duplicated (-1: none). 0: *memory_bytes bytes count from now on, and aiod_core_reap() reports the
 * result, unless the session ends before. -EEXIST: the session has a ring. -EINVAL: wrong sizes. Or another -errno.
 *
 * The result is aiod_session.attach_error: 0; -EAGAIN: there are rings_max rings; or another -errno.
 */
int aiod_core_attach(struct aiod_core *core, struct aiod_session *session, int wake_fd, uint32_t entries,
                     uint64_t area_bytes, uint64_t *memory_bytes);

/* For a session with a ring. */
struct aiod_attached aiod_core_attached(const struct aiod_session *session);

/* Requests and controls in flight, including those of rings and guests. */
uint32_t aiod_core_inflight(struct aiod_core *core);
uint64_t aiod_core_bytes_inflight(struct aiod_core *core);
uint32_t aiod_core_session_inflight(const struct aiod_session *session);

/*
 * Take a snapshot of all counts, including those of rings: each export's are in aiod_export_stats.shown until
 * aiod_export_stats_end(), those that belong to no export are added to `unnamed`, and all together to `stats`.
 */
void aiod_core_snapshot_stats(struct aiod_core *core, struct aiod_stats *stats, struct aiod_stats *unnamed);

/* The counts of the handle's export, or of the requests without one; `handle` may be NULL. */
struct aiod_stats *aiod_core_stats_of(struct aiod_core *core, const struct aiod_handle *handle);

/* Add the counts of the session to `stats`, including those of its ring. */
void aiod_core_add_session_stats(const struct aiod_session *session, struct aiod_stats *stats);

/*
 * Set the affinity of all workers and of the maker to that of the main loop's thread
 * (aiod_pool_follow_affinity()).
 */
int aiod_core_follow_affinity(struct aiod_core *core);

/* Set the limits for slow requests and stuck workers (aiod_pool_set_slow_limits()). */
void aiod_core_set_slow_limits(struct aiod_core *core, uint64_t slow_ns, unsigned stuck_threads_max);

/* An active request. Its pointers are valid until the next call of a function of this file. */
struct aiod_active_request_info {
    enum aiod_op op;
    const struct aiod_handle *handle; /* NULL: an open, close or directory operation, identified by `tag` */
    uint64_t tag;
    uint64_t offset;
    uint64_t length;
    uint64_t age_ns; /* since it was started */
    /* 0: no thread works on it, because it shares another request's flush, or was started by io_uring */
    pid_t tid;
    bool started; /* by io_uring */
};

/* Write up to `max` active requests to `views`, oldest first. Their number. */
size_t aiod_core_active_requests(struct aiod_core *core, struct aiod_active_request_info *views, size_t max);

/*
 * The same for requests that have become slow since the last call. To be called regularly: it also counts stuck
 * workers, so that they are replaced (pool/pool.h), and ends requests that have waited too long for a thread with the
 * client's identity.
 */
size_t aiod_core_find_slow(struct aiod_core *core, struct aiod_active_request_info *views, size_t max);

/*
 * Stop all threads, waiting up to `timeout_ns` for each kind. False: a thread is still in a system call. Call
 * aiod_core_reap() once more afterwards.
 */
bool aiod_core_stop(struct aiod_core *core, uint64_t timeout_ns);

/* ---- file locks (core_locks.c) ------------------------------------------------------------------------------------ */

/*
 * Try once to take a lock of the handle's file; ends as a control with the result of aiod_file_lock_take(), or of
 * aiod_file_lock_regain() if `regain` is not 0. 0, or -EBADF, -ENOMEM.
 */
int aiod_core_lock(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                   const struct aiod_file_lock *lock, uint64_t regain);

/*
 * Release the locks of a range when every request by message that is in flight on the handle has ended; ends as a
 * control. One call for a handle at a time. 0, or -EBADF, -ENOMEM.
 */
int aiod_core_unlock(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                     uint64_t first, uint64_t last);

/*
 * Set whether the client has locks of the handle, held or lost; whether one is lost, so that the handle's requests are
 * refused; and the exclusive locks that were regained (malloc(); the handle frees them). 0, or -EBADF.
 */
int aiod_core_set_locks(struct aiod_session *session, uint32_t number, bool held, bool lost,
                        struct aiod_file_lock *regained, size_t count);

/* Is the range within one of the regained locks? `handle` may be NULL. */
bool aiod_core_lock_covers(const struct aiod_handle *handle, uint64_t offset, uint64_t length);

/* ---- between core.c, core_handles.c, core_locks.c, core_rings.c and core_reap.c ----------------------------------- */

/* core_handles.c: allocate a control for the export with this rate (NULL: none). NULL if there is no memory. */
struct aiod_control *aiod_core_create_control(enum aiod_op op, uint64_t tag, struct aiod_rate *rate);

/* core_handles.c: count the control, and queue it to the pool. */
void aiod_core_submit_control(struct aiod_core *core, struct aiod_control *control);

/* core_locks.c: a request that the unlock waits for has ended. */
void aiod_core_continue_unlock(struct aiod_core *core, struct aiod_control *unlock);

/* core_locks.c: release all locks of a handle that is closing; then aiod_core_release_handle() follows. 0, or -ENOMEM. */
int aiod_core_release_locks(struct aiod_core *core, struct aiod_handle *handle);

/* core_handles.c: refuse new requests on the handle, and close it as soon as it has none in flight; ends as a control. */
void aiod_core_start_close(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle);

/* core_handles.c: a request on the handle has ended. Closes the handle if it is closing and this was the last one. */
void aiod_core_release_handle(struct aiod_core *core, struct aiod_handle *handle);

/* core_handles.c: the session ends: register what its ring has opened, which opens no more. */
void aiod_core_end_opens(struct aiod_core *core, struct aiod_session *session);

/* core_rings.c: free a ring without memory, or whose memory was freed. */
void aiod_core_remove_ring(struct aiod_core *core, struct aiod_ring *ring);

/*
 * core_rings.c: the maker has finished. The ring is not needed if the session has ended meanwhile or the core is
 * stopping; then the result is not reported.
 */
void aiod_core_finish_attach(struct aiod_core *core, struct aiod_ring *ring, struct aiod_reaped *reaped);

#endif
