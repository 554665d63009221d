/*
 * ring_engine.h - an engine for tests of the ring: the core, a main loop in a thread, and a ring socket.
 *
 * It serves the files of engine_add_file() as "x/NAME". The session of a client that disconnects or breaks a rule is
 * ended.
 */
#ifndef RING_ENGINE_H
#define RING_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "ops/notices.h"

#include "check.h"

struct engine_config {
    uint64_t inline_read_max;
    uint64_t poll_max_ns;
    unsigned max_threads;
    uint32_t handles_max;
    uint32_t alignment;     /* of all files, as if opened with O_DIRECT; 0: without */
    bool uring;             /* O_DIRECT, and requests may be started by io_uring, */
    bool uring_in_company;  /* but not those that come alone */
    const char *root;       /* of an OPEN with NAMES */
    uint32_t lent;          /* numbers that are lent to a ring after that, for files that it opens by itself */
    uint32_t verbs_refused; /* of NAME, as bits */
    int notice_socket;      /* to the descriptor store; 0: none */
    struct aiod_keeping keeping;
};

/* Start the engine. The path of its socket. */
const char *engine_start(const struct engine_config *config);

/* Serve the file `fd` as "x/NAME"; each OPEN opens it again. */
void engine_add_file(const char *name, int fd);

/* Let a worker wait at the gate, and wait until it does. */
void engine_block_worker(struct gate *gate);

/* Wait until the rings have `count` requests in flight: the engine takes them a little after their submission. */
void engine_wait_taken(uint32_t count);

/* Wait until at least `count` workers are idle, and none is active. */
void engine_wait_idle(unsigned count);

/* The statistics of its pool. */
struct aiod_pool_stats engine_pool_stats(void);

/* The number of files that rings have opened and the main loop has collected. */
unsigned engine_collected(void);

/* Refuse new requests. */
void engine_drain(void);

/* Wait until there are no sessions and no rings. */
void engine_wait_empty(void);

/* Wait until there are `rings` rings, including those being allocated or freed, and `clients` sessions. */
void engine_wait_rings(unsigned rings, unsigned clients);

/* The number of sessions that ended because their client broke a rule. */
unsigned engine_broken(void);

/* Stop the engine, and check that everything was released. */
void engine_stop(void);

#endif
