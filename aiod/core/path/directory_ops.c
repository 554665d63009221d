/* directory_ops.c - list, stat, remove, rmdir, rename, mkdir and sync beneath a root. */
#include "path/directory_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/query_ops.h"
#include "path/confined.h"
#include "util/os.h"

struct aiod_directory_op *aiod_directory_op_create(enum aiod_verb verb, const char *root, const char *path,
                                                   const char *to)
{
    struct aiod_directory_op *directory_op = calloc(1, sizeof(*directory_op));

    if (directory_op == NULL) {
        return NULL;
    }
    directory_op->verb = verb;
    directory_op->root = strdup(root);
    directory_op->path = strdup(path);
    directory_op->to = strdup(to);
    if (directory_op->root == NULL || directory_op->path == NULL || directory_op->to == NULL) {
        aiod_directory_op_destroy(directory_op);
        return NULL;
    }
    return directory_op;
}

void aiod_directory_op_destroy(struct aiod_directory_op *directory_op)
{
    if (directory_op == NULL) {
        return;
    }
    free(directory_op->root);
    free(directory_op->path);
    free(directory_op->to);
    free(directory_op->listing);
    free(directory_op);
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

static int open_path(struct aiod_directory_op *directory_op, int root_fd, const char *path, uint64_t flags)
{
    int fd = aiod_open_beneath(root_fd, *path != '\0' ? path : ".", flags, 0, !directory_op->no_links);

    directory_op->outside = fd == -EXDEV;
    return fd;
}

static int list(struct aiod_directory_op *directory_op, int fd)
{
    directory_op->listing = malloc(sizeof(*directory_op->listing));
    return directory_op->listing == NULL ? -ENOMEM : aiod_listing_read(fd, directory_op->cursor, directory_op->listing);
}

static int stat_path(struct aiod_directory_op *directory_op, int fd)
{
    return (int)aiod_query_stat(fd, &(struct aiod_alignment){.memory = 1, .offset = 1}, &directory_op->stat);
}

static int sync_directory(struct aiod_directory_op *directory_op, int fd)
{
    (void)directory_op;
    while (aiod_os->fsync(fd) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* Open the path with `flags`, and call `query` with the descriptor. */
static int query_path(struct aiod_directory_op *directory_op, int root_fd, uint64_t flags,
                      int (*query)(struct aiod_directory_op *directory_op, int fd))
{
    int fd = open_path(directory_op, root_fd, directory_op->path, flags);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = query(directory_op, fd);
    close(fd);
    return error;
}

/* ---- changes of a directory -------------------------------------------------------------------------------------- */

/* The last component of a relative path. */
static char *last_component(char *path)
{
    char *end = path + strlen(path);

    while (end > path && end[-1] == '/') {
        end--;
    }
    while (end > path && end[-1] != '/') {
        end--;
    }
    return end;
}

int aiod_target_find(struct aiod_target *target, int root_fd, char *path, bool links)
{
    char *name = last_component(path);

    if (*path == '/') {
        return -EXDEV; /* `name` could be an absolute path */
    }
    target->name = *name != '\0' ? name : ".";
    if (name > path) {
        name[-1] = '\0';
    }
    target->directory_fd = aiod_open_beneath(root_fd, name > path ? path : ".", O_PATH | O_DIRECTORY, 0, links);
    return target->directory_fd < 0 ? target->directory_fd : 0;
}

static int find_target(struct aiod_directory_op *directory_op, int root_fd, char *path, struct aiod_target *target)
{
    int error = aiod_target_find(target, root_fd, path, !directory_op->no_links);

    directory_op->outside = error == -EXDEV;
    return error;
}

static int change_target(const struct aiod_directory_op *directory_op, const struct aiod_target *target)
{
    int failed;

    if (directory_op->verb == AIOD_VERB_MKDIR) {
        failed = mkdirat(target->directory_fd, target->name, directory_op->mode & 0777);
    } else {
        failed = unlinkat(target->directory_fd, target->name, directory_op->verb == AIOD_VERB_RMDIR ? AT_REMOVEDIR : 0);
    }
    return failed < 0 ? -errno : 0;
}

static int change(struct aiod_directory_op *directory_op, int root_fd)
{
    struct aiod_target target;
    int error = find_target(directory_op, root_fd, directory_op->path, &target);

    if (error < 0) {
        return error;
    }
    error = change_target(directory_op, &target);
    close(target.directory_fd);
    return error;
}

/* ---- rename ------------------------------------------------------------------------------------------------------ */

static bool is_same(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Is the directory `fd` the one described by `wanted`, or beneath it? */
static bool is_same_or_beneath(int fd, const struct stat *wanted)
{
    struct stat here = {0};
    struct stat below;
    bool found = false;

    fd = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    do {
        int above = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

        below = here;
        found = fstat(fd, &here) == 0 && is_same(&here, wanted);
        close(fd);
        fd = above;
    } while (fd >= 0 && !found && !is_same(&here, &below));
    if (fd >= 0) {
        close(fd);
    }
    return found;
}

/*
 * EINVAL of a rename without `replace` has two causes: the directory would become its own subdirectory, or the file
 * system does not support RENAME_NOREPLACE (NFS, some FUSE servers).
 */
static int explain_invalid(const struct aiod_target *from, const struct aiod_target *to)
{
    struct stat moved;

    if (fstatat(from->directory_fd, from->name, &moved, AT_SYMLINK_NOFOLLOW) < 0) {
        return -errno;
    }
    return is_same_or_beneath(to->directory_fd, &moved) ? -EINVAL : -EOPNOTSUPP;
}

static int move(const struct aiod_directory_op *directory_op, const struct aiod_target *from,
                const struct aiod_target *to)
{
    unsigned flags = directory_op->replace ? 0 : RENAME_NOREPLACE;

    if (aiod_os->renameat2(from->directory_fd, from->name, to->directory_fd, to->name, flags) == 0) {
        return 0;
    }
    return errno == EINVAL && !directory_op->replace ? explain_invalid(from, to) : -errno;
}

static int rename_path(struct aiod_directory_op *directory_op, int root_fd)
{
    struct aiod_target from;
    struct aiod_target to;
    int error = find_target(directory_op, root_fd, directory_op->path, &from);

    if (error < 0) {
        return error;
    }
    error = find_target(directory_op, root_fd, directory_op->to, &to);
    if (error == 0) {
        error = move(directory_op, &from, &to);
        close(to.directory_fd);
    }
    close(from.directory_fd);
    return error;
}

/* ---- the operation ----------------------------------------------------------------------------------------------- */

static int run_verb(struct aiod_directory_op *directory_op, int root_fd)
{
    switch (directory_op->verb) {
    case AIOD_VERB_LIST:
        return query_path(directory_op, root_fd, O_RDONLY | O_DIRECTORY, list);
    case AIOD_VERB_STAT:
        return query_path(directory_op, root_fd, O_PATH, stat_path);
    case AIOD_VERB_SYNC:
        return query_path(directory_op, root_fd, O_RDONLY | O_DIRECTORY, sync_directory);
    case AIOD_VERB_REMOVE:
    case AIOD_VERB_RMDIR:
    case AIOD_VERB_MKDIR:
        return change(directory_op, root_fd);
    case AIOD_VERB_RENAME:
        return rename_path(directory_op, root_fd);
    }
    return -EINVAL;
}

int aiod_directory_op_run(struct aiod_directory_op *directory_op)
{
    int root_fd = aiod_open_root(directory_op->root, O_DIRECTORY);
    int error;

    if (root_fd < 0) {
        return root_fd;
    }
    error = run_verb(directory_op, root_fd);
    close(root_fd);
    return error;
}
