/*
 * open_as_client_threads.h - the open_as_client threads of an engine: one for each export with `as_client`.
 *
 * An export on a dead file system can block its thread for ever, so two exports do not share one. A thread is created
 * with the first request of its export and stays until the engine ends.
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
    char name[AIOD_OPEN_AS_CLIENT_NAME_BYTES]; /* the engine's name */
};

/* Start with an empty list. `pool` delivers the completions, and outlives the threads. */
void aiod_open_as_client_threads_init(struct aiod_open_as_client_threads *threads, struct aiod_pool *pool,
                                      const char *name);

/*
 * aiod_open_as_client_submit() to the thread of the export whose rate is `rate` (NULL: the thread of all exports
 * without one). 0, or -errno: then nothing was done.
 */
int aiod_open_as_client_threads_submit(struct aiod_open_as_client_threads *threads, struct aiod_rate *rate,
                                       struct aiod_request *request, const struct aiod_identity *identity);

/* aiod_open_as_client_visit() for each thread, until `visit` returns false. */
void aiod_open_as_client_threads_visit(struct aiod_open_as_client_threads *threads, uint64_t slow_ns,
                                       bool (*visit)(const struct aiod_active_request *active, void *argument),
                                       void *argument);

/* aiod_open_as_client_expire() for each thread. */
void aiod_open_as_client_threads_expire(struct aiod_open_as_client_threads *threads);

/* The number of waiting requests of all threads. */
size_t aiod_open_as_client_threads_waiting(const struct aiod_open_as_client_threads *threads);

/*
 * Cancel the waiting requests, and end the threads. False: a thread is still in a system call after `timeout_ns` in
 * all.
 */
bool aiod_open_as_client_threads_stop(struct aiod_open_as_client_threads *threads, uint64_t timeout_ns);

/* Free the stopped threads. */
void aiod_open_as_client_threads_destroy(struct aiod_open_as_client_threads *threads);

#endif
