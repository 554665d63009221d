/*
 * confined_open.h - opening a file beneath an export's root, and nothing else.
 *
 * The kernel confines the path (confined.h). Blocks: for workers only. Thread-safe.
 */
#ifndef AIOD_CONFINED_OPEN_H
#define AIOD_CONFINED_OPEN_H

#include <stdint.h>
#include <sys/types.h>

#include "aiod_ring.h"

#include "alignment.h"

struct aiod_opened {
    int fd;
    uint64_t size; /* bytes */
    uint64_t dev;
    uint64_t ino;
    struct aiod_alignment alignment; /* with DIRECT */
};

/*
 * Open `path` beneath the directory `root`; an empty `path` opens `root` itself, a regular file or a block device.
 * 0, or -errno: EXDEV when the path leaves the root, EISDIR for a directory, EINVAL for what is no regular file, EEXIST
 * with EXCLUSIVE for what is there (the root always is), and with CREATE for a link to nothing; EINVAL with DIRECT where the
 * file system has no O_DIRECT.
 */
int aiod_confined_open(const char *root, const char *path, unsigned flags, mode_t mode, struct aiod_opened *opened);

#endif
