/*
 * cached_path.h - opens paths that are in the kernel's cache of names, without blocking: for the leader of the rings.
 *
 * RESOLVE_CACHED fails where a file system would have to be asked. What follows the open may still ask it (on FUSE and
 * network file systems), so it is done only on a device that a worker has found to be local. Any thread.
 */
#ifndef AIOD_CACHED_PATH_H
#define AIOD_CACHED_PATH_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/records.h"

/*
 * Open `path` beneath `root` with O_PATH. A descriptor; -ENOENT: known without asking; -EAGAIN: a worker has
 * to open it, for any reason.
 */
int aiod_cached_open(const char *root, const char *path, bool no_links);

/*
 * Descriptors that a call here has done with, for its caller to close: closing takes time, in which a client could have its
 * answer already.
 */
struct aiod_spent {
    int fds[2];
    unsigned count;
};

void aiod_spent_add(struct aiod_spent *spent, int fd);
void aiod_spent_close(struct aiod_spent *spent);

/* The stat of an O_PATH descriptor, if it is on `device` and can be described without asking. 0, or -EAGAIN. */
int aiod_cached_stat(int fd, uint64_t device, struct aiod_stat *stat);

/* Open the regular file of an O_PATH descriptor on a local device for reading. A descriptor, or -EAGAIN. */
int aiod_cached_reopen(int path_fd);

/* Is the file on a file system that asks no server and no other process? Blocks: for workers. */
bool aiod_is_local(int fd);

#endif
