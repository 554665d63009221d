/*
 * async_writes.h - whether a write with O_DIRECT is started by io_uring (uring_io.h), or left to a worker.
 *
 * The kernel completes each asynchronous write to a regular file in a thread of a workqueue (iomap_dio_complete_work of
 * ext4, XFS and others), where the completion waits for a CPU. A worker completes its own write, but costs two context
 * switches and twice the CPU time. On idle CPUs writes that are started are faster, on busy ones those of workers, by
 * several times. So each handle measures both, and tries the other way for some writes now and then. A trial that goes
 * badly ends early, and the next one is twice as many writes away.
 *
 * Among reads writes are always started: workers that complete writes look at the rings, and would carry out the reads
 * too, for three times the CPU time. Reads, and writes to devices, complete where they were started.
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

/* How a write is carried out. */
enum aiod_async_writes_way {
    AIOD_ASYNC_WRITES_BY_WORKER,
    AIOD_ASYNC_WRITES_STARTED,
};

/* Part of a handle. All zero at first; accessed by atomic operations. */
struct aiod_async_writes {
    uint8_t to;          /* enum aiod_async_writes_to */
    uint8_t way;         /* enum aiod_async_writes_way: of the next writes */
    bool tries;          /* that way, and will compare it with the other one */
    bool undecided;      /* too few writes of the last trial had ended: they are judged after the pause */
    uint32_t left;       /* writes until then, or until the next trial */
    uint32_t pause;      /* writes between the last two trials */
    uint32_t count[2];   /* writes that ended, by way; since its last trial began, or at most COUNT_MAX */
    uint32_t mean_ns[2]; /* moving means of their latencies */
    uint32_t judged_ns;  /* the mean of the way in use, when the last trial ended */
};

/* What is to be done with a write. */
struct aiod_async_write {
    bool start;
    bool compared; /* aiod_async_writes_ended() is to be called */
};

/* Find out about the file `fd`, unless that is known. For a worker that is about to write: the question may block. */
void aiod_async_writes_learn(struct aiod_async_writes *writes, int fd);

/* A read is about to be started, by whatever handle of the engine. */
void aiod_async_writes_note_read(void);

/* Asked once for each write. */
struct aiod_async_write aiod_async_writes_next(struct aiod_async_writes *writes);

/* A write has ended, `latency_ns` after it was submitted. */
void aiod_async_writes_ended(struct aiod_async_writes *writes, enum aiod_async_writes_way way, uint64_t latency_ns);

#endif
