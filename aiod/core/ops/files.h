/*
 * files.h - the table of open files by device and inode, with the state that all handles of a file share.
 *
 * Any thread may use the table, which has a lock. Workers use a file's flushes, write_loss, range_locks and position,
 * which have locks of their own or are atomic. A file is removed with its last handle; that a flush failed is forgotten
 * then.
 *
 * Lock order: position, then range_locks. No other lock is taken under that of the table.
 */
#ifndef AIOD_FILES_H
#define AIOD_FILES_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "ops/flush.h"
#include "ops/range_locks.h"
#include "ops/write_loss.h"

#define AIOD_FILE_CHAINS 1024u

struct aiod_file {
    uint64_t dev;
    uint64_t ino;

    /* Protected by the table's lock. */
    unsigned refs; /* handles */
    struct aiod_file *next;
    bool owns_flush_fd; /* the descriptor for flushes belongs to no open handle */

    struct aiod_flushes flushes;
    struct aiod_write_loss write_loss;
    struct aiod_range_locks range_locks;
    pthread_mutex_t position; /* held while a descriptor's file position is used: by appends and searches for holes */
};

/* A new handle of a file. */
struct aiod_file_user {
    int fd; /* -1: none, of a NAMES handle */
    bool writable;
    bool on_fuse;
    bool inherited; /* it was open in an earlier engine */
};

struct aiod_files {
    int notice_fd; /* a socket for the notice that a file is poisoned; -1: none */
    struct aiod_flush_groups groups;
    pthread_mutex_t lock;
    uint32_t descriptors; /* read by atomic operations */
    struct aiod_file *chains[AIOD_FILE_CHAINS];
};

void aiod_files_init(struct aiod_files *files);
void aiod_files_destroy(struct aiod_files *files);

/*
 * Get the file of a new handle, with one more reference. NULL if there is no memory. A new file takes `*flush_fd` for
 * its flushes, and sets it to -1. If that is -1, it flushes by the handle's descriptor; then the writes of a writable
 * handle use the same open file description as the flushes.
 */
struct aiod_file *aiod_file_get(struct aiod_files *files, struct aiod_pool *pool, uint64_t dev, uint64_t ino,
                                const struct aiod_file_user *user, int *flush_fd);

/* Has the file other handles? */
bool aiod_file_is_shared(struct aiod_files *files, const struct aiod_file *file);

/*
 * The handle with descriptor `fd` is closed. Writes the descriptors that the caller must close to `close`, and returns
 * their number (0 to 2). The descriptor for flushes stays open until the last handle is closed, even if it was that of
 * a handle.
 */
unsigned aiod_file_put(struct aiod_files *files, struct aiod_file *file, int fd, int close[2]);

/*
 * The same for a handle that was opened for reading, if no descriptor for writing has to be closed; -1 in `close`: none.
 * False: nothing was done.
 */
bool aiod_file_put_reader(struct aiod_files *files, struct aiod_file *file, int fd, int close[2]);

/* The number of descriptors of all open files. Any thread. */
uint32_t aiod_files_descriptors(const struct aiod_files *files);

#endif
