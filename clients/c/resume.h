/*
 * resume.h - continuing with another engine. Clients with `resume` only; the client's lock is held, unless a function
 * says otherwise.
 */
#ifndef LIBAIOD_RESUME_H
#define LIBAIOD_RESUME_H

#include "aiod.h"
#include "attach.h"
#include "open_files.h"

#define AIOD_RETRY_NS UINT64_C(50000000) /* between two attempts to attach */

struct aiod_resume {
    /* Constant. */
    char *path;
    char *directory; /* NULL: the user named the endpoint; see aiod_attachment_get() */
    char *software;
    struct aiod_options options;
    uint64_t timeout_ns;

    /* Protected by socket_lock. */
    struct aiod_token token;        /* of the session with the engine that is connected, or was */
    struct aiod_attachment pending; /* to an engine that has reopened the files, and has not said GO */
    bool is_pending;

    /* Protected by lock. */
    struct aiod_open_files files;
    uint64_t *flush_covers;                       /* by a flush's slot: the file's `changes` when it was submitted */
    uint64_t give_up_ns;                          /* while away: the session ends then */
    uint64_t retry_ns;                            /* while away: the time of the next attempt */
    uint64_t checked_ns;                          /* when the connection was checked last */
    char last_error[AIOD_RING_ERROR_MESSAGE_MAX]; /* of the last attempt */
};

/* ---- resume.c: when ---- */

/* 0, or -errno with its message; aiod_resume_destroy() is needed in any case. No other thread knows the client. */
int aiod_resume_init(struct aiod_client *client, const char *path, const char *directory,
                     const struct aiod_options *options, const struct aiod_token *token);
void aiod_resume_destroy(struct aiod_client *client);

/*
 * While away: make the next attempt if it is due, or sleep until then, at most until `deadline_ns`. The lock is not
 * held meanwhile.
 */
void aiod_resume_step(struct aiod_client *client, uint64_t deadline_ns);

/* Check whether the connection has ended, once a millisecond at most. */
void aiod_resume_check(struct aiod_client *client);

/* The same, and make the next attempt if it is due; never sleeps otherwise. The lock is not held meanwhile. */
void aiod_resume_poll(struct aiod_client *client);

/*
 * Wait until an engine is connected or the session has ended. 0, or -errno of the end. socket_lock is held, lock is
 * not.
 */
int aiod_resume_await(struct aiod_client *client);

/* ---- resume_requests.c: the requests ---- */

/* The hooks of the queue. */
void aiod_resume_prepare(struct aiod_client *client, const struct aiod_op *op, struct aiod_ring_sqe *sqe);
bool aiod_resume_completed(struct aiod_client *client, struct aiod_op *op);

/*
 * The engine has gone. Requests in flight end, or keep their slots for the next engine. `drained`: a request without a
 * completion was not executed.
 */
void aiod_resume_sort_requests(struct aiod_client *client, bool drained);

/* ---- reattach.c: how ---- */

/*
 * Attach to an engine, once. 0: it is connected, and requests are submitted to it; or -errno with its message.
 * *final: another attempt is of no use. socket_lock is held, lock is not.
 */
int aiod_reattach(struct aiod_client *client, uint64_t deadline_ns, bool *final);

/* There will be no further attempt. socket_lock is held, or no other thread knows the client. */
void aiod_reattach_never(struct aiod_resume *resume);

#endif
