/*
 * directory_ops.h - operations on the names beneath an export's root (docs/operations.md): of list, stat, remove and so
 * on, one at a time, for requests by message and by ring.
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
#include <time.h>

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
    AIOD_VERB_LSTAT,
    AIOD_VERB_READLINK,
    AIOD_VERB_SYMLINK,
    AIOD_VERB_LINK,
    AIOD_VERB_UTIME,
    AIOD_VERB_CHMOD,
    AIOD_VERB_GETXATTR,
    AIOD_VERB_SETXATTR,
    AIOD_VERB_LISTXATTR,
    AIOD_VERB_REMOVEXATTR,
    AIOD_VERB_RMTREE,
};

struct aiod_directory_op {
    /* Filled by the submitter. */
    enum aiod_verb verb;
    char *root; /* a directory */
    char *path; /* changed by aiod_directory_op_run() */
    /*
     * rename, link: the new path; changed as well. symlink: the target, which may be any text. xattrs: the name of the
     * attribute, which begins with "user.": the submitter checks that.
     */
    char *to;
    int64_t cursor;
    mode_t mode; /* mkdir: permission bits, to which the umask applies; chmod: without the umask */
    bool replace;
    bool no_links;            /* do not follow symbolic links, not even within the root */
    bool itself;              /* utime, chmod, xattrs: do not follow a symbolic link that is the last component */
    struct timespec times[2]; /* utime: of access, and of the content's change; tv_nsec may be UTIME_NOW */
    void *value;              /* setxattr: from malloc() */
    size_t value_bytes;
    int xattr_flags; /* setxattr: XATTR_CREATE, XATTR_REPLACE or 0 */

    /* Filled by aiod_directory_op_run(). */
    bool outside; /* -EXDEV means that a path leaves the root, not that a rename crosses file systems */
    struct aiod_stat stat;
    struct aiod_listing *listing; /* list: the result; NULL: none */
    char *text;                   /* readlink: the target; getxattr, listxattr: attributes.h; NULL: none */
    size_t text_bytes;
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
 * Run the operation. 0, or the kernel's -errno; 1 for a rmtree that is to be continued by another one of the same path.
 * ENOTDIR can mean that the root is not a directory. EOPNOTSUPP: the file system cannot rename without replacing; a check
 * before the rename would be no substitute. EINVAL of a rename: into its own subdirectory.
 */
int aiod_directory_op_run(struct aiod_directory_op *directory_op);

#endif
