/* confined.c - openat2(). */
#include "path/confined.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20 /* Linux 5.12; EINVAL before */
#endif

int aiod_open_root(const char *root, int flags)
{
    int fd = open(root, flags | O_PATH | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

int aiod_open_beneath(int root_fd, const char *path, uint64_t flags, mode_t mode, bool links)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (links ? 0u : RESOLVE_NO_SYMLINKS),
    };
    long fd;

    /* EAGAIN: a rename happened during the path walk; the kernel asks for a retry. */
    do {
        fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
    } while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 ? -errno : (int)fd;
}

static int open_cached(int directory_fd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags | O_PATH | O_CLOEXEC, .resolve = resolve | RESOLVE_CACHED};
    int fd = (int)syscall(SYS_openat2, directory_fd, path, &how, sizeof(how));

    return fd < 0 ? -errno : fd;
}

int aiod_open_cached_root(const char *root)
{
    return open_cached(AT_FDCWD, root, O_DIRECTORY, 0);
}

int aiod_open_cached_beneath(int root_fd, const char *path, bool links)
{
    return open_cached(root_fd, path, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (links ? 0u : RESOLVE_NO_SYMLINKS));
}

int aiod_probe_open_beneath(void)
{
    int root_fd = aiod_open_root("/", O_DIRECTORY);
    int fd;

    if (root_fd < 0) {
        return root_fd;
    }
    fd = aiod_open_beneath(root_fd, ".", O_PATH | O_DIRECTORY, 0, false);
    close(root_fd);
    if (fd < 0) {
        return fd;
    }
    close(fd);
    return 0;
}
