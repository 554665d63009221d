/* attributes.c - chmod(), utimensat(), getxattr() and its like, by the name of the descriptor in /proc/self/fd. */
#include "path/attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define NAMES_BYTES_MAX (64u * 1024u) /* of one file, of all kinds: Linux's limit */

/* The calls that take a descriptor refuse one of O_PATH; the name of the descriptor leads to the same file. */
struct descriptor_name {
    char text[32];
};

static struct descriptor_name name_of(int fd)
{
    struct descriptor_name name;

    snprintf(name.text, sizeof(name.text), "/proc/self/fd/%d", fd);
    return name;
}

int aiod_attributes_chmod(int fd, mode_t mode)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISLNK(status.st_mode)) {
        return -EOPNOTSUPP; /* some file systems would change it, and say that they did not */
    }
    return chmod(name_of(fd).text, mode) < 0 ? -errno : 0;
}

int aiod_attributes_set_times(int fd, const struct timespec times[2])
{
    return utimensat(AT_FDCWD, name_of(fd).text, times, 0) < 0 ? -errno : 0;
}

int64_t aiod_attributes_get(int fd, const char *name, char *room)
{
    ssize_t length = getxattr(name_of(fd).text, name, room, AIOD_XATTR_BYTES_MAX);

    if (length < 0) {
        return errno == ERANGE ? -E2BIG : -errno;
    }
    return length;
}

int aiod_attributes_set(int fd, const char *name, const void *value, size_t length, int flags)
{
    return setxattr(name_of(fd).text, name, value, length, flags) < 0 ? -errno : 0;
}

int aiod_attributes_remove(int fd, const char *name)
{
    return removexattr(name_of(fd).text, name) < 0 ? -errno : 0;
}

static bool is_users(const char *name)
{
    return strncmp(name, "user.", 5) == 0;
}

static int64_t copy_users_names(const char *names, size_t length, char *room)
{
    size_t used = 0;

    for (const char *name = names; name < names + length; name += strlen(name) + 1) {
        size_t bytes = strlen(name) + 1;

        if (!is_users(name)) {
            continue;
        }
        if (bytes > AIOD_XATTR_BYTES_MAX - used) {
            return -E2BIG;
        }
        memcpy(room + used, name, bytes);
        used += bytes;
    }
    return (int64_t)used;
}

int64_t aiod_attributes_list(int fd, char *room)
{
    char *names = malloc(NAMES_BYTES_MAX);
    int64_t result = -ENOMEM;

    if (names != NULL) {
        ssize_t length = listxattr(name_of(fd).text, names, NAMES_BYTES_MAX);

        result = length < 0 ? -errno : copy_users_names(names, (size_t)length, room);
    }
    free(names);
    return result;
}
