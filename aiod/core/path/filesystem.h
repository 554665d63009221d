/*
 * filesystem.h - properties of a file that depend on its file system.
 *
 * A FUSE server need not keep the promises of the kernel's own file systems about file handles, O_SYNC and the meaning
 * of a flush.
 */
#ifndef AIOD_FILESYSTEM_H
#define AIOD_FILESYSTEM_H

#include <stdbool.h>

/* May block. Thread-safe. */
bool aiod_is_on_fuse(int fd);

/*
 * Is it a file system that several hosts mount, whose file handles are the same on all of them (NFS, CephFS, Lustre, GFS2,
 * OCFS2)? May block. Thread-safe.
 */
bool aiod_is_shared(int fd);

/*
 * Do writes to this file through the page cache exclude each other in the kernel? So they do on regular files of the
 * usual file systems, which lock the inode for each write. Not on block devices; and a FUSE or network file system may
 * transfer several writes at once. May block. Thread-safe.
 */
bool aiod_excludes_writes(int fd);

#endif
