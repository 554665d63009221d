/*
 * uring_io.h - the reads and writes that are started by io_uring (pool/uring.h): those of whole blocks in one piece, at
 * aligned addresses, by an O_DIRECT handle.
 *
 * All others are run by workers:
 * - Transfers through the page cache: io_uring executes them in the submitting thread, which copies the data.
 * - Misaligned transfers: a bounce buffer is filled before, or copied after the transfer.
 * - Durable writes (FUA): the thread takes the flush's turn, and may have to flush itself (ops/flush.h).
 * - Large transfers: for the disk they would be one request, for which other clients wait (ops/direct.c).
 * - Transfers whose bytes are locked (ops/range_locks.h) when they are to be started.
 * - Writes to regular files where workers are faster (async_writes.h), unless the handle wants io_uring for all.
 *
 * A request holds the lock of its bytes from its start to its end, like a worker in direct.c. Its holder waits for nothing
 * else, so it adds no deadlock.
 *
 * A short transfer is continued. Every result that needs an explanation is left to a worker, which repeats the whole
 * transfer: EAGAIN (it would block), EOPNOTSUPP (the file system cannot tell), EINVAL, or a write of no bytes at the end
 * of a device. After a failure the next requests of this kind and handle are not tried, twice as many after each failure in
 * succession: a file system that never starts writes costs nothing.
 */
#ifndef AIOD_URING_IO_H
#define AIOD_URING_IO_H

#include "session/io.h"

/* The operations by which the request is to be started; NULL: a worker has to run it. All other fields are set. */
const struct aiod_uring_operations *aiod_uring_io_operations(struct aiod_io *io);

#endif
