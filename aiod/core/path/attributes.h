/*
 * attributes.h - permission bits, times and extended attributes of a file that was opened with O_PATH: nothing is opened
 * for reading or writing, so a FIFO or a device does no harm. Blocks: for workers. Thread-safe, without locks.
 *
 * All results are 0 or -errno, if nothing else is said. Only attributes whose name begins with "user." are the caller's
 * business; the caller checks that.
 */
#ifndef AIOD_ATTRIBUTES_H
#define AIOD_ATTRIBUTES_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* So that a value, or the list of a file's names, fits into the header of a message (docs/protocol.md), with a path. */
#define AIOD_XATTR_BYTES_MAX (56u * 1024u)

/* Set the permission bits. EOPNOTSUPP: a symbolic link has none. */
int aiod_attributes_chmod(int fd, mode_t mode);

/* Set the times of access and of the content's change; tv_nsec may be UTIME_NOW. */
int aiod_attributes_set_times(int fd, const struct timespec times[2]);

/* Copy the value to `room`, of AIOD_XATTR_BYTES_MAX bytes. Its length, or -errno: E2BIG if it does not fit. */
int64_t aiod_attributes_get(int fd, const char *name, char *room);

/* `flags`: XATTR_CREATE, XATTR_REPLACE or 0. */
int aiod_attributes_set(int fd, const char *name, const void *value, size_t length, int flags);
int aiod_attributes_remove(int fd, const char *name);

/* Copy the names that begin with "user." to `room`, of AIOD_XATTR_BYTES_MAX bytes, each with a 0 after it. Their length,
 * or -errno: E2BIG.
 */
int64_t aiod_attributes_list(int fd, char *room);

#endif
