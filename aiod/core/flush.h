/*
 * flush.h - the flushes of one handle take turns, and those that waited share one.
 *
 * The kernel reports a write-back error once for each open file: of two fdatasync() at once one may take the error, and the
 * other return 0 for the same lost page. So there is one at a time, and whoever comes after a failed one is told by the
 * poison. A flush that was asked for before another's fdatasync() began is covered by it (group commit). Handles do not
 * share: each is an open file of its own, and the kernel tells each of them.
 */
#ifndef AIOD_FLUSH_H
#define AIOD_FLUSH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "files.h"
#include "request.h"

struct aiod_flushes {
    pthread_mutex_t lock;

    /* Protected by lock. */
    pthread_cond_t turn;
    bool running;
    uint64_t asked;
    uint64_t covered; /* of the asked, oldest first: on disk */
};

void aiod_flushes_init(struct aiod_flushes *flushes);
void aiod_flushes_destroy(struct aiod_flushes *flushes);

/*
 * On a worker: have everything that was written to `fd` before the call on disk. 0, or -errno: -EIO with `*reason`
 * AIOD_REASON_POISONED when an earlier flush of the file has failed. A failure poisons the file.
 */
int64_t aiod_flush(struct aiod_flushes *flushes, struct aiod_file *file, int fd, enum aiod_reason *reason);

#endif
