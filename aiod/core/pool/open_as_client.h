/*
 * open_as_client.h - a thread that runs opens and directory operations with a client's identity.
 *
 * The kernel checks file permissions by the fsuid, fsgid and groups of the calling thread (credentials(7)). The thread
 * takes those of a client for one request, and its own again before it does anything else. It does not create or wake
 * workers, because a thread that it created would start with the client's identity. It has dropped the capabilities
 * that override permissions. If it cannot take its own identity again, the process ends.
 *
 * The daemon needs CAP_SETUID and CAP_SETGID. The main loop's thread calls all functions; the queue has a lock of its
 * own, and no other lock is taken under it.
 */
#ifndef AIOD_OPEN_AS_CLIENT_H
#define AIOD_OPEN_AS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pool/request.h"

#define AIOD_OPEN_AS_CLIENT_NAME_BYTES 16u /* the kernel's limit for a thread's name */

struct aiod_open_as_client;
struct aiod_pool;
struct aiod_active_request;

/* An identity for the kernel's permission checks. */
struct aiod_identity {
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[];
};

/* NULL if there is no memory. Released by free(). */
struct aiod_identity *aiod_identity_create(uid_t uid, gid_t gid, const gid_t *groups, size_t count);

/*
 * Prepare a thread; the first request creates it. `pool` delivers the completions; `name` is the engine's. 0, or
 * -errno.
 */
int aiod_open_as_client_create(struct aiod_open_as_client **thread, struct aiod_pool *pool, const char *name);

/*
 * Run `request` as `identity`, which must stay valid until aiod_pool_reap() returns the request. 0, or -errno: then
 * nothing was done.
 */
int aiod_open_as_client_submit(struct aiod_open_as_client *thread, struct aiod_request *request,
                               const struct aiod_identity *identity);

/*
 * Call `visit` with the request that the thread is running, if any; the request stays valid until aiod_pool_reap()
 * returns it. With `slow_ns` above 0: only if the request has become that old since the last visit that returned true.
 * Returns false if `visit` did.
 */
bool aiod_open_as_client_visit(struct aiod_open_as_client *thread, uint64_t slow_ns,
                               bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument);

/*
 * End waiting requests whose deadline has passed, with -ETIMEDOUT. The thread cannot: it may be blocked in a system
 * call.
 */
void aiod_open_as_client_expire(struct aiod_open_as_client *thread);

/* The number of waiting requests. */
size_t aiod_open_as_client_waiting(struct aiod_open_as_client *thread);

/* Cancel the waiting requests, and end the thread. False: the thread is still in a system call after `timeout_ns`. */
bool aiod_open_as_client_stop(struct aiod_open_as_client *thread, uint64_t timeout_ns);

/* Free a stopped thread. */
void aiod_open_as_client_destroy(struct aiod_open_as_client *thread);

#endif
