#include "path/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "path/confined.h"
#include "ops/query_ops.h"
#include "util/os.h"

struct aiod_naming *aiod_naming_create(enum aiod_verb verb, const char *root, const char *path, const char *to)
{
    struct aiod_naming *naming = calloc(1, sizeof(*naming));

    if (naming == NULL) {
        return NULL;
    }
    naming->verb = verb;
    naming->root = strdup(root);
    naming->path = strdup(path);
    naming->to = strdup(to);
    if (naming->root == NULL || naming->path == NULL || naming->to == NULL) {
        aiod_naming_destroy(naming);
        return NULL;
    }
    return naming;
}

void aiod_naming_destroy(struct aiod_naming *naming)
{
    if (naming == NULL) {
        return;
    }
    free(naming->root);
    free(naming->path);
    free(naming->to);
    free(naming->listing);
    free(naming);
}

/* ---- what is asked of a path ---------------------------------------------------------------------------------------- */

static int open_path(struct aiod_naming *naming, int root_fd, const char *path, uint64_t flags)
{
    int fd = aiod_open_beneath(root_fd, *path != '\0' ? path : ".", flags, 0, !naming->no_links);

    naming->outside = fd == -EXDEV;
    return fd;
}

static int list(struct aiod_naming *naming, int fd)
{
    naming->listing = malloc(sizeof(*naming->listing));
    return naming->listing == NULL ? -ENOMEM : aiod_listing_read(fd, naming->cursor, naming->listing);
}

static int stat_path(struct aiod_naming *naming, int fd)
{
    return (int)aiod_query_stat(fd, &(struct aiod_alignment){.memory = 1, .offset = 1}, &naming->stat);
}

static int sync_directory(struct aiod_naming *naming, int fd)
{
    (void)naming;
    while (aiod_os->fsync(fd) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* Open the path with `flags`, and let `ask` ask. */
static int ask_of(struct aiod_naming *naming, int root_fd, uint64_t flags,
                  int (*ask)(struct aiod_naming *naming, int fd))
{
    int fd = open_path(naming, root_fd, naming->path, flags);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = ask(naming, fd);
    close(fd);
    return error;
}

/* ---- what is done to a name ----------------------------------------------------------------------------------------- */

/* A name in a directory that is beneath the root. */
struct place {
    int directory_fd; /* O_PATH */
    const char *name; /* with the slashes that follow it: what they mean the kernel knows */
};

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

/* Find the directory that `path`, which is cut in two, names something in. 0, or -errno. */
static int find_place(struct aiod_naming *naming, int root_fd, char *path, struct place *place)
{
    char *name = last_component(path);

    if (*path == '/') {
        naming->outside = true; /* and `name` could be a path from the machine's root */
        return -EXDEV;
    }
    place->name = *name != '\0' ? name : ".";
    if (name > path) {
        name[-1] = '\0';
    }
    place->directory_fd = open_path(naming, root_fd, name > path ? path : ".", O_PATH | O_DIRECTORY);
    return place->directory_fd < 0 ? place->directory_fd : 0;
}

static int change_place(const struct aiod_naming *naming, const struct place *place)
{
    int failed;

    if (naming->verb == AIOD_VERB_MKDIR) {
        failed = mkdirat(place->directory_fd, place->name, naming->mode & 0777);
    } else {
        failed = unlinkat(place->directory_fd, place->name, naming->verb == AIOD_VERB_RMDIR ? AT_REMOVEDIR : 0);
    }
    return failed < 0 ? -errno : 0;
}

static int change(struct aiod_naming *naming, int root_fd)
{
    struct place place;
    int error = find_place(naming, root_fd, naming->path, &place);

    if (error < 0) {
        return error;
    }
    error = change_place(naming, &place);
    close(place.directory_fd);
    return error;
}

/* ---- rename ---------------------------------------------------------------------------------------------------------- */

static bool is_same(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino;
}

/* Is the directory `fd` the one that `wanted` is of, or anywhere below it? */
static bool lies_below(int fd, const struct stat *wanted)
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
 * EINVAL without `replace`: a directory that is to go into itself; else the file system does not know RENAME_NOREPLACE
 * (NFS, some FUSE).
 */
static int explain_invalid(const struct place *from, const struct place *to)
{
    struct stat moved;

    if (fstatat(from->directory_fd, from->name, &moved, AT_SYMLINK_NOFOLLOW) < 0) {
        return -errno;
    }
    return lies_below(to->directory_fd, &moved) ? -EINVAL : -EOPNOTSUPP;
}

static int move(const struct aiod_naming *naming, const struct place *from, const struct place *to)
{
    unsigned flags = naming->replace ? 0 : RENAME_NOREPLACE;

    if (aiod_os->renameat2(from->directory_fd, from->name, to->directory_fd, to->name, flags) == 0) {
        return 0;
    }
    return errno == EINVAL && !naming->replace ? explain_invalid(from, to) : -errno;
}

static int rename_path(struct aiod_naming *naming, int root_fd)
{
    struct place from;
    struct place to;
    int error = find_place(naming, root_fd, naming->path, &from);

    if (error < 0) {
        return error;
    }
    error = find_place(naming, root_fd, naming->to, &to);
    if (error == 0) {
        error = move(naming, &from, &to);
        close(to.directory_fd);
    }
    close(from.directory_fd);
    return error;
}

/* ---- all ------------------------------------------------------------------------------------------------------------- */

static int run_verb(struct aiod_naming *naming, int root_fd)
{
    switch (naming->verb) {
    case AIOD_VERB_LIST:
        return ask_of(naming, root_fd, O_RDONLY | O_DIRECTORY, list);
    case AIOD_VERB_STAT:
        return ask_of(naming, root_fd, O_PATH, stat_path);
    case AIOD_VERB_SYNC:
        return ask_of(naming, root_fd, O_RDONLY | O_DIRECTORY, sync_directory);
    case AIOD_VERB_REMOVE:
    case AIOD_VERB_RMDIR:
    case AIOD_VERB_MKDIR:
        return change(naming, root_fd);
    case AIOD_VERB_RENAME:
        return rename_path(naming, root_fd);
    }
    return -EINVAL;
}

int aiod_naming_run(struct aiod_naming *naming)
{
    int root_fd = aiod_open_root(naming->root, O_DIRECTORY);
    int error;

    if (root_fd < 0) {
        return root_fd;
    }
    error = run_verb(naming, root_fd);
    close(root_fd);
    return error;
}
