/* open_reading.c - a cached path, opened for I/O. */
#include "path/open_reading.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "path/cached_path.h"
#include "path/file_id.h"

#define REMOVED_BYTES_MAX (1 << 20) /* of a removed file: so many blocks are given back at once */

static int open_described(int path_fd, uint64_t device, struct aiod_opened *opened)
{
    struct aiod_stat stat;
    int fd = aiod_cached_stat(path_fd, device, &stat);

    if (fd < 0) {
        return fd;
    }
    fd = S_ISREG(stat.mode) ? aiod_cached_reopen(path_fd) : -EAGAIN;
    if (fd < 0) {
        return fd;
    }
    *opened = (struct aiod_opened){
        .fd = fd,
        .size = stat.size,
        .dev = stat.device,
        .ino = stat.inode,
        .store_fd = -1,
        .flush_fd = -1,
        .local = true,
    };
    opened->generation = aiod_local_file_generation(fd);
    return 0;
}

int aiod_open_reading_nowait(const char *root, const char *path, bool no_links, uint64_t local_device,
                             struct aiod_opened *opened, struct aiod_spent *spent)
{
    int fd = local_device == 0 ? -EAGAIN : aiod_cached_open(root, path, no_links);

    if (fd < 0) {
        return fd;
    }
    aiod_spent_add(spent, fd);
    return open_described(fd, local_device, opened);
}

int aiod_open_reading_again(int fd)
{
    int again = aiod_cached_reopen(fd);

    return again >= 0 ? again : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

bool aiod_closes_at_once(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && (status.st_nlink > 0 || status.st_size <= REMOVED_BYTES_MAX);
}
