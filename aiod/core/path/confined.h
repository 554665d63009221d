/*
 * confined.h - opens paths beneath an export's root.
 *
 * The kernel confines the path (openat2() with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS). Without openat2() the result
 * is its errno, never an unconfined open. Blocks: for workers. Thread-safe, without locks.
 */
#ifndef AIOD_CONFINED_H
#define AIOD_CONFINED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Open `root` with O_PATH and `flags` (O_DIRECTORY or 0). A descriptor, or -errno. */
int aiod_open_root(const char *root, int flags);

/*
 * Open `path` beneath the directory `root_fd`, with `flags` and `mode` as for open(2). `links`: follow symbolic links
 * that stay beneath it. A descriptor, or -errno: EXDEV if the path leaves the root, ELOOP for a magic link and, without
 * `links`, for any symbolic link.
 */
int aiod_open_beneath(int root_fd, const char *path, uint64_t flags, mode_t mode, bool links);

/*
 * The same two with O_PATH, without blocking, where the kernel's cache of names knows the whole path: for any thread. A
 * descriptor, or -errno: mostly EAGAIN where it does not.
 */
int aiod_open_cached_root(const char *root);
int aiod_open_cached_beneath(int root_fd, const char *path, bool links);

/*
 * Is openat2() available to this process? 0, or -errno: ENOSYS before Linux 5.6, EPERM or ENOSYS behind a seccomp
 * filter.
 */
int aiod_probe_open_beneath(void);

#endif
