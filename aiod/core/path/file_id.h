/*
 * file_id.h - distinguishes a file from a later file with the same inode number.
 *
 * The file handle (name_to_handle_at()) contains the inode's generation, on file systems that have handles. overlayfs
 * has none by default; there the birth time is used and, since Linux 6.5, a handle for comparisons only. A birth time
 * has the resolution of the kernel's clock tick (1-10 ms; finer since Linux 6.13). Before 6.5, a file on overlayfs that
 * replaces another one within the same tick, with the same inode number, is not distinguished from it.
 *
 * On FUSE the numbers in a handle start again with each mount, so the unique id of the mount (Linux 6.8) is included. A
 * daemon with a mount namespace of its own gets new mounts at its next start: there, no file on FUSE is recognised,
 * unless the server provides birth times.
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
 * number. 0: there are none, and the file is equal to no other. May block.
 */
uint64_t aiod_file_generation(int fd);

#endif
