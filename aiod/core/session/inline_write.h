/*
 * inline_write.h - a write through the page cache, tried where it is taken from the ring, without blocking.
 *
 * All the rules of a write by a worker hold (io.c): it waits for no range that is locked, it marks the handle as changed,
 * and an error is left to a worker, which repeats the write and reports it. For the thread that takes from the session's
 * ring.
 */
#ifndef AIOD_INLINE_WRITE_H
#define AIOD_INLINE_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/records.h"
#include "session/io.h"

/* May the write be tried, which is at most `bytes_max` long? */
bool aiod_inline_write_may_try(const struct aiod_submission *record, struct aiod_handle *handle, uint64_t bytes_max);

/*
 * Try it. True: it is complete. False: a worker has to write the rest, of which io->have tells the start. A write that has
 * begun can neither be cancelled nor pass its deadline.
 */
bool aiod_inline_write_try(struct aiod_io *io);

#endif
