/*
 * directory_ops.h - operations on the names beneath an export's root: list, stat, remove, rmdir, rename, mkdir, sync
 * (docs/operations.md).
 *
 * The kernel confines the directory of a path (confined.h). The last component is changed by one system call relative
 * to the descriptor of that directory, which follows no link. If another process replaces a part of the path by a link
 * meanwhile, the operation still stays beneath the root. Blocks: for workers. Thread-safe, without locks.
 *
 * An empty path means the root, as ".". For a last component "." or ".." the kernel's errno is returned, and nothing
 * changes: EISDIR (remove), EEXIST (mkdir), EBUSY (rename), EINVAL or ENOTEMPTY (rmdir). A name with trailing slashes
 * means a directory: mkdir, rmdir and rename accept "dir/"; otherwise ENOTDIR or EISDIR.
 */
#ifndef AIOD_DIRECTORY_OPS_H
#define AIOD_DIRECTORY_OPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "path/listing.h"
#include "protocol/records.h"

/* module.cpp uses the same numbers. */
enum aiod_verb {
    AIOD_VERB_LIST,
    AIOD_VERB_STAT,
    AIOD_VERB_REMOVE,
    AIOD_VERB_RMDIR,
    AIOD_VERB_RENAME,
    AIOD_VERB_MKDIR,
    AIOD_VERB_SYNC,
};

struct aiod_directory_op {
    /* Filled by the submitter. */
    enum aiod_verb verb;
    char *root; /* a directory */
    char *path; /* changed by aiod_directory_op_run() */
    char *to;   /* rename: the new path; changed as well */
    int64_t cursor;
    mode_t mode; /* mkdir: permission bits, to which the umask applies */
    bool replace;
    bool no_links; /* do not follow symbolic links, not even within the root */

    /* Filled by aiod_directory_op_run(). */
    bool outside; /* -EXDEV means that a path leaves the root, not that a rename crosses file systems */
    struct aiod_stat stat;
    struct aiod_listing *listing; /* list: the result; NULL: none */
};

/* The entry of a directory that an operation changes. */
struct aiod_target {
    int directory_fd; /* O_PATH */
    const char *name; /* in `path`, with its trailing slashes: the kernel interprets them */
};

/*
 * Split `path`, and open the directory of its last component beneath `root_fd`. 0; or -errno, EXDEV if the path leaves
 * the root.
 */
int aiod_target_find(struct aiod_target *target, int root_fd, char *path, bool links);

/* Allocate an operation, with copies of the strings; the caller fills the rest. NULL if there is no memory. */
struct aiod_directory_op *aiod_directory_op_create(enum aiod_verb verb, const char *root, const char *path,
                                                   const char *to);
void aiod_directory_op_destroy(struct aiod_directory_op *directory_op); /* NULL is ignored */

/*
 * Run the operation. 0, or the kernel's -errno. ENOTDIR can mean that the root is not a directory. EOPNOTSUPP: the file
 * system cannot rename without replacing; a check before the rename would be no substitute. EINVAL of a rename: into
 * its own subdirectory.
 */
int aiod_directory_op_run(struct aiod_directory_op *directory_op);

#endif
