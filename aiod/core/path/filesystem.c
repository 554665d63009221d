/* filesystem.c - statfs(). */
#include "path/filesystem.h"

#include <linux/magic.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define FUSE_MAGIC 0x65735546
#define XFS_MAGIC 0x58465342
#define LUSTRE_MAGIC 0x0bd00bd0
#define GFS2_MAGIC 0x01161970
#define OCFS2_MAGIC 0x7461636f
#ifndef CEPH_SUPER_MAGIC
#define CEPH_SUPER_MAGIC 0x00c36400
#endif

static bool is_one_of(const struct statfs *found, const unsigned long *types, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if ((unsigned long)found->f_type == types[i]) {
            return true;
        }
    }
    return false;
}

bool aiod_is_on_fuse(int fd)
{
    struct statfs found;

    return fstatfs(fd, &found) == 0 && found.f_type == FUSE_MAGIC;
}

bool aiod_is_shared(int fd)
{
    static const unsigned long types[] = {NFS_SUPER_MAGIC, CEPH_SUPER_MAGIC, LUSTRE_MAGIC, GFS2_MAGIC, OCFS2_MAGIC};
    struct statfs found;

    return fstatfs(fd, &found) == 0 && is_one_of(&found, types, sizeof(types) / sizeof(types[0]));
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
    return is_one_of(&found, types, sizeof(types) / sizeof(types[0]));
}
