/*
 * file_id.h - distinguishes a file from a later file with the same inode number.
 *
 * The file handle (name_to_handle_at()) contains the inode's generation, on file systems that have handles. overlayfs
 * has none by default; there the birth time is used and, since Linux 6.5, a handle for comparisons only. A birth time
 * has the resolution of the kernel's clock tick (1-10 ms; finer since Linux 6.13). Before 6.5, a file on overlayfs that
 * replaces another one within the same tick, with the same inode number, is not distinguished from it.
 *
 * On FUSE the numbers in a handle start again with each mount. The server's birth time is used or, on GlusterFS, the
 * GFID, a UUID that no other file ever gets. Of other servers the unique id of the mount (Linux 6.8) and the handle are
 * used: their files are not recognised in another mount, so not by a daemon that gets a new mount namespace at its start.
 *
 * The device number of a network or FUSE file system is another one on each host, and after each mount. What the server
 * says about a file is not, so it takes the place of the device number there.
 *
 * Rejected alternatives: the mount id on all file systems, for that reason; FS_IOC_GETVERSION, which overlayfs does not
 * pass on; the change time, which a write changes.
 *
 * Thread-safe, without locks.
 */
#ifndef AIOD_FILE_ID_H
#define AIOD_FILE_ID_H

#include <stdint.h>

/*
 * A hash (FNV-1a) of the properties that distinguish the file of `fd` from others with the same device and inode
 * number. 0: there are none, and the file is equal to no other. `*dev`, the device number, gets the same value where the
 * properties are the server's. May block.
 */
uint64_t aiod_file_generation(int fd, uint64_t *dev);

/* The same of a file on a local file system (cached_path.h), where the device number stays. Does not block. */
uint64_t aiod_local_file_generation(int fd);

#endif
