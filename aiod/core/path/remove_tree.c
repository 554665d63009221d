/* remove_tree.c - a depth-first walk with a bounded number of descriptors. */
#include "path/remove_tree.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHUNK_BYTES 8192u
#define LEVELS_MAX 64u /* most descriptors of one call */

struct level {
    int fd;
    int64_t cursor;   /* behind the last name that was dealt with */
    uint32_t removed; /* names, since the directory was read from its beginning */
    char name[sizeof(((struct dirent64 *)NULL)->d_name)];
};

struct walk {
    int directory_fd;
    uint32_t left; /* names that may still be removed */
    /*
     * The directories from the tree's root to the one that is being emptied. Of a deeper tree the last LEVELS_MAX: then
     * the first is not the root, cannot be removed by this call, and is found empty by the next one.
     */
    uint32_t level_count;
    bool without_root;
    struct level levels[LEVELS_MAX];
    alignas(struct dirent64) char chunk[CHUNK_BYTES];
};

static int enter(struct walk *walk, int parent_fd, const char *name)
{
    int fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct level *level;

    if (fd < 0) {
        return -errno;
    }
    if (walk->level_count == LEVELS_MAX) {
        close(walk->levels[0].fd);
        memmove(walk->levels, walk->levels + 1, sizeof(walk->levels) - sizeof(walk->levels[0]));
        walk->level_count--;
        walk->without_root = true;
    }
    level = &walk->levels[walk->level_count++];
    *level = (struct level){.fd = fd};
    assert(strlen(name) < sizeof(level->name));
    strcpy(level->name, name);
    return 0;
}

/* A name that is gone meanwhile is as good as removed. */
static int remove_name(struct walk *walk, int parent_fd, const char *name, int flags)
{
    if (unlinkat(parent_fd, name, flags) < 0 && errno != ENOENT) {
        return -errno;
    }
    walk->left--;
    return 0;
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Remove a name, or enter it if it is a directory. 0: removed; 1: entered; or -errno. */
static int remove_or_enter(struct walk *walk, struct level *level, const struct dirent64 *dirent)
{
    int error = dirent->d_type == DT_DIR ? -EISDIR : remove_name(walk, level->fd, dirent->d_name, 0);

    if (error == -EISDIR) {
        error = enter(walk, level->fd, dirent->d_name);
        if (error == 0) {
            return 1;
        }
        if (error == -ENOTDIR || error == -ENOENT) { /* replaced, or removed, meanwhile */
            error = remove_name(walk, level->fd, dirent->d_name, 0);
        }
    }
    return error;
}

/* Deal with the names of a chunk. 0: all are removed; 1: a directory was entered, or enough removed; or -errno. */
static int remove_chunk(struct walk *walk, struct level *level, ssize_t length)
{
    for (ssize_t at = 0; at < length;) {
        const struct dirent64 *dirent = (const struct dirent64 *)(const void *)(walk->chunk + at);
        int result;

        if (!is_dot(dirent->d_name)) {
            if (walk->left == 0) {
                return 1;
            }
            level->cursor = dirent->d_off; /* before `level` can be moved */
            level->removed++;
            result = remove_or_enter(walk, level, dirent);
            if (result != 0) {
                return result;
            }
        }
        at += dirent->d_reclen;
        level->cursor = dirent->d_off;
    }
    return 0;
}

/* The directory is empty: remove it, or read it again if names were created meanwhile. 0, 1: enough removed; -errno. */
static int leave(struct walk *walk)
{
    struct level *level = &walk->levels[walk->level_count - 1];
    bool is_first = walk->level_count == 1;
    int parent_fd = is_first ? walk->directory_fd : level[-1].fd;
    int error;

    if (is_first && walk->without_root) {
        return 1;
    }
    if (walk->left == 0) {
        return 1;
    }
    error = remove_name(walk, parent_fd, level->name, AT_REMOVEDIR);
    if (error == -ENOTEMPTY && level->removed > 0) {
        level->removed = 0;
        level->cursor = 0;
        return 0;
    }
    if (error == 0) {
        close(level->fd);
        walk->level_count--;
    }
    return error;
}

/* Continue with the last directory. 0: go on; 1: stop, there is more; or -errno. */
static int step(struct walk *walk)
{
    struct level *level = &walk->levels[walk->level_count - 1];
    ssize_t length;
    int result;

    if (lseek(level->fd, level->cursor, SEEK_SET) < 0) {
        return -errno;
    }
    length = getdents64(level->fd, walk->chunk, CHUNK_BYTES);
    if (length < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    if (length == 0) {
        return leave(walk);
    }
    result = remove_chunk(walk, level, length);
    return result == 1 && walk->left > 0 ? 0 : result;
}

static int run(struct walk *walk, const char *name)
{
    int result = enter(walk, walk->directory_fd, name);

    while (result == 0 && walk->level_count > 0) {
        result = step(walk);
    }
    while (walk->level_count > 0) {
        close(walk->levels[--walk->level_count].fd);
    }
    return result;
}

int aiod_remove_tree(int directory_fd, const char *name, uint32_t names_max)
{
    struct walk *walk;
    int result;

    if (is_dot(name)) {
        return -EINVAL;
    }
    if (strlen(name) >= sizeof(walk->levels[0].name)) {
        return -ENAMETOOLONG;
    }
    walk = malloc(sizeof(*walk));
    if (walk == NULL) {
        return -ENOMEM;
    }
    walk->directory_fd = directory_fd;
    walk->left = names_max;
    walk->level_count = 0;
    walk->without_root = false;
    result = run(walk, name);
    free(walk);
    return result;
}
