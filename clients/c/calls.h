/*
 * calls.h - OPEN, CLOSE, LOCK and UNLOCK on the session's socket, and everything else that is received there (calls.c). The
 * client's lock is held.
 */
#ifndef LIBAIOD_CALLS_H
#define LIBAIOD_CALLS_H

#include "aiod.h"

struct aiod_call;

struct aiod_calls {
    struct aiod_call *unanswered;
    bool receiving; /* a thread that waits for an answer polls the socket */
};

enum aiod_call_state {
    CALL_NOT_SENT,
    CALL_SENT,
    CALL_ANSWERED,
    CALL_STOPPING, /* answered: the daemon is stopping, and has not executed it */
    CALL_LOST,     /* the connection ended before there was an answer */
};

/* A call, as the caller asked for it. */
struct aiod_call_request {
    enum aiod_ring_message type; /* AIOD_RING_OPEN, _CLOSE, _LOCK, _UNLOCK */
    uint64_t cookie;
    const char *path;           /* of an OPEN */
    unsigned flags;             /* of an OPEN */
    uint32_t handle;            /* of the others: the caller's number */
    struct aiod_ring_lock lock; /* of a LOCK, as it is sent */
    uint64_t offset;            /* of an UNLOCK */
    uint64_t length;            /* of an UNLOCK */
    uint64_t wait_ns;           /* how long the engine may wait on behalf of the caller, beside call_timeout_ns */
};

/* An OPEN as it is sent. */
struct aiod_open_message {
    struct aiod_ring_open open;
    char path[AIOD_RING_PATH_MAX];
};

/* A cookie that no other call of the client has. The lock need not be held. */
uint64_t aiod_next_cookie(struct aiod_client *client);

/* Fill in the message; returns its length. `path` has AIOD_RING_PATH_MAX bytes at most. */
size_t aiod_put_open(struct aiod_open_message *message, const char *path, unsigned flags, unsigned mode,
                     uint64_t cookie);

/*
 * Send `message`, which asks for `request`, and wait for the answer; the lock is not held meanwhile. Returns the
 * result, or -errno with its message. *state: CALL_ANSWERED, also if there was no answer in time; or why the call
 * may be repeated.
 */
int64_t aiod_call(struct aiod_client *client, const struct aiod_call_request *request, const void *message,
                  size_t length, enum aiod_call_state *state);

/*
 * An open or a close by the ring. Its request has AIOD_RING_FILE_CALL in `user`, and malloc() has allocated it, so that
 * it can be abandoned.
 */
struct aiod_ring_file_call {
    struct aiod_op op;
    int64_t handle; /* of an open that is done: the caller's number, or -errno */
    unsigned flags; /* of an open */
    char path[];    /* of an open, as the caller gave it */
};

extern const char aiod_ring_file_call;
#define AIOD_RING_FILE_CALL ((void *)(uintptr_t)&aiod_ring_file_call)

/*
 * A request has a result. If it is an open or a close by the ring: add or remove the caller's handle, before the engine
 * can be lost; close a file that nobody waits for any more.
 */
void aiod_ring_file_call_completed(struct aiod_client *client, struct aiod_op *op);

/*
 * Receive what has arrived on the socket. The connection is lost if it has ended. False: the next message was left
 * to the thread that receives.
 */
bool aiod_receive(struct aiod_client *client);

/* Close a file that nobody wants, without waiting. The answer to that CLOSE is ignored. */
void aiod_close_unwanted(struct aiod_client *client, int64_t handle);

/* No unanswered call will be answered. */
void aiod_lose_calls(struct aiod_client *client);

#endif
