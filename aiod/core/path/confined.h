/*
 * confined.h - paths beneath an export's root, and nowhere else.
 *
 * The kernel confines them (openat2 with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS); without openat2 the answer is its
 * errno, never an unconfined open. Blocks: for workers only. Thread-safe.
 */
#ifndef AIOD_CONFINED_H
#define AIOD_CONFINED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* An O_PATH descriptor of `root`, opened with `flags` (O_DIRECTORY or 0) besides. It, or -errno. */
int aiod_open_root(const char *root, int flags);

/*
 * Open `path` beneath the directory `root_fd` with open(2)'s `flags` and `mode`. `links`: symbolic links are followed, as
 * long as they stay beneath it. A descriptor, or -errno: EXDEV when the path leaves the root, ELOOP for a magic link, and
 * without `links` for any.
 */
int aiod_open_beneath(int root_fd, const char *path, uint64_t flags, mode_t mode, bool links);

/*
 * Can this process open files so at all? 0, or -errno of openat2: ENOSYS before Linux 5.6, EPERM or ENOSYS where a seccomp
 * filter forbids it.
 */
int aiod_probe_open_beneath(void);

#endif
