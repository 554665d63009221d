/*
 * directory_ops.h - the names beneath an export's root: list, stat, remove, rmdir, rename, mkdir, sync (docs/operations.md).
 *
 * The kernel confines the directory of a path (confined.h); what is done to the last component is one call relative to
 * that directory's descriptor, which follows no link. So a part of the path that is swapped for a link meanwhile leads
 * nowhere else. Blocks: for workers only. Thread-safe.
 *
 * An empty path is the root itself, as ".". What Linux says to a last component that is "." or ".." is the answer, and it
 * never changes anything: remove EISDIR, mkdir EEXIST, rename EBUSY, rmdir EINVAL or ENOTEMPTY. After a name, slashes
 * mean "a directory": "dir/" may be made, removed by rmdir, and renamed; else ENOTDIR or EISDIR.
 */
#ifndef AIOD_DIRECTORY_OPS_H
#define AIOD_DIRECTORY_OPS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "path/listing.h"
#include "protocol/records.h"

/* Numbers are shared with module.cpp. */
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
    char *path; /* run() changes it */
    char *to;   /* rename: so is this */
    int64_t cursor;
    mode_t mode; /* mkdir: permission bits, of which the umask takes some away */
    bool replace;
    bool no_links; /* symbolic links are not followed, not even within the root */

    /* Filled by run(). */
    bool outside; /* it is -EXDEV because a path leaves the root, and not because two file systems are concerned */
    struct aiod_stat stat;
    struct aiod_listing *listing; /* NULL: none was made */
};

/* Copies the strings; the rest is the caller's to fill in. NULL: no memory. */
struct aiod_directory_op *aiod_directory_op_create(enum aiod_verb verb, const char *root, const char *path,
                                                   const char *to);
void aiod_directory_op_destroy(struct aiod_directory_op *directory_op); /* NULL: nothing */

/*
 * Do it. 0, or -errno: the kernel's, with these meanings. ENOTDIR: the root is no directory, too. EOPNOTSUPP: the file
 * system cannot rename without replacing; a look beforehand would be no substitute. EINVAL of a rename: into itself.
 */
int aiod_directory_op_run(struct aiod_directory_op *directory_op);

#endif
