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

struct aiod_resume;

struct aiod_client {
    /* Constant. That the memory at `base` and what the descriptors refer to may be another engine's: see resume.c. */
    int socket;
    int doorbell;
    char *base;
    uint64_t queue_bytes; /* from `base` on: all that is not the area */
    struct aiod_ring_header *header;
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    uint64_t area_bytes;
    uint32_t entries;
    uint64_t request_bytes_max;
    uint64_t spin_max_ns;
    struct aiod_resume *resume; /* NULL: when the engine has gone the session has ended */

    pthread_mutex_t socket_lock; /* a call and its answer */
    uint64_t next_cookie;

    pthread_mutex_t lock;

    /* Protected by lock. */
    int ended; /* errno */
    bool away; /* the engine has gone, another is looked for; what is submitted keeps its place until then */
    char *area_base;
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

/* What an engine gives to who attaches. */
struct aiod_attachment {
    int socket;
    int doorbell;
    char *base; /* the memory */
    uint64_t bytes;
    uint64_t request_bytes_max;
};

union aiod_answer {
    uint32_t type;
    struct aiod_ring_attached attached;
    struct aiod_ring_reply reply;
    char bytes[sizeof(struct aiod_ring_reply) + AIOD_RING_SENTENCE_MAX];
};

/* error.c: keep the sentence, printf-like; returns `error`, which is negative. */
int aiod_fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- session.c ---- */

/* Connect and attach; nothing on the way takes longer than `timeout_ns` (0: any time). 0, or -errno with nothing to give back. */
int aiod_get_attached(struct aiod_attachment *attachment, const char *path, const struct aiod_options *options,
                      uint64_t timeout_ns);
void aiod_give_back(const struct aiod_attachment *attachment);

/* Of what is sent and received on it from now on; 0: none. */
void aiod_set_timeout(int socket, uint64_t timeout_ns);

/* What the engine said no with. */
int aiod_refused(const union aiod_answer *answer, size_t length);

/* ---- calls.c: socket_lock held ---- */

/*
 * Send a call and wait for its answer. `file` (may be NULL) is what was opened, zeros if the engine does not say. *lost: there
 * is no answer, the connection has ended; then the result is an errno all the same.
 */
int64_t aiod_ask(int socket, const void *message, size_t length, uint64_t cookie, struct aiod_ring_file *file,
                 bool *lost);

/* OPEN, as aiod_ask(). `length` is the path's. */
int64_t aiod_ask_open(struct aiod_client *client, int socket, const char *path, size_t length, unsigned flags,
                      unsigned mode, struct aiod_ring_file *file, bool *lost);

/* ---- buffers.c: lock held ---- */

/* Where in the area it is, or in one of those before it. */
uint64_t aiod_offset_of(const struct aiod_client *client, const void *buffer);

/* Give it back. */
void aiod_put_buffer(struct aiod_client *client, void *buffer);

/* ---- queue.c: lock held ---- */

/* Take all completions that are there. */
void aiod_drain(struct aiod_client *client);

/* The request has ended, as it says itself. */
void aiod_settle(struct aiod_client *client, struct aiod_op *op);

/* The session has ended with errno `error` (positive): what is in flight ends so. */
void aiod_end_session(struct aiod_client *client, int error);

/* Nobody leads now, maybe: one who is parked is to. */
void aiod_let_lead(struct aiod_client *client);

/* Whoever sleeps for completions looks again. */
void aiod_wake_all(struct aiod_client *client);

/* The engine has gone, or has ended the session: another is looked for, or the session has ended. */
void aiod_lose_session(struct aiod_client *client);

/* Is the connection still there? */
void aiod_look_at_socket(struct aiod_client *client);

/* Submit all that has a place and was not submitted to this engine. */
void aiod_submit_again(struct aiod_client *client);

uint64_t aiod_clock_ns(void);

/* resume.c: why the session has ended, as far as it is known. Lock held. */
const char *aiod_why(const struct aiod_client *client);

/* ---- resume.c: clients with `resume` only; lock held, but of the first two ---- */

int aiod_resume_init(struct aiod_client *client, const char *path, const struct aiod_options *options);
void aiod_resume_destroy(struct aiod_client *client);

/* aiod_lose_session() has been called: what is in flight ends, or keeps its place. */
void aiod_resume_lost(struct aiod_client *client);

/* While away: try once more when it is time for it, or sleep until `deadline_ns` at most. Lock not held meanwhile. */
void aiod_resume_step(struct aiod_client *client, uint64_t deadline_ns);

/* Has the engine gone? Looks at most every millisecond. */
void aiod_resume_look(struct aiod_client *client);

/* For who does not sleep here: see whether the engine has gone, and try once more when it is time for it. Likewise. */
void aiod_resume_tick(struct aiod_client *client);

/* socket_lock held too: until there is an engine, or none in time. 0, or -errno of the end. Lock not held meanwhile. */
int aiod_resume_await(struct aiod_client *client);

/* The session has ended: who sleeps on aiod_fd() has to know. */
void aiod_resume_ended(struct aiod_client *client);

/* The entry of `op` for the engine there is. */
void aiod_resume_put(struct aiod_client *client, struct aiod_op *op, struct aiod_ring_sqe *sqe);

/* A completion has come. False: it is none for the caller, the next engine has to do it. */
bool aiod_resume_completed(struct aiod_client *client, struct aiod_op *op);

/* Descriptor for event loops. */
int aiod_resume_fd(const struct aiod_client *client);

/* aiod_fd() need not be readable any more. */
void aiod_resume_disarm(struct aiod_client *client);

#endif
