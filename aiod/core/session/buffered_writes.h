/*
 * buffered_writes.h - how the writes of a handle through the page cache are carried out.
 *
 * Where writes to the file exclude each other in the kernel, those of the handle are a lane (pool/lane.h). The worker that
 * carries out the first write finds out: the questions may block.
 *
 * Not in the lane: writes by O_DIRECT, which the kernel lets overlap, and durable writes (FUA), which wait for a flush that
 * they share.
 */
#ifndef AIOD_BUFFERED_WRITES_H
#define AIOD_BUFFERED_WRITES_H

#include <stdbool.h>

#include "pool/lane.h"

/* Part of a handle. All zero at first. */
struct aiod_buffered_writes {
    bool known;   /* `exclude` is; accessed by atomic operations */
    bool exclude; /* they exclude each other; accessed by atomic operations */
    struct aiod_lane lane;
};

/* Find out about the file `fd`, unless that is known. For a worker that is about to write. */
void aiod_buffered_writes_learn(struct aiod_buffered_writes *writes, int fd);

/* The lane of a buffered write; NULL: the file needs none, or that is not known yet. Any thread. */
struct aiod_lane *aiod_buffered_writes_lane(struct aiod_buffered_writes *writes);

#endif
