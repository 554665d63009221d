/* cached_path.c - openat2() with RESOLVE_CACHED, and statx() without synchronization. */
#include "path/cached_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "path/confined.h"
#include "path/kept_root.h"

#ifndef STATX_ATTR_VERITY
#define STATX_ATTR_VERITY 0x00100000
#endif

/*
 * If a file is removed while its descriptor is open here, closing it gives its blocks back, which takes long for a large
 * file.
 */
#define SIZE_MAX_HERE (UINT64_C(1) << 30)

int aiod_cached_open(const char *root, const char *path, bool no_links)
{
    int root_fd = aiod_kept_root_get(root);
    int fd;

    if (root_fd < 0) {
        return -EAGAIN;
    }
    fd = aiod_open_cached_beneath(root_fd, *path != '\0' ? path : ".", !no_links);
    aiod_kept_root_put(root_fd);
    return fd >= 0 || fd == -ENOENT ? fd : -EAGAIN;
}

void aiod_spent_close(struct aiod_spent *spent)
{
    while (spent->count > 0) {
        close(spent->fds[--spent->count]);
    }
}

void aiod_spent_add(struct aiod_spent *spent, int fd)
{
    spent->fds[spent->count++] = fd;
}

static int64_t nanoseconds(struct statx_timestamp time)
{
    return time.tv_sec * 1000000000 + time.tv_nsec;
}

int aiod_cached_stat(int fd, uint64_t device, struct aiod_stat *stat)
{
    struct statx found;

    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &found) < 0 ||
        makedev(found.stx_dev_major, found.stx_dev_minor) != device || S_ISBLK(found.stx_mode) ||
        found.stx_size > SIZE_MAX_HERE || (found.stx_attributes & (STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY)) != 0) {
        return -EAGAIN;
    }
    *stat = (struct aiod_stat){
        .size = found.stx_size,
        .allocated = found.stx_blocks * 512,
        .device = device,
        .inode = found.stx_ino,
        .atime_ns = nanoseconds(found.stx_atime),
        .mtime_ns = nanoseconds(found.stx_mtime),
        .ctime_ns = nanoseconds(found.stx_ctime),
        .mode = found.stx_mode,
        .links = found.stx_nlink,
        .uid = found.stx_uid,
        .gid = found.stx_gid,
        .block_size = 1,
        .io_size = found.stx_blksize,
    };
    return 0;
}

/* /proc/self/fd, kept open: looking up its four names costs as much as all the rest. */
static int descriptors_fd = -1;
static pthread_once_t descriptors_once = PTHREAD_ONCE_INIT;

static void open_descriptors(void)
{
    descriptors_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* O_NONBLOCK: a lease on the file is not waited for. */
int aiod_cached_reopen(int path_fd)
{
    char name[16];
    int fd;

    pthread_once(&descriptors_once, open_descriptors);
    snprintf(name, sizeof(name), "%d", path_fd);
    fd = openat(descriptors_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_CLOEXEC);
    if (fd < 0 && errno == EPERM) { /* another user's file */
        fd = openat(descriptors_fd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    }
    return fd < 0 ? -EAGAIN : fd;
}

bool aiod_is_local(int fd)
{
    struct statfs found;

    if (fstatfs(fd, &found) < 0) {
        return false;
    }
    switch (found.f_type) {
    case EXT4_SUPER_MAGIC: /* ext2 and ext3 as well */
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return true;
    default: /* an overlay may lie over any other file system */
        return false;
    }
}
