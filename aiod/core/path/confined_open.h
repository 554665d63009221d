/*
 * confined_open.h - opening a file beneath an export's root, and nothing else.
 *
 * The kernel confines the path (confined.h). Blocks: for workers only. Thread-safe.
 */
#ifndef AIOD_CONFINED_OPEN_H
#define AIOD_CONFINED_OPEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "aiod_ring.h"

#include "ops/alignment.h"

/* Beside the client's flags (aiod_ring.h), which are below. */
#define AIOD_OPEN_NO_LINKS (1u << 31) /* ELOOP for a path with a symbolic link in it */

/* How a file is made that is not there. */
struct aiod_creation {
    mode_t mode;
    bool exact; /* of this very mode; else the umask takes bits away */
    uid_t uid;  /* (uid_t)-1: whose the daemon is; and so the group */
    gid_t gid;
};

struct aiod_opened {
    int fd;
    uint64_t size; /* bytes */
    uint64_t dev;
    uint64_t ino;
    uint64_t generation; /* file_id.h */
    int store_fd; /* the same file opened once more, for who keeps it (docs/architecture.md); -1: it could not be */
    int flush_fd; /* the same file opened once more, for flushes alone (flush.h); -1: it could not be, or is read-only */
    struct aiod_alignment alignment; /* with DIRECT */
    bool on_fuse;
};

/*
 * Open `path` beneath the directory `root`; an empty `path` opens `root` itself, a regular file or a block device.
 * 0, or -errno: EXDEV when the path leaves the root, EISDIR for a directory, EINVAL for what is no regular file, EEXIST
 * with EXCLUSIVE for what is there (the root always is), and with CREATE for a link to nothing; EINVAL with DIRECT where the
 * file system has no O_DIRECT; EPERM where a new file cannot be given away (it stays, empty and the daemon's).
 */
int aiod_confined_open(const char *root, const char *path, unsigned flags, const struct aiod_creation *creation,
                       struct aiod_opened *opened);

/*
 * What aiod_confined_open() tells, of a file that an earlier engine had open: `fd` becomes the flush_fd, since it is told of
 * what the kernel has failed to write for that engine, and the file is opened once more for all else. If it cannot be, `fd`
 * is for both; one that is read-only is so anyway. Without a witness. 0, or -errno: then `fd` is closed.
 */
int aiod_adopt(int fd, unsigned flags, struct aiod_opened *opened);

#endif
