/*
 * ring_engine.h - an engine for the tests of the ring: the core, a main loop in a thread, and a ring socket.
 *
 * It serves the files that engine_add_file() names, as "x/NAME"; a client that goes, or breaks the rules, has its session
 * ended.
 */
#ifndef RING_ENGINE_H
#define RING_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "check.h"

struct engine_config {
    uint64_t inline_read_max;
    uint64_t poll_max_ns;
    unsigned max_threads;
    uint32_t handles_max;
    uint32_t alignment; /* of files, as if they were open with O_DIRECT; 0: they are not */
};

/* Start it; the path of its socket. */
const char *engine_start(const struct engine_config *config);

/* From now on "x/NAME" is the file `fd`, opened again for each OPEN. */
void engine_add_file(const char *name, int fd);

/* Have a worker wait at the gate, and wait until it does. */
void engine_block_worker(struct gate *gate);

/* Wait until the rings have so many requests in flight: a client's are taken a little after it has submitted them. */
void engine_wait_taken(uint32_t count);

/* Refuse new requests. */
void engine_drain(void);

/* Wait until there is no session and no ring any more. */
void engine_wait_empty(void);

/* Wait until there are `rings` rings, those that are being made or unmade included, and `clients` sessions. */
void engine_wait_rings(unsigned rings, unsigned clients);

/* Sessions ended because their client broke a rule. */
unsigned engine_broken(void);

/* Stop it; what it held must have been given back. */
void engine_stop(void);

#endif
