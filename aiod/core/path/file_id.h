/*
 * file_id.h - telling a file from another that has got its inode number.
 *
 * The file handle (name_to_handle_at) has the inode's generation, where the file system has handles. overlayfs has none by
 * default: there it is the time of birth, and from Linux 6.5 on a handle that is good for comparing alone. The time has the
 * granularity of the kernel's clock tick (1-10 ms; finer from Linux 6.13 on): before 6.5, a file on overlayfs that replaces
 * another within one tick, and gets its inode number, passes for it.
 *
 * On FUSE a handle has numbers that begin anew with each mount, so the unique number of the mount belongs to it (Linux 6.8).
 * A daemon with a mount namespace of its own has other mounts after its next start, and then other files there: no file of
 * FUSE is known again, unless the server has birth times.
 *
 * Rejected: the number of the mount everywhere, for that reason; FS_IOC_GETVERSION, which overlayfs does not pass on; the
 * change time, since a write changes it.
 */
#ifndef AIOD_FILE_ID_H
#define AIOD_FILE_ID_H

#include <stdint.h>

/*
 * A hash (FNV-1a) of all that tells the file of `fd` from another of its device and inode number; 0: nothing does, so that no two files are known to be the same. May block. Thread-safe.
 */
uint64_t aiod_file_generation(int fd);

#endif
