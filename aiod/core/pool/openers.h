/*
 * openers.h - the openers of an engine, one for each export whose files are opened as the client.
 *
 * An opener has one thread, which an export on a dead file system keeps for ever: so no two exports share one. Openers are
 * created with the first request and stay until the engine ends: there are as many as the engine has had such exports.
 *
 * Main loop's thread only.
 */
#ifndef AIOD_OPENERS_H
#define AIOD_OPENERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/opener.h"
#include "pool/pool.h"

struct aiod_export_opener;
struct aiod_rate;

struct aiod_openers {
    struct aiod_export_opener *first;
    struct aiod_pool *pool;
    char name[AIOD_OPENER_NAME_BYTES]; /* the engine's */
};

/* None yet. `pool` gets what is done, and both outlive the openers. */
void aiod_openers_init(struct aiod_openers *openers, struct aiod_pool *pool, const char *name);

/* aiod_opener_submit() to that of the export whose rate `rate` is (NULL: of all without one). 0, or -errno: nothing was done. */
int aiod_openers_submit(struct aiod_openers *openers, struct aiod_rate *rate, struct aiod_request *request,
                        const struct aiod_identity *identity);

/* aiod_opener_visit() of each, until `visit` says that it is enough. */
void aiod_openers_visit(struct aiod_openers *openers, uint64_t slow_ns,
                        bool (*visit)(const struct aiod_sight *sight, void *argument), void *argument);

/* aiod_opener_expire() of each. */
void aiod_openers_expire(struct aiod_openers *openers);

/* How many requests wait for them. */
size_t aiod_openers_waiting(const struct aiod_openers *openers);

/* Cancel what waits, and end the threads. False: one is still inside a system call after `timeout_ns`, in all. */
bool aiod_openers_stop(struct aiod_openers *openers, uint64_t timeout_ns);

/* Of stopped ones. */
void aiod_openers_destroy(struct aiod_openers *openers);

#endif
