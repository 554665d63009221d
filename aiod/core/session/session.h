/*
 * session.h - what the core knows of one client: its credit, its handles, its requests in flight.
 *
 * The main loop's thread only. The credit counts every record of the client, refused ones included, from its arrival
 * until the client says that it has received the completion: so it bounds what waits in the pool, what waits in the
 * socket, and the memory of both.
 */
#ifndef AIOD_SESSION_H
#define AIOD_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/alignment.h"
#include "ops/write_loss.h"
#include "ops/files.h"
#include "pool/fair_queue.h"
#include "ops/ioctls.h"
#include "session/op_stats.h"
#include "pool/task.h"

#define AIOD_HANDLES_MAX 65535u /* the index has 16 bits of a handle's number, and 0 is no handle */

struct aiod_message_io;
struct aiod_reply;
struct aiod_ring;

struct aiod_limits {
    uint32_t depth_max;   /* requests */
    uint32_t batch_max;   /* records */
    uint32_t handles_max; /* at most AIOD_HANDLES_MAX */
    uint64_t bytes_max;
    uint64_t request_bytes_max;
};

/* What an open file may be used for. */
struct aiod_handle_use {
    bool readable;
    bool writable;
    bool append; /* written by APPEND only */
    bool direct; /* O_DIRECT, with this alignment */
    bool on_fuse;
    struct aiod_alignment alignment;
    struct aiod_ioctls ioctls;
    struct aiod_rate *rate; /* the export's; NULL: none */
    int ioprio;             /* of who works for it (ioprio.h); 0: the thread's own */
    uint64_t size_max;      /* no byte is written beyond it; 0: no limit */
    const char *name;       /* what people call the file; NULL: nothing */
};

/* A session's requests of one export, as the pool's queue sees them. */
struct aiod_session_flow {
    struct aiod_flow flow; /* its first rate is the export's */
    struct aiod_session_flow *next;
};

struct aiod_handle {
    struct aiod_session *session;
    struct aiod_flow *flow;
    struct aiod_file *file;
    int fd;
    uint32_t number;
    uint32_t inflight; /* requests */
    struct aiod_handle_use use;
    bool never_nowait; /* RWF_NOWAIT is not known there; by atomic operations */
    struct aiod_write_loss_reader loss_reader;
    struct aiod_flush_writer writer; /* entered if it can write, on FUSE (flush_writers.h) */
    bool flushed_last;               /* since it is closing (core.c) */
    bool closing;                    /* no new requests; closed by a worker when inflight becomes 0 */
    uint64_t close_tag;

    /* Protected by the ring's lock, if the session has one. */
    uint32_t ring_inflight; /* requests that came by it */
    bool ring_closing;      /* `left` is handed to the main loop when there is none */
    struct aiod_task ring_idle;
};

/* What a handle was to an engine that has gone. */
struct aiod_resumed {
    uint32_t number; /* its client's word for it; 0: a new one */
    bool suspect;
    bool poisoned; /* a flush of the file has failed */
};

struct aiod_handle_slot {
    struct aiod_handle *handle; /* NULL: free */
    uint16_t generation;        /* of the next handle here: a closed number stays unknown for long */
};

struct aiod_session {
    struct aiod_limits limits;
    unsigned refs;  /* the owner, each request in flight, each handle */
    char client[9]; /* what people call it; "": nothing */
    void *owner;    /* whatever it wants to be found by; not used here; NULL: nobody wants to know of it */
    bool ended;     /* completions go nowhere */

    /* Credit. submitted - acknowledged are unanswered as the client sees it. */
    uint64_t submitted;
    uint64_t completed;
    uint64_t acknowledged;
    uint64_t unacknowledged_bytes;
    uint64_t *completed_bytes; /* ring of 2 * depth_max: lengths of completed records, in the order of their replies */

    struct aiod_message_io *inflight; /* doubly linked */
    uint32_t inflight_count;

    struct aiod_handle_slot *slots;
    uint32_t slot_count;
    uint32_t handle_count;

    /* During one reap: the reply being collected, and the bytes of small reads still to be put in shared frames. */
    struct aiod_reply *reply;
    uint64_t small_bytes;

    struct aiod_session_flow *flows;
    struct aiod_rate *rate; /* its user's; NULL: none */

    struct aiod_ring *ring; /* NULL: none */
    bool attaching;         /* its ring is being made */
    int attach_error;       /* how that ended: 0, or -errno */
    struct aiod_session *next_attached;
    const char *broken; /* the rule that its client has broken by its ring */
    struct aiod_session *next_broken;

    struct aiod_stats stats;
};

/* NULL without memory. One reference. `rate` (NULL: none) is its user's. */
struct aiod_session *aiod_session_create(const struct aiod_limits *limits, struct aiod_rate *rate);

void aiod_session_ref(struct aiod_session *session);
void aiod_session_unref(struct aiod_session *session);

/*
 * Take the client's word for how many completions it has received. False: more than there were, or fewer than it said
 * before.
 */
bool aiod_session_acknowledge(struct aiod_session *session, uint64_t received);

/* Records that the client has not been answered, or has not said that it was. */
uint64_t aiod_session_unacknowledged(const struct aiod_session *session);

/* Count a new record of `length` bytes. False: above the credit; then the record counts, its bytes do not. */
bool aiod_session_charge(struct aiod_session *session, uint64_t length);

/* A record of `length` charged bytes is completed, its reply made. */
void aiod_session_complete(struct aiod_session *session, uint64_t length);

/*
 * Make a handle of `fd`; the ioctls and the name of `use` are copied. Its number, or -EMFILE, -ENOMEM, -EEXIST: the number
 * that `resumed` (or NULL) wants is taken.
 */
int64_t aiod_handle_add(struct aiod_session *session, int fd, struct aiod_file *file, const struct aiod_handle_use *use,
                        const struct aiod_resumed *resumed);

/* A handle of an earlier engine's will not be made again, or not yet: no new one gets its number. */
void aiod_handle_retire(struct aiod_session *session, uint32_t number);

/* The open handle of that number, or NULL. */
struct aiod_handle *aiod_handle_find(const struct aiod_session *session, uint32_t number);

/* Are reads of it to be tried at once, from the page cache? */
bool aiod_handle_reads_inline(const struct aiod_handle *handle);

/* The number means nothing any more; the handle itself is freed. */
void aiod_handle_remove(struct aiod_handle *handle);

#endif
