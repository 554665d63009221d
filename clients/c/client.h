/*
 * client.h - a session's state, private to libaiod.
 *
 * Lock order: `socket_lock`, then `lock`; `lock` is not held while a thread sleeps. Leader and followers: of
 * the threads that wait, one looks at the memory (the leader), the others are parked; whoever leaves lets one of those
 * lead.
 */
#ifndef AIOD_CLIENT_H
#define AIOD_CLIENT_H

#include <assert.h>
#include <pthread.h>
#include <sys/types.h>

#include "aiod.h"
#include "area.h"

static_assert(sizeof(struct aiod_ring_sqe) == 64 && sizeof(struct aiod_ring_cqe) == 32 &&
                  sizeof(struct aiod_ring_header) == 6 * AIOD_RING_LINE_BYTES,
              "docs/ring.md");
static_assert(sizeof(off_t) == sizeof(uint64_t), "offsets are of 64 bits");

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

/* How long the next leader looks before it sleeps; all but max_ns is 0 at first. */
struct aiod_looking {
    uint64_t max_ns; /* 0: never */
    uint64_t now_ns;
    unsigned failed;   /* looks in a row that saw nothing */
    unsigned left_out; /* how many more times to sleep at once */
};

struct aiod_resume;
struct aiod_call;
struct msghdr;

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
    struct aiod_resume *resume; /* NULL: when the engine has gone the session has ended */

    uint64_t call_timeout_ns;
    pid_t engine_pid; /* 0: unknown */
    unsigned born;    /* for aiod_forked() */

    pthread_mutex_t socket_lock; /* another engine is attached to */
    uint64_t next_cookie;        /* of calls; atomic */

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
    uint32_t wake_ups; /* of the leader by aiod_wake_all(); loaded without the lock, too */
    struct parked *parked;
    int epoll; /* what aiod_fd() is: the socket while there is an engine, `bell`, and a timer of resume.c's; -1: not used */
    int bell;                /* an eventfd; -1 */
    bool armed;              /* an event loop sleeps on aiod_fd(), or is about to */
    bool told;               /* it was woken: by `bell`, or by the byte that the engine sends */
    bool rung;               /* `bell` is readable */
    bool left;               /* the loop has left an answer on the socket to the thread that receives */
    struct aiod_call *calls; /* not answered */
    bool receiving;          /* a thread that waits for an answer looks at the socket */
    struct area area;
    uint64_t room_count;   /* places and buffers given back so far; loaded without the lock, too */
    uint32_t room_waiters; /* threads that wait for that to change */
    uint32_t borrowed;     /* buffers of blocking calls, which give them back soon */
    struct aiod_looking looking;
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

/* ---- forks.c ---- */

/* The client is this process's, for aiod_forked(). */
void aiod_remember_process(struct aiod_client *client);

/* -EBADF, with its sentence. */
int aiod_fail_forked(void);

/* ---- looking.c ---- */

/*
 * May the calling thread look? Not if it keeps the engine from running by that: it is a real-time thread, or both can only run on
 * one CPU.
 */
bool aiod_may_look(const struct aiod_client *client);

/* How long to look before sleeping, 0: not at all; and what came of it: `found` while looking, or something after `waited_ns`. */
uint64_t aiod_look_begin(struct aiod_looking *looking);
void aiod_look_end(struct aiod_looking *looking, uint64_t looked_ns, bool found, uint64_t waited_ns);

/* ---- wire.c: the socket; results are negative errnos; -ETIMEDOUT: not until `deadline_ns` ---- */

#define AIOD_NEVER ((uint64_t)INT64_MAX)

/* So long from now; AIOD_NEVER: never. */
uint64_t aiod_deadline(uint64_t timeout_ns);

/* Until `socket` has one of `events`. */
int aiod_poll(int socket, short events, uint64_t deadline_ns);

/* Connected to the socket at `path`. Keeps a sentence. */
int aiod_dial(const char *path, uint64_t deadline_ns);

/* The process behind it; 0: unknown. */
pid_t aiod_peer(int socket);

/* A message; aiod_send_now() does not wait: -EAGAIN. */
int aiod_send(int socket, const void *message, size_t length, uint64_t deadline_ns);
int aiod_send_now(int socket, const void *message, size_t length);

/* Its bytes; 0: the connection has ended. aiod_receive_now() does not wait: -EAGAIN. */
ssize_t aiod_receive_by(int socket, struct msghdr *message, uint64_t deadline_ns);
ssize_t aiod_receive_now(int socket, struct msghdr *message, int flags);

/* ---- endpoint.c ---- */

#define AIOD_DIRECTORY_BYTES 4096u

/* The directory of the daemon's sockets, at `endpoint` if that is not NULL. *named: the user has said so. */
int aiod_find_directory(char *directory, const char *endpoint, bool *named);

/* -EACCES: a stranger may listen at `path`, to which `socket` is connected. */
int aiod_check_server(int socket, const char *path, const char *directory);

/* ---- session.c ---- */

/*
 * Connect and attach. 0, or -errno with nothing to give back. `directory` is the daemon's, if nobody has named it: then a
 * stranger who serves `path` is told nothing.
 */
int aiod_get_attached(struct aiod_attachment *attachment, const char *path, const char *directory,
                      const struct aiod_options *options, uint64_t deadline_ns);
void aiod_give_back(const struct aiod_attachment *attachment);

/* What the engine said no with. */
int aiod_refused(const union aiod_answer *answer, size_t length);

/* ---- calls.c ---- */

/* OPEN as it goes by the socket, and its length. The path is one of AIOD_RING_PATH_MAX bytes at most. */
struct aiod_open_message {
    struct aiod_ring_open open;
    char path[AIOD_RING_PATH_MAX];
};
size_t aiod_put_open(struct aiod_open_message *message, const char *path, unsigned flags, unsigned mode,
                     uint64_t cookie);

uint64_t aiod_next_cookie(struct aiod_client *client);

/*
 * Send a call by a socket that no other thread uses, and wait for its answer. `file` (may be NULL) is what was opened, zeros if
 * the engine does not say. -ECONNRESET, -EPIPE: the connection has ended.
 */
int64_t aiod_ask(int socket, const void *message, size_t length, uint64_t cookie, struct aiod_ring_file *file,
                 uint64_t deadline_ns);

/*
 * Receive what is there; the connection's end is the session's. False: the next message is left to the thread that receives.
 * Lock held.
 */
bool aiod_receive(struct aiod_client *client);

/* No call will be answered any more. Lock held. */
void aiod_lose_calls(struct aiod_client *client);

/* ---- buffers.c: lock held ---- */

/* Where in the area it is, or in one of those before it. */
uint64_t aiod_offset_of(const struct aiod_client *client, const void *buffer);

/* Give it back. */
void aiod_put_buffer(struct aiod_client *client, void *buffer);

/* A place or a buffer was given back. */
void aiod_make_room(struct aiod_client *client);

/* ---- buffers.c: a blocking call's own buffer; lock not held ---- */

/* NULL: there is none now. */
void *aiod_borrow(struct aiod_client *client, uint64_t bytes);
void aiod_give_back_borrowed(struct aiod_client *client, void *buffer);

/* As aiod_abandon(). */
void aiod_abandon_borrowed(struct aiod_client *client, struct aiod_op *op);

/* ---- queue.c: lock not held ---- */

/* How often places and buffers were given back; and wait until that is not `seen`. -ENOBUFS: nobody will. */
uint64_t aiod_room_count(const struct aiod_client *client);
int aiod_wait_for_room(struct aiod_client *client, uint64_t seen, uint64_t deadline_ns);

/* ---- queue.c: lock held ---- */

/* Take all completions that are there. */
void aiod_drain(struct aiod_client *client);

/* The request has ended, as it says itself. */
void aiod_settle(struct aiod_client *client, struct aiod_op *op);

/* The session has ended with errno `error` (positive): what is in flight ends so. */
void aiod_end_session(struct aiod_client *client, int error);

/* Nobody leads now, maybe: one who is parked is to. */
void aiod_let_lead(struct aiod_client *client);

/* Around a leader's sleep. The completions are to be looked at after aiod_end_leading(): a loop waits for them, maybe. */
void aiod_begin_leading(struct aiod_client *client);
void aiod_end_leading(struct aiod_client *client);

/* Whoever sleeps for completions looks again. */
void aiod_wake_all(struct aiod_client *client);

/* The engine has gone, or has ended the session: another is looked for, or the session has ended. */
void aiod_lose_session(struct aiod_client *client);

/* Submit all that has a place and was not submitted to this engine. */
void aiod_submit_again(struct aiod_client *client);

uint64_t aiod_clock_ns(void);

/* ---- loop.c: lock held, or nobody else knows the client ---- */

void aiod_loop_destroy(struct aiod_client *client);

/* The socket is an engine's again; or it would only say for ever that the engine has gone. */
void aiod_loop_watch_socket(const struct aiod_client *client);
void aiod_loop_leave_socket(const struct aiod_client *client);

/* Have aiod_fd() readable. */
void aiod_loop_ring(struct aiod_client *client);

/* A completion, or the engine's byte on the socket, was taken that an armed loop sleeps for. */
void aiod_loop_pass_on(struct aiod_client *client);
void aiod_loop_pass_byte_on(struct aiod_client *client);

/* `client_waits` is a leader's from now on; or nobody leads, and it is the loop's, who looks again after that. */
void aiod_loop_yield_word(struct aiod_client *client);
void aiod_loop_take_word(struct aiod_client *client);

/* resume.c: why the session has ended, as far as it is known. Lock held. */
const char *aiod_why(const struct aiod_client *client);

/* ---- resume.c: clients with `resume` only; lock held, but of the first two ---- */

int aiod_resume_init(struct aiod_client *client, const char *path, const char *directory,
                     const struct aiod_options *options);
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

/* The entry of `op` for the engine there is. */
void aiod_resume_put(struct aiod_client *client, struct aiod_op *op, struct aiod_ring_sqe *sqe);

/* A completion has come. False: it is none for the caller, the next engine has to do it. */
bool aiod_resume_completed(struct aiod_client *client, struct aiod_op *op);

/* A timer that an event loop is woken by while away. */
int aiod_resume_timer(const struct aiod_client *client);

/* aiod_fd() need not be readable on its account any more. */
void aiod_resume_disarm(struct aiod_client *client);

#endif
