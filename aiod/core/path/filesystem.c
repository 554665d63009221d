/* filesystem.c - statfs(). */
#include "path/filesystem.h"

#include <linux/magic.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define FUSE_MAGIC 0x65735546
#define XFS_MAGIC 0x58465342

bool aiod_is_on_fuse(int fd)
{
    struct statfs found;

    return fstatfs(fd, &found) == 0 && found.f_type == FUSE_MAGIC;
}

bool aiod_excludes_writes(int fd)
{
    static const unsigned long types[] = {EXT4_SUPER_MAGIC, XFS_MAGIC,        BTRFS_SUPER_MAGIC,
                                          TMPFS_MAGIC,      F2FS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC};
    struct stat status;
    struct statfs found;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || fstatfs(fd, &found) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if ((unsigned long)found.f_type == types[i]) {
            return true;
        }
    }
    return false;
}
