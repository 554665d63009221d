/*
 * open_as_client_threads.h - the openers of an engine, one for each export whose files are opened as the client.
 *
 * An opener has one thread, which an export on a dead file system keeps for ever: so no two exports share one. Openers are
 * created with the first request and stay until the engine ends: there are as many as the engine has had such exports.
 *
 * Main loop's thread only.
 */
#ifndef AIOD_OPEN_AS_CLIENT_THREADS_H
#define AIOD_OPEN_AS_CLIENT_THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/open_as_client.h"
#include "pool/pool.h"

struct aiod_export_thread;
struct aiod_rate;

struct aiod_open_as_client_threads {
    struct aiod_export_thread *first;
    struct aiod_pool *pool;
    char name[AIOD_OPEN_AS_CLIENT_NAME_BYTES]; /* the engine's */
};

/* None yet. `pool` gets what is done, and both outlive the openers. */
void aiod_open_as_client_threads_init(struct aiod_open_as_client_threads *threads, struct aiod_pool *pool,
                                      const char *name);

/* aiod_open_as_client_submit() to that of the export whose rate `rate` is (NULL: of all without one). 0, or -errno: nothing was done. */
int aiod_open_as_client_threads_submit(struct aiod_open_as_client_threads *threads, struct aiod_rate *rate,
                                       struct aiod_request *request, const struct aiod_identity *identity);

/* aiod_open_as_client_visit() of each, until `visit` says that it is enough. */
void aiod_open_as_client_threads_visit(struct aiod_open_as_client_threads *threads, uint64_t slow_ns,
                                       bool (*visit)(const struct aiod_active_request *sight, void *argument),
                                       void *argument);

/* aiod_open_as_client_expire() of each. */
void aiod_open_as_client_threads_expire(struct aiod_open_as_client_threads *threads);

/* How many requests wait for them. */
size_t aiod_open_as_client_threads_waiting(const struct aiod_open_as_client_threads *threads);

/* Cancel what waits, and end the threads. False: one is still inside a system call after `timeout_ns`, in all. */
bool aiod_open_as_client_threads_stop(struct aiod_open_as_client_threads *threads, uint64_t timeout_ns);

/* Of stopped ones. */
void aiod_open_as_client_threads_destroy(struct aiod_open_as_client_threads *threads);

#endif
