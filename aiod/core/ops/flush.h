/*
 * flush.h - the flushes of one file take turns, and those that waited share one (group commit).
 *
 * One fdatasync() at a time: the kernel reports a write-back error once for each open file description (errseq_t), so of two
 * at once one may take the error and the other return 0 for the same lost page.
 *
 * It goes by an open file description of its own, made with the file's first handle and never written through. Whatever
 * syncs takes the error as well: a write with RWF_DSYNC (FUA), on NFS a plain write, too. Its error is the write's result, and
 * says nothing about what others have written; by another description, the next flush is still told. A description opened
 * later than the first would not be told of an error that somebody has seen before.
 *
 * Flushes that arrive meanwhile are parked, which costs no worker and no wake-up, and
 * share one fdatasync() that starts after the last of them arrived; so do those that wait in the pool's queue, as the
 * group of that name (aiod_request.group is the file's aiod_flushes).
 *
 * After a failed fdatasync the kernel may have dropped the dirty pages and would report the next one as a success; so the file
 * is poisoned until it is forgotten (core/ops/files.h).
 *
 * Beside each caller's own fdatasync() at once, 16 writers on one file (docs/benchmarks.md): one eighth of the flushes, and
 * twice the throughput on a disk that flushes in 100 us. What group commit usually costs a fast disk is the waking of
 * those that waited; nobody sleeps here.
 */
#ifndef AIOD_FLUSH_H
#define AIOD_FLUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ops/flush_writers.h"
#include "pool/pool.h"

struct aiod_flushes {
    struct aiod_pool *pool;
    int fd;
    bool
        by_writers; /* on FUSE: a flush goes by each descriptor that was written through, and no write syncs by itself */
    bool fd_is_read; /* that of a handle that cannot write: nothing is synced by it on FUSE */
    struct aiod_flush_writers writers;
    bool
        shares_description; /* with a handle, since the file could not be opened once more: no write may sync by itself */
    bool poisoned;          /* by atomic operations: module.cpp includes this, and C++ has other atomic types */
    uint64_t dev;
    uint64_t ino;
    int notice_fd; /* of the file's table */
    pthread_mutex_t lock;

    /* Protected by lock. */
    bool running;
    struct aiod_request *parked; /* linked by next */
};

void aiod_flushes_init(struct aiod_flushes *flushes, struct aiod_pool *pool, int fd);
void aiod_flushes_destroy(struct aiod_flushes *flushes);

/*
 * A flush has failed, here or in an engine before this one. The first time it is said on `notice_fd` (-1: nowhere) as the msgpack
 * array ["poisoned", dev, ino], before anybody hears of the failure: the supervisor knows it when this process dies next.
 */
void aiod_flushes_poison(struct aiod_flushes *flushes);

/* Has a flush or FUA failed? Any thread. */
bool aiod_flushes_poisoned(const struct aiod_flushes *flushes);

/*
 * On a worker: have on disk everything written to the file before the call. Always AIOD_PARKED: the request ends, perhaps
 * already, with `success`, or -errno: -EIO with its reason AIOD_REASON_POISONED when an earlier one has failed. A failure
 * poisons the file, and fails all that share it.
 */
int64_t aiod_flushes_flush(struct aiod_flushes *flushes, struct aiod_request *request, int64_t success);

/*
 * On a worker: take the turn for a write that is a flush of its own (RWF_DSYNC). False: a flush is under way, or the write
 * would take an error that flushes have to report; write, then aiod_flushes_flush(). Whoever got it calls aiod_flush_end().
 */
bool aiod_flush_begin(struct aiod_flushes *flushes);

/*
 * Give the turn back, and end `request` with `result`. A failure poisons the file, unless it may be this write's refusal
 * (ENOSPC, EFBIG, ...) and a flush then succeeds. As aiod_flushes_flush() otherwise.
 */
int64_t aiod_flush_end(struct aiod_flushes *flushes, struct aiod_request *request, int64_t result);

#endif
