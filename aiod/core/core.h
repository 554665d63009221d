/*
 * core.h - one engine's native half: sessions and their handles in front of the pool.
 *
 * Everything here belongs to the main loop's thread, and nothing blocks but aiod_core_stop().
 */
#ifndef AIOD_CORE_H
#define AIOD_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/buffers.h"
#include "ops/files.h"
#include "session/io.h"
#include "session/op_stats.h"
#include "pool/open_as_client_threads.h"
#include "pool/pool.h"
#include "session/reply.h"
#include "session/session.h"

/* What one batch may read inline at most: the main loop must not spend its time on copying. */
#define AIOD_INLINE_BATCH_BYTES_MAX (2u * 1024u * 1024u)

struct aiod_core_config {
    struct aiod_pool_config pool;
    uint64_t inline_read_max; /* bytes; 0: every read goes to a worker */
    size_t buffer_cache_max;  /* bytes */
    uint64_t poll_max_ns;     /* the longest that the poller looks on before it sleeps */
    unsigned rings_max;
};

struct aiod_core {
    struct aiod_pool *pool;
    struct aiod_buffers buffers;
    struct aiod_files files;
    struct aiod_stats stats; /* without those of living rings */
    uint64_t inline_read_max;
    uint64_t slow_ns;   /* 0: nothing is ever slow */
    bool takes_repeats; /* requests with AIOD_REPEAT: during the grace period (engine/grace_period.py) */
    bool draining;      /* by atomic operations, where the poller may be looking */
    bool stopping;
    bool stopped;
    uint64_t bytes_inflight; /* of messages */
    uint32_t inflight;       /* requests by message, and controls */
    uint32_t handle_count;
    uint32_t descriptor_count; /* held for them: one each, and one for the flushes of a file that is written */
    struct aiod_poller *poller;
    struct aiod_ring_maker *maker;
    struct aiod_open_as_client_threads open_as_client;
    struct aiod_ring *rings; /* doubly linked; each until its memory is free */
    uint32_t ring_count;
    uint64_t ring_bytes; /* of their memory */
};

/* 0, or -errno. */
int aiod_core_create(struct aiod_core **core, const struct aiod_core_config *config);

/* Free it; when workers are still inside a system call, what they use stays. */
void aiod_core_destroy(struct aiod_core *core);

/*
 * Admit `count` records and their payloads; what completes at once is in `*reply` (NULL: nothing), the rest comes from
 * aiod_core_reap(). Takes a reference of each payload that it keeps. Returns NULL, or what is wrong with the whole batch:
 * then nothing of it was executed, and the session has to be ended.
 */
const char *aiod_core_submit(struct aiod_core *core, struct aiod_session *session, uint64_t received,
                             const void *records, size_t count, struct aiod_payload **payloads, size_t payload_count,
                             struct aiod_reply **reply);

/* What aiod_core_reap() has taken. */
struct aiod_reaped {
    struct aiod_reply *replies;    /* grouped by session, each session's in order */
    struct aiod_control *controls; /* with a tag */
    struct aiod_session *broken;   /* linked by next_broken: to be ended, `broken` says why */
    struct aiod_session *attached; /* linked by next_attached: aiod_core_attach() has ended, `attach_error` says how */
};

/* Take what has completed. Returns how much that was, things for the core itself included. */
size_t aiod_core_reap(struct aiod_core *core, struct aiod_reaped *reaped);

void aiod_control_destroy(struct aiod_control *control);

/* Cancel the session's requests of these cookies (which it sorts) that are still queued. Returns how many. */
size_t aiod_core_cancel(struct aiod_core *core, struct aiod_session *session, uint64_t *cookies, size_t count);

/*
 * Open on a worker or, with `as`, as that client on the thread of the export's opener (pool/open_as_client_threads.h); ends as a control. What has
 * not been begun after `timeout_ns` (0: for ever) ends with -ETIMEDOUT. Takes over `as`, also when it fails: 0, or -errno.
 *
 * `rate` is that of the export, here and below; NULL: none. While requests of that export hang, it waits with the others
 * (pool/fair_queue.h), and is not charged to the rate.
 */
int aiod_core_open(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, const char *root, const char *path,
                   unsigned flags, const struct aiod_creation *creation, struct aiod_identity *as, uint64_t timeout_ns);

/* Look at or change names, alike. Takes over `naming` and `as`, also when it fails: 0, or -errno. */
int aiod_core_directory_op(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate,
                           struct aiod_directory_op *directory_op, struct aiod_identity *as, uint64_t timeout_ns);

/* Find out about a descriptor that an earlier engine had open (aiod_adopt()), alike. 0, or -ENOMEM. */
int aiod_core_adopt(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd, unsigned flags);

/*
 * Give `fd` to the session; `resumed` (NULL: it is a new one) says what it was to an earlier engine. `flush_fd` (-1: none) is
 * the file for flushes alone, an open file description of its own; taken over in any case. A handle's number, or -EMFILE,
 * -ENOMEM (then `fd` is still the caller's).
 */
int64_t aiod_core_add_handle(struct aiod_core *core, struct aiod_session *session, int fd, int flush_fd, uint64_t dev,
                             uint64_t ino, const struct aiod_handle_use *use, const struct aiod_resumed *resumed);

/* Close a descriptor on a worker, which has nothing to do when `fd` is negative. */
void aiod_core_close_fd(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd);

/* Close a handle when nothing is in flight on it any more; ends as a control. 0, or -EBADF. */
int aiod_core_close_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number);

/*
 * Have on disk all that is completed on the handle's file; ends as a control. 0, or -EBADF, -ENOMEM, or -EIO: what was
 * written may be lost, and the handle's next flush is to say so.
 */
int aiod_core_flush_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number);

/*
 * Nothing is in flight any more, and nothing will be: say so to the session's client by its ring, if it has one. `flushed`: and
 * all that was completed is on disk.
 */
void aiod_core_announce_drained(struct aiod_session *session, bool flushed);

/* Cancel what is queued, close the handles, deliver nothing any more. The caller's reference stays the caller's. */
void aiod_core_end_session(struct aiod_core *core, struct aiod_session *session);

/* Refuse new requests. */
void aiod_core_drain(struct aiod_core *core);

/* What a ring hands to its client. Descriptors stay the ring's. */
struct aiod_attached {
    int memory_fd;
    int doorbell_fd;
    uint64_t memory_bytes;
};

/*
 * Begin to give the session a ring (core/ring/ring.h), which takes as long as its memory is large; `wake_fd` is its socket, of which
 * a duplicate is used, -1: none. 0: it counts from now on, as *memory_bytes, and the end comes by aiod_core_reap(), unless the
 * session ends before; -EEXIST: it has one; -EINVAL: no ring is like that; or another -errno.
 *
 * aiod_session.attach_error is 0 then, or -EAGAIN: there are rings_max; or another -errno.
 */
int aiod_core_attach(struct aiod_core *core, struct aiod_session *session, int wake_fd, uint32_t entries,
                     uint64_t area_bytes, uint64_t *memory_bytes);

/* Of a session that has a ring. */
struct aiod_attached aiod_core_attached(const struct aiod_session *session);

/* Requests and controls in flight, those of rings included. */
uint32_t aiod_core_inflight(struct aiod_core *core);
uint64_t aiod_core_bytes_inflight(struct aiod_core *core);
uint32_t aiod_core_session_inflight(const struct aiod_session *session);

/* Add what was counted to `stats`, rings included. */
void aiod_core_add_stats(struct aiod_core *core, struct aiod_stats *stats);
void aiod_core_add_session_stats(const struct aiod_session *session, struct aiod_stats *stats);

/* aiod_pool_follow(), and the poller and the maker of rings with it. */
int aiod_core_follow(struct aiod_core *core);

/* aiod_pool_watch(), and the openers with it. */
void aiod_core_watch(struct aiod_core *core, uint64_t slow_ns, unsigned stuck_threads_max);

/* A request in service. What it points to stays until the next call of anything here. */
struct aiod_active_request_info {
    enum aiod_op op;
    const struct aiod_handle *handle; /* NULL: an open, a close or a name, whose `tag` it is */
    uint64_t tag;
    uint64_t offset;
    uint64_t length;
    uint64_t age_ns; /* since it was begun */
    pid_t tid;       /* 0: no thread has it in hand, it waits for another one's flush */
};

/* What is in service into `views`, oldest first, `max` at most. Returns how many. */
size_t aiod_core_active_requests(struct aiod_core *core, struct aiod_active_request_info *views, size_t max);

/*
 * To be called now and then. What has become slow since the last call, alike; workers that are stuck are replaced (pool.h), and
 * what has waited too long for an opener's thread is ended.
 */
size_t aiod_core_find_slow(struct aiod_core *core, struct aiod_active_request_info *views, size_t max);

/*
 * Stop the poller, the pool, and what else has a thread, each for up to `timeout_ns`; false: one is still inside a system call.
 * Reap once more afterwards.
 */
bool aiod_core_stop(struct aiod_core *core, uint64_t timeout_ns);

#endif
