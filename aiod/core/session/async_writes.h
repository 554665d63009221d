/*
 * async_writes.h - whether a write with O_DIRECT is started by io_uring (uring_io.h), or left to a worker.
 *
 * The kernel completes each asynchronous write to a regular file in a thread of a workqueue (iomap_dio_complete_work of ext4,
 * XFS and others), where the completion waits for a CPU. A worker completes its own write, for the same CPU time in all. So
 * writes alone are left to workers. Among reads they are started as well: workers that complete writes look at the rings, and
 * would carry out the reads too, for three times the CPU time. Reads, and writes to devices, complete where they were started.
 *
 * Any thread; updates that are lost do no harm.
 */
#ifndef AIOD_ASYNC_WRITES_H
#define AIOD_ASYNC_WRITES_H

#include <stdbool.h>
#include <stdint.h>

enum aiod_async_writes_to {
    AIOD_ASYNC_WRITES_TO_UNKNOWN,
    AIOD_ASYNC_WRITES_TO_DEVICE,
    AIOD_ASYNC_WRITES_TO_FILE,
};

/* Part of a handle. All zero at first. */
struct aiod_async_writes {
    uint8_t to; /* enum aiod_async_writes_to; accessed by atomic operations */
};

/* Find out about the file `fd`, unless that is known. For a worker that is about to write: the question may block. */
void aiod_async_writes_learn(struct aiod_async_writes *writes, int fd);

/* A read is about to be started, by whatever handle of the engine. */
void aiod_async_writes_note_read(void);

/* Is this write to be started? Asked once for each. */
bool aiod_async_writes_may_start(const struct aiod_async_writes *writes);

#endif
