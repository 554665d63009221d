/*
 * raw_ring.h - a client of ring_engine.h that is no libaiod: it writes into its ring what it likes.
 */
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

/* Begin a session at the socket `path`, with the file "x/NAME" open for reading and writing. */
void raw_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes, const char *name);

/* The same in two parts, of which the first does not wait for an answer. */
void raw_begin_attach(struct raw_ring *ring, const char *path, uint32_t entries, uint64_t area_bytes);
void raw_finish_attach(struct raw_ring *ring, const char *name);

/* The errno that the attach which has begun is refused with; closes the socket. */
int raw_refused(struct raw_ring *ring);

/* The entry at `index` of the submission queue; word by word, since others may write there, too. */
void raw_put(const struct raw_ring *ring, uint32_t index, const struct aiod_ring_sqe *entry);

/* Say that there are entries up to `tail`. */
void raw_submit(const struct raw_ring *ring, uint32_t tail);

void raw_ring_doorbell(const struct raw_ring *ring);

/* Has the engine ended the session? */
bool raw_has_ended(const struct raw_ring *ring);

/* Wait until it has. */
void raw_wait_ended(const struct raw_ring *ring);

/* Wait until there are completions up to `tail`, or beyond it. */
void raw_wait_completed(const struct raw_ring *ring, uint32_t tail);

void raw_detach(struct raw_ring *ring);

#endif
