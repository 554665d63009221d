/* filesystem.c - statfs(). */
#include "path/filesystem.h"

#include <sys/vfs.h>

#define FUSE_MAGIC 0x65735546

bool aiod_is_on_fuse(int fd)
{
    struct statfs found;

    return fstatfs(fd, &found) == 0 && found.f_type == FUSE_MAGIC;
}
