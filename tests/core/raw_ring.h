/* raw_ring.h - a client of ring_engine.h without libaiod, which can write anything to its ring. */
#ifndef RAW_RING_H
#define RAW_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aiod_ring.h"

struct raw_ring {
    int socket;
    int doorbell;
    int memory; /* the memfd */
    char *base;
    size_t bytes;
    struct aiod_ring_header *header;
    struct aiod_ring_sqe *sqes;
    struct aiod_ring_cqe *cqes;
    uint32_t entries;
    uint32_t handle;
};

/* Start a session at the socket `path`, with "x/NAME" open for reading and writing. */
void raw_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes, const char *name);

/* The same in two parts; the first does not wait for the answer. */
void raw_begin_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes);
void raw_finish_attach(struct raw_ring *ring, const char *name);

/* A handle for the names of "x". */
uint32_t raw_open_names(const struct raw_ring *ring);

/* The errno that refused the attach that was begun; closes the socket. */
int raw_refused(struct raw_ring *ring);

/* Write the entry at `index` of the submission queue word by word, because other threads may write there too. */
void raw_put(const struct raw_ring *ring, uint32_t index, const struct aiod_ring_sqe *entry);

/* Publish the entries up to `tail`. */
void raw_submit(const struct raw_ring *ring, uint32_t tail);

/* The words after the header by which submissions are withdrawn. */
struct aiod_ring_withdrawal *raw_withdrawal(const struct raw_ring *ring);

void raw_ring_doorbell(const struct raw_ring *ring);

/* Has the engine ended the session? */
bool raw_has_ended(const struct raw_ring *ring);

/* Wait until it has. */
void raw_wait_ended(const struct raw_ring *ring);

/* Wait until there are completions up to `tail` or more. */
void raw_wait_completed(const struct raw_ring *ring, uint32_t tail);

/* Submit the next entry, alone, and wait for its completion, which is taken. The cookie is the entry's number. */
struct aiod_ring_cqe raw_carry_out(const struct raw_ring *ring, struct aiod_ring_sqe entry);

void raw_detach(struct raw_ring *ring);

#endif
