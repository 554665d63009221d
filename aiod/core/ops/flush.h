/*
 * flush.h - group commit: the flushes of a file take turns, and flushes that wait share one fdatasync().
 *
 * One fdatasync() at a time. The kernel reports a write-back error once per open file description (errseq_t). If two
 * threads synced at once, one could consume the error and the other return 0 for the same lost page.
 *
 * A descriptor of its own. Flushes use an open file description that was opened with the file's first handle and is
 * never written through, because every sync consumes the error: also that of a write with RWF_DSYNC (FUA) or, on NFS,
 * of a plain write. The error of such a write says nothing about other clients' writes; by its own description, the
 * next flush still sees the error. A description that is opened later than the first one would not see an error that
 * another process has consumed.
 *
 * Parked flushes. A flush that arrives during another one is parked: it holds no worker and needs no wake-up. Parked
 * flushes share one fdatasync() that starts after the last of them arrived, together with those in the pool's queue
 * whose group (aiod_request.group) is the file's aiod_flushes.
 *
 * Poisoned files. After a failed fdatasync() the kernel may have dropped the dirty pages, and would report success for
 * the next one. The file is therefore poisoned, and all its flushes fail, until its last handle is closed
 * (core/ops/files.h).
 *
 * Measured with 16 writers on one file (docs/benchmarks.md): compared with an fdatasync() per caller, an eighth of the
 * flushes, and twice the throughput on a disk that flushes in 100 us. The usual cost of group commit on a fast disk is
 * waking the waiting threads; here no thread waits.
 *
 * Lock order: `lock` is taken last, and is not held over a system call. The pool's lock is not taken under it.
 */
#ifndef AIOD_FLUSH_H
#define AIOD_FLUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ops/flush_writers.h"
#include "pool/pool.h"

#define AIOD_FLUSH_GROUP_SIZES 13u /* up to 1, 2, 4 ... 2048 requests, and more */

/* How many requests each fdatasync() has ended. Accessed by atomic operations. */
struct aiod_flush_groups {
    uint64_t counts[AIOD_FLUSH_GROUP_SIZES];
    uint64_t requests; /* in all groups */
};

struct aiod_flushes {
    struct aiod_pool *pool;
    struct aiod_flush_groups *groups; /* of the table of files; NULL: nothing counts */
    int fd;
    /* on FUSE: a flush syncs every descriptor that was written through, and no write syncs by itself */
    bool by_writers;
    bool fd_is_read; /* `fd` belongs to a read-only handle: on FUSE nothing is synced by it */
    struct aiod_flush_writers writers;
    /* with a handle, because the file could not be opened once more: no write may sync by itself */
    bool shares_description;
    /* accessed by atomic operations; not atomic_bool, because C++ (module.cpp) includes this file */
    bool poisoned;
    bool mount_lost; /* on FUSE, a flush found the mount dead; likewise */
    uint64_t dev;
    uint64_t ino;
    int notice_fd; /* of the table of files */
    pthread_mutex_t lock;

    /* Protected by lock. */
    bool running;
    struct aiod_request *parked; /* linked by `next` */
};

void aiod_flushes_init(struct aiod_flushes *flushes, struct aiod_pool *pool, int fd);
void aiod_flushes_destroy(struct aiod_flushes *flushes);

/*
 * Mark the file as poisoned: a flush failed, in this engine or an earlier one. The first time it sends the msgpack
 * array ["poisoned", dev, ino] on `notice_fd`, if that is not -1. It does so before any client is answered, so that the
 * supervisor knows of the failure if this process dies next. Any thread.
 */
void aiod_flushes_poison(struct aiod_flushes *flushes);

/* Has a flush or a durable write failed? Any thread. */
bool aiod_flushes_poisoned(const struct aiod_flushes *flushes);

/*
 * The handle of `writer` has moved to another mount (session/move_handle.h), and the file is not poisoned any more. Were
 * there changes that no flush has covered, or had one failed? Any thread.
 */
bool aiod_flushes_forget(struct aiod_flushes *flushes, struct aiod_flush_writer *writer);

/*
 * For a worker: make durable everything that was written to the file before the call. The result is `success` or -errno;
 * -EIO and AIOD_REASON_POISONED if an earlier flush failed. A failure poisons the file, and fails all flushes that share it.
 * AIOD_PARKED: the request ends with that result later, or has ended already, because flushes of other requests wait or run.
 */
int64_t aiod_flushes_flush(struct aiod_flushes *flushes, struct aiod_request *request, int64_t success);

/*
 * For a worker: take the turn for a durable write (RWF_DSYNC). False: a flush is running, or the write would consume an
 * error that a flush must report; then write without RWF_DSYNC and call aiod_flushes_flush(). True: call
 * aiod_flushes_end_durable_write() afterwards.
 */
bool aiod_flushes_begin_durable_write(struct aiod_flushes *flushes);

/*
 * End the turn, and end `request` with `result`. A failure poisons the file, unless it may be a refusal of this write
 * (ENOSPC, EFBIG, ...) and a flush then succeeds. Otherwise like aiod_flushes_flush().
 */
int64_t aiod_flushes_end_durable_write(struct aiod_flushes *flushes, struct aiod_request *request, int64_t result);

#endif
