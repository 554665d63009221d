/*
 * session.h - one client's session: its credit, its handles, its requests in flight.
 *
 * Main loop's thread only, but for what handles share with workers (aiod_handle_use is constant; other fields say it).
 *
 * Credit counts every record of the client, including refused ones, from its arrival until the client acknowledges its
 * completion. It therefore limits the client's share of the pool's queue, of the socket's buffers, and of their memory.
 */
#ifndef AIOD_SESSION_H
#define AIOD_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/alignment.h"
#include "ops/faults.h"
#include "ops/file_locks.h"
#include "ops/files.h"
#include "ops/ioctls.h"
#include "ops/notices.h"
#include "ops/write_loss.h"
#include "path/confined_open.h"
#include "pool/fair_queue.h"
#include "pool/task.h"
#include "session/async_writes.h"
#include "session/buffered_writes.h"
#include "session/export_stats.h"
#include "session/op_stats.h"

#define AIOD_HANDLES_MAX 65535u /* a handle's number contains a 16-bit index, and 0 is not a handle */

struct aiod_message_io;
struct aiod_reply;
struct aiod_ring;

struct aiod_limits {
    uint32_t depth_max;   /* requests by message, controls, and one for the ring while it uses a closing handle */
    uint32_t batch_max;   /* records */
    uint32_t handles_max; /* at most AIOD_HANDLES_MAX */
    uint64_t bytes_max;
    uint64_t request_bytes_max;
};

/* The directory beneath which the requests of a NAMES handle name files. */
struct aiod_names {
    const char *root; /* NULL: the handle is one of an open file */
    bool no_links;    /* do not follow symbolic links, not even beneath the root */
    uint32_t verbs;   /* those that the export allows: bit numbers are enum aiod_verb */
    struct aiod_creation creation;
    struct aiod_keeping
        keeping; /* of files that a ring opens for writing; such a file has it as well, without a root */
};

/* The properties of an open file. */
struct aiod_handle_use {
    bool readable;
    bool writable;
    bool append;      /* writable by APPEND only */
    bool direct;      /* opened with O_DIRECT; `alignment` applies */
    bool uring;       /* `direct`, and requests may be started by io_uring (uring_io.h) */
    bool uring_alone; /* also those that come alone, and writes to regular files */
    bool on_fuse;
    struct aiod_alignment alignment;
    struct aiod_ioctls ioctls;
    struct aiod_rate *rate; /* of the export; NULL: none */
    int ioprio;             /* of the workers that serve it (ioprio.h); 0: the thread's own */
    uint64_t size_max;      /* no byte may be written beyond it; 0: no limit */
    const char *name;       /* the file's name in messages; NULL: none */
    struct aiod_faults faults;
    struct aiod_names names;
};

/*
 * How often requests of one kind are not tried by io_uring, because it did not start earlier ones. Accessed by atomic
 * operations; an update that is lost does no harm.
 */
struct aiod_uring_backoff {
    uint16_t skip; /* so many requests are not tried */
    uint16_t wait; /* `skip` after the last failure */
};

/* The flow of a session's requests to one export (flow.h). */
struct aiod_session_flow {
    struct aiod_flow flow;              /* its first rate is that of the export; first */
    struct aiod_export_stats *exported; /* NULL: the export has no counts of its own */
    struct aiod_stats ring_stats;       /* of requests by ring; protected by the ring's lock */
    struct aiod_session_flow *next;
};

struct aiod_handle {
    struct aiod_session *session;
    struct aiod_flow *flow;
    struct aiod_file *file;
    int fd;
    uint32_t number;
    uint32_t inflight; /* requests by message, controls, and one for the ring while it uses a closing handle */
    struct aiod_handle_use use;
    bool never_nowait; /* the file does not support RWF_NOWAIT; accessed by atomic operations */
    struct aiod_buffered_writes writes;
    uint64_t local_device; /* of a NAMES handle: a device that is known to be local; accessed by atomic operations */
    bool revoked;          /* a NAMES handle that serves no more requests; accessed by atomic operations */
    struct aiod_uring_backoff uring_reads, uring_writes;
    struct aiod_async_writes async_writes;
    bool mount_lost; /* a request found its mount dead (move_handle.h); accessed by atomic operations */
    bool given_up;   /* by the server of its FUSE mount (move_handle.h); accessed by atomic operations */
    struct aiod_write_loss_reader loss_reader;
    struct aiod_flush_writer writer; /* in use for a writable file on FUSE (flush_writers.h) */
    bool flushed_last;               /* flushed since it is closing (core_handles.c) */
    bool locked;      /* may have file locks (file_locks.h), released before it is closed; atomic operations */
    bool holds_locks; /* its client knows of a lock that it has not released; accessed by atomic operations */
    /* an exclusive lock was regained of these ranges: a repeated request may be executed there */
    struct aiod_file_lock *regained;
    size_t regained_count;
    bool lock_lost; /* only FLUSH and CLOSE_FILE are executed; accessed by atomic operations */
    bool closing;   /* accepts no requests; a worker closes it when inflight is 0 */
    uint64_t close_tag;
    struct aiod_ring_request *ring_close; /* the CLOSE_FILE that is answered when it is closed; NULL: none */
    struct aiod_handle *next_to_close;

    /* Protected by the ring's lock, if the session has one. */
    uint32_t ring_inflight; /* requests by ring */
    bool ring_closing;      /* `ring_idle` is sent to the main loop when there are none */
    struct aiod_task ring_idle;

    /* Of a file that was opened by ring. Constant: */
    int store_fd; /* the file opened once more, for the descriptor store; -1: not yet, or passed on */
    bool local;   /* on a file system that asks no server */
    bool kept;    /* the supervisor keeps a descriptor of it */
    /* Protected by the ring's lock (ring/collect.h): */
    bool unregistered;  /* the ring has it, and the main loop knows nothing of it yet */
    unsigned opened_in; /* aiod_ring_opens.period */
    struct aiod_handle *ring_next;
    struct aiod_handle *ring_previous;
};

/* The state of a handle in an earlier engine. */
struct aiod_resumed {
    uint32_t number; /* the number that the client knows; 0: a new handle */
    bool suspect;
    bool poisoned; /* a flush of the file failed */
};

struct aiod_handle_slot {
    struct aiod_handle *handle; /* NULL: free */
    /* of the next handle in this slot, so that the number of a closed handle is not reused soon */
    uint16_t generation;
    bool lent; /* to the ring, which opens files there by itself (ring/collect.h) */
};

struct aiod_session {
    struct aiod_limits limits;
    unsigned refs;                 /* references: one of the owner, one per request in flight, one per handle */
    char client[9];                /* the client's name in messages; "": none */
    enum aiod_transport transport; /* of its messages */
    void *owner;                   /* set by the owner for its own use; NULL: the owner is gone */
    bool ended;                    /* completions are dropped */
    /*
     * From then on (aiod_boot_ns()) no change is begun: its client may have moved to another daemon. 0: it does not move.
     * Each message puts it off, so it passes only where the main loop did not run, or the client is cut off. Accessed by
     * atomic operations.
     */
    uint64_t lease_until_ns;

    /* Credit. Records that the client regards as unanswered: submitted - acknowledged. */
    uint64_t submitted;
    uint64_t completed;
    uint64_t acknowledged;
    uint64_t unacknowledged_bytes;
    /* a ring of 2 * depth_max entries: the lengths of completed records, in the order of their replies */
    uint64_t *completed_bytes;

    struct aiod_message_io *inflight; /* doubly linked */
    uint32_t inflight_count;

    struct aiod_handle_slot *slots;
    uint32_t slot_count;
    uint32_t handle_count;
    uint32_t names_count; /* of them, NAMES handles */
    uint32_t lent_count;  /* slots that are lent to the ring */

    /* Used during one reap: the reply that is collected, and the bytes of small reads that follow in it. */
    struct aiod_reply *reply;
    uint64_t small_bytes;

    struct aiod_session_flow *flows;
    struct aiod_rate *rate; /* of the user; NULL: none */

    struct aiod_ring *ring; /* NULL: none */
    bool attaching;         /* its ring is being allocated */
    int attach_error;       /* the result: 0, or -errno */
    struct aiod_session *next_attached;
    struct aiod_session *next_to_collect;
    const char *broken; /* the rule that the client broke on its ring, for the message */
    struct aiod_session *next_broken;

    struct aiod_stats stats; /* without the counts of its ring */
};

/* Create a session with one reference. `rate` (NULL: none) is that of the user. NULL if there is no memory. */
struct aiod_session *aiod_session_create(const struct aiod_limits *limits, struct aiod_rate *rate);

/* Has the lease of a session ended? Any thread. */
bool aiod_session_lease_over(const struct aiod_session *session);

void aiod_session_ref(struct aiod_session *session);
void aiod_session_unref(struct aiod_session *session);

/* Record the number of completions that the client has received. False: more than were sent, or fewer than before. */
bool aiod_session_acknowledge(struct aiod_session *session, uint64_t received);

/* The number of records that are not answered, or whose answer the client has not acknowledged. */
uint64_t aiod_session_unacknowledged(const struct aiod_session *session);

/* Charge a new record of `length` bytes. False: over the credit; then the record is charged without its bytes. */
bool aiod_session_charge(struct aiod_session *session, uint64_t length);

/* A record charged with `length` bytes is completed, and in a reply. */
void aiod_session_complete(struct aiod_session *session, uint64_t length);

/*
 * Create a handle for `fd`, with copies of the ioctls and the name in `use`. Its number, or -EMFILE, -ENOMEM, or
 * -EEXIST if the number in `resumed` is in use (`resumed` may be NULL).
 */
int64_t aiod_handle_add(struct aiod_session *session, int fd, struct aiod_file *file, const struct aiod_handle_use *use,
                        const struct aiod_resumed *resumed);

/*
 * Create a handle that is in no session's table yet; `flow` is one of the session. `use` as for aiod_handle_add(). NULL if
 * there is no memory. Any thread.
 */
struct aiod_handle *aiod_handle_create(struct aiod_session *session, int fd, struct aiod_file *file,
                                       const struct aiod_handle_use *use, struct aiod_flow *flow, uint32_t number);

/* Free a handle that is in no session's table. Any thread. */
void aiod_handle_destroy(struct aiod_handle *handle);

/* Lend a free slot to the ring: the number of the next handle there; or -EMFILE, -ENOMEM. */
int64_t aiod_handle_lend(struct aiod_session *session);

/* The ring returns a slot, whose next handle would have this number. */
void aiod_handle_take_back(struct aiod_session *session, uint32_t number);

/* Put a handle that the ring has created in a lent slot into the table. */
void aiod_handle_register(struct aiod_session *session, struct aiod_handle *handle);

/* The number of the next handle in the slot of this one. */
uint32_t aiod_handle_next_number(uint32_t number);

/* Reserve the number of an earlier engine's handle that is not open here, or not yet: no new handle gets it. */
void aiod_handle_retire(struct aiod_session *session, uint32_t number);

/* The flow of the handle's session to its export. */
struct aiod_session_flow *aiod_handle_flow(const struct aiod_handle *handle);

/* The open handle with that number, or NULL. */
struct aiod_handle *aiod_handle_find(const struct aiod_session *session, uint32_t number);

/* May reads of the handle be tried from the page cache where they are submitted? */
bool aiod_handle_reads_inline(const struct aiod_handle *handle);

/* Free the handle, and retire its number. */
void aiod_handle_remove(struct aiod_handle *handle);

#endif
