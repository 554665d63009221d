/*
 * files.h - the files behind the handles, by device and inode: what all handles of a file share.
 *
 * The table is the main loop's; of a file, workers use flushes, ranges and position. A file is forgotten, and with it that a
 * flush has failed, when its last handle is closed.
 */
#ifndef AIOD_FILES_H
#define AIOD_FILES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ops/write_loss.h"
#include "ops/flush.h"
#include "ops/range_locks.h"

#define AIOD_FILE_CHAINS 1024u

struct aiod_file {
    uint64_t dev;
    uint64_t ino;
    unsigned refs; /* handles */
    struct aiod_file *next;

    struct aiod_flushes flushes;
    struct aiod_write_loss write_loss;
    struct aiod_range_locks range_locks;
    pthread_mutex_t position; /* held by who uses the file position of a descriptor: appends, and looks for holes */

    bool owns_flush_fd; /* the descriptor of flushes is no handle's, or its handle is closed */
};

struct aiod_files {
    int notice_fd; /* where it is said that a file is poisoned; -1: nowhere */
    struct aiod_file *chains[AIOD_FILE_CHAINS];
};

/*
 * The file, with one more reference, for a handle of `fd`; NULL without memory. If it is new, it flushes on `*flush_fd`, which
 * is its own then and becomes -1 here; or on `fd`, if that is -1: then, if the handle is `writable`, writes share its open
 * file description.
 */
struct aiod_file *aiod_file_get(struct aiod_files *files, struct aiod_pool *pool, uint64_t dev, uint64_t ino, int fd,
                                int *flush_fd, bool writable, bool on_fuse);

/*
 * The handle of `fd` is closed. Puts into `close` the descriptors that nobody needs any more, and returns how many (0 to
 * 2): the descriptor of flushes stays until the last handle is closed, also if it was that of a handle.
 */
unsigned aiod_file_put(struct aiod_files *files, struct aiod_file *file, int fd, int close[2]);

#endif
