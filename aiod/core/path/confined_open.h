/*
 * confined_open.h - opens or creates a file beneath an export's root.
 *
 * The kernel confines the path (confined.h). Blocks: for workers. Thread-safe, without locks.
 */
#ifndef AIOD_CONFINED_OPEN_H
#define AIOD_CONFINED_OPEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "aiod_ring.h"

#include "ops/alignment.h"

/* In addition to the client's flags (aiod_ring.h), which use the lower bits. */
#define AIOD_OPEN_NO_LINKS (1u << 31) /* ELOOP for a path that contains a symbolic link */

/* The attributes of a file that is created. */
struct aiod_creation {
    mode_t mode;
    bool exact; /* exactly this mode; else the umask applies */
    uid_t uid;  /* (uid_t)-1: keep the daemon's; the same for the gid */
    gid_t gid;
};

struct aiod_opened {
    int fd;
    uint64_t size; /* bytes */
    uint64_t dev;  /* file_id.h; likewise the generation */
    uint64_t ino;
    uint64_t generation;
    /* the file, opened once more for the supervisor's descriptor store (docs/architecture/processes.md); -1: none */
    int store_fd;
    int flush_fd; /* the file, opened once more for flushes only (flush.h); -1: not possible, or read-only */
    struct aiod_alignment alignment; /* with DIRECT */
    bool on_fuse;
    bool local; /* set by open_reading.h: the file system asks no server and no other process */
};

/*
 * Open `path` beneath the directory `root`. An empty `path` opens `root` itself, a regular file or a block device. 0,
 * or -errno:
 * - EXDEV: the path leaves the root.
 * - EISDIR, EINVAL: a directory; another type that is not served.
 * - EEXIST: with EXCLUSIVE, the path exists (as the root always does); with CREATE, it is a dangling symbolic link.
 * - EINVAL: with DIRECT, the file system does not support O_DIRECT.
 * - EPERM: the new file cannot be given to the owner in `creation`. The file stays, empty, and belongs to the daemon.
 */
int aiod_confined_open(const char *root, const char *path, unsigned flags, const struct aiod_creation *creation,
                       struct aiod_opened *opened);

/* Open an existing file for reading, without describing it; `flags`: AIOD_OPEN_NO_LINKS or 0. A descriptor, or -errno. */
int aiod_confined_open_reading(const char *root, const char *path, unsigned flags);

/* Set the owner and the exact mode, which open(2) does not set. 0, or -errno. */
int aiod_confined_set_owner_and_mode(int fd, const struct aiod_creation *creation);

/*
 * Describe a file that an earlier engine had opened. `fd` becomes the flush_fd, because it still reports write-back
 * errors of the earlier engine, and the file is opened once more for everything else. If that is not possible, or the
 * file is read-only, `fd` is used for both. Sets no store_fd. 0, or -errno: then `fd` is closed.
 */
int aiod_confined_adopt(int fd, unsigned flags, struct aiod_opened *opened);

#endif
