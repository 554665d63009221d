/* directory_ops.c - finds the file or the directory of a path beneath a root, and carries out the operation there. */
#include "path/directory_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/query_ops.h"
#include "path/attributes.h"
#include "path/confined.h"
#include "path/remove_tree.h"
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
    free(directory_op->value);
    free(directory_op->listing);
    free(directory_op->text);
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

/* Allocate the text of the result. 0, or -errno. */
static int make_text(struct aiod_directory_op *directory_op, size_t bytes)
{
    directory_op->text = malloc(bytes);
    return directory_op->text == NULL ? -ENOMEM : 0;
}

static int keep_text(struct aiod_directory_op *directory_op, int64_t bytes)
{
    directory_op->text_bytes = bytes < 0 ? 0 : (size_t)bytes;
    return bytes < 0 ? (int)bytes : 0;
}

static int read_link(struct aiod_directory_op *directory_op, int fd)
{
    int error = make_text(directory_op, PATH_MAX);
    ssize_t length = 0;

    if (error < 0) {
        return error;
    }
    length = readlinkat(fd, "", directory_op->text, PATH_MAX);
    if (length < 0) {
        return errno == ENOENT ? -EINVAL : -errno; /* ENOENT: it is no symbolic link */
    }
    return keep_text(directory_op, length);
}

static int get_attribute(struct aiod_directory_op *directory_op, int fd)
{
    int error = make_text(directory_op, AIOD_XATTR_BYTES_MAX);

    return error < 0 ? error : keep_text(directory_op, aiod_attributes_get(fd, directory_op->to, directory_op->text));
}

static int list_attributes(struct aiod_directory_op *directory_op, int fd)
{
    int error = make_text(directory_op, AIOD_XATTR_BYTES_MAX);

    return error < 0 ? error : keep_text(directory_op, aiod_attributes_list(fd, directory_op->text));
}

/* ---- changes of a file's attributes ------------------------------------------------------------------------------ */

static int change_attributes(struct aiod_directory_op *directory_op, int fd)
{
    switch (directory_op->verb) {
    case AIOD_VERB_UTIME:
        return aiod_attributes_set_times(fd, directory_op->times);
    case AIOD_VERB_CHMOD:
        return aiod_attributes_chmod(fd, directory_op->mode & 0777);
    case AIOD_VERB_SETXATTR:
        return aiod_attributes_set(fd, directory_op->to, directory_op->value, directory_op->value_bytes,
                                   directory_op->xattr_flags);
    case AIOD_VERB_REMOVEXATTR:
        return aiod_attributes_remove(fd, directory_op->to);
    default:
        return -EINVAL;
    }
}

/* Open the path with `flags`, and call `use` with the descriptor. */
static int use_path(struct aiod_directory_op *directory_op, int root_fd, uint64_t flags,
                    int (*use)(struct aiod_directory_op *directory_op, int fd))
{
    int fd = open_path(directory_op, root_fd, directory_op->path, flags);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = use(directory_op, fd);
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

/* Remove the directory itself, never that to which a link leads: the kernel would follow "link/". */
static int remove_tree(const struct aiod_target *target)
{
    char name[NAME_MAX + 1];
    size_t length = strcspn(target->name, "/");

    if (length > NAME_MAX) {
        return -ENAMETOOLONG;
    }
    memcpy(name, target->name, length);
    name[length] = '\0';
    return aiod_remove_tree(target->directory_fd, name, AIOD_REMOVE_TREE_NAMES_MAX);
}

static int change_target(const struct aiod_directory_op *directory_op, const struct aiod_target *target)
{
    int fd = target->directory_fd;
    int failed;

    switch (directory_op->verb) {
    case AIOD_VERB_MKDIR:
        failed = mkdirat(fd, target->name, directory_op->mode & 0777);
        break;
    case AIOD_VERB_RMDIR:
        failed = unlinkat(fd, target->name, AT_REMOVEDIR);
        break;
    case AIOD_VERB_SYMLINK:
        failed = symlinkat(directory_op->to, fd, target->name);
        break;
    case AIOD_VERB_RMTREE:
        return remove_tree(target);
    default:
        failed = unlinkat(fd, target->name, 0);
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

/* ---- rename, link ------------------------------------------------------------------------------------------------ */

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

/* The kernel would follow a symbolic link of the name "link/", wherever it leads. */
static int add_link(const struct aiod_directory_op *directory_op, const struct aiod_target *from,
                    const struct aiod_target *to)
{
    (void)directory_op;
    if (strchr(from->name, '/') != NULL) {
        return -ENOTDIR;
    }
    return linkat(from->directory_fd, from->name, to->directory_fd, to->name, 0) < 0 ? -errno : 0;
}

/* Find both paths, and call `use` with them. */
static int use_two(struct aiod_directory_op *directory_op, int root_fd,
                   int (*use)(const struct aiod_directory_op *directory_op, const struct aiod_target *from,
                              const struct aiod_target *to))
{
    struct aiod_target from;
    struct aiod_target to;
    int error = find_target(directory_op, root_fd, directory_op->path, &from);

    if (error < 0) {
        return error;
    }
    error = find_target(directory_op, root_fd, directory_op->to, &to);
    if (error == 0) {
        error = use(directory_op, &from, &to);
        close(to.directory_fd);
    }
    close(from.directory_fd);
    return error;
}

/* ---- the operation ----------------------------------------------------------------------------------------------- */

static int run_verb(struct aiod_directory_op *directory_op, int root_fd)
{
    uint64_t examine = O_PATH | (directory_op->itself ? O_NOFOLLOW : 0);

    switch (directory_op->verb) {
    case AIOD_VERB_LIST:
        return use_path(directory_op, root_fd, O_RDONLY | O_DIRECTORY, list);
    case AIOD_VERB_STAT:
        return use_path(directory_op, root_fd, O_PATH, stat_path);
    case AIOD_VERB_SYNC:
        return use_path(directory_op, root_fd, O_RDONLY | O_DIRECTORY, sync_directory);
    case AIOD_VERB_LSTAT:
        return use_path(directory_op, root_fd, O_PATH | O_NOFOLLOW, stat_path);
    case AIOD_VERB_READLINK:
        return use_path(directory_op, root_fd, O_PATH | O_NOFOLLOW, read_link);
    case AIOD_VERB_GETXATTR:
        return use_path(directory_op, root_fd, examine, get_attribute);
    case AIOD_VERB_LISTXATTR:
        return use_path(directory_op, root_fd, examine, list_attributes);
    case AIOD_VERB_UTIME:
    case AIOD_VERB_CHMOD:
    case AIOD_VERB_SETXATTR:
    case AIOD_VERB_REMOVEXATTR:
        return use_path(directory_op, root_fd, examine, change_attributes);
    case AIOD_VERB_REMOVE:
    case AIOD_VERB_RMDIR:
    case AIOD_VERB_MKDIR:
    case AIOD_VERB_SYMLINK:
    case AIOD_VERB_RMTREE:
        return change(directory_op, root_fd);
    case AIOD_VERB_RENAME:
        return use_two(directory_op, root_fd, move);
    case AIOD_VERB_LINK:
        return use_two(directory_op, root_fd, add_link);
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
