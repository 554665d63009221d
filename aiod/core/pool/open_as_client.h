/*
 * open_as_client.h - one thread that opens files, and looks at and changes names, as somebody else.
 *
 * The kernel checks permission by a thread's own fsuid, fsgid and groups (credentials(7)): this thread takes those of a client
 * for one open, and its own again before it does anything else. It never creates nor wakes a worker, since a thread that it
 * created would begin as that client. It has given up the capabilities that override permission. When it cannot become
 * itself again the process ends.
 *
 * The daemon needs CAP_SETUID and CAP_SETGID.
 */
#ifndef AIOD_OPEN_AS_CLIENT_H
#define AIOD_OPEN_AS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "pool/request.h"

#define AIOD_OPEN_AS_CLIENT_NAME_BYTES 16u /* what the kernel keeps of a thread's name */

struct aiod_open_as_client;
struct aiod_pool;
struct aiod_active_request;

/* Somebody, for the kernel's checks. */
struct aiod_identity {
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[];
};

/* NULL: no memory. Freed by free(). */
struct aiod_identity *aiod_identity_create(uid_t uid, gid_t gid, const gid_t *groups, size_t count);

/* No thread yet. Main loop's thread for all of these. 0, or -errno. `pool` gets what is done; `name` is the engine's. */
int aiod_open_as_client_create(struct aiod_open_as_client **thread, struct aiod_pool *pool, const char *name);

/*
 * Have `request` run as `identity`, which stays the caller's until it comes back from aiod_pool_reap(). The thread is created
 * with the first one. 0, or -errno: then nothing was done.
 */
int aiod_open_as_client_submit(struct aiod_open_as_client *thread, struct aiod_request *request,
                               const struct aiod_identity *identity);

/*
 * Shows `visit` what the thread has in hand (pool.h), which stays until it comes back from aiod_pool_reap(). With `slow_ns` above
 * 0: only if it has become that old since the last such visit that returned true. False: `visit` has returned false.
 */
bool aiod_open_as_client_visit(struct aiod_open_as_client *thread, uint64_t slow_ns,
                               bool (*visit)(const struct aiod_active_request *sight, void *argument), void *argument);

/* End those that wait, and whose deadline has passed, with -ETIMEDOUT: the thread may be inside a system call for ever. */
void aiod_open_as_client_expire(struct aiod_open_as_client *thread);

/* How many requests wait for it. */
size_t aiod_open_as_client_waiting(struct aiod_open_as_client *thread);

/* Cancel what waits, and end the thread. False: it is still inside a system call after `timeout_ns`. */
bool aiod_open_as_client_stop(struct aiod_open_as_client *thread, uint64_t timeout_ns);

/* A stopped one. */
void aiod_open_as_client_destroy(struct aiod_open_as_client *thread);

#endif
