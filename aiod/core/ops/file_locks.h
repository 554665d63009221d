/*
 * file_locks.h - advisory locks of ranges of a file, held for clients (docs/distributed.md, Locks and fencing).
 *
 * They are OFD locks (fcntl F_OFD_SETLK) on the description that the handle's requests go by. So the kernel keeps a lock
 * until the last request that it protects has let go of that description, also when the engine is killed, and drops it
 * then without anybody's help. A lock conflicts with the locks of other handles, engines and hosts, as far as the file
 * system carries locks.
 *
 * The kernel does not tell whether a file was locked between the loss of a lock and its next acquisition. So each
 * exclusive lock gets a number, and the file's extended attribute AIOD_LOCKS_XATTR lists the numbers and ranges of the
 * last ones. It is written while the lock is held, before the client hears of the lock. A lock can be *regained* if the
 * list has no later exclusive lock of an overlapping range.
 *
 * Nothing here waits for a lock. Any thread; two calls for one descriptor do not overlap.
 */
#ifndef AIOD_FILE_LOCKS_H
#define AIOD_FILE_LOCKS_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_LOCKS_XATTR "user.aiod.locks"
#define AIOD_LOCK_LAST (INT64_MAX - 1) /* the last byte that can be locked; the one behind it guards the list */

struct aiod_file_lock {
    uint64_t first; /* byte */
    uint64_t last;  /* byte; at most AIOD_LOCK_LAST */
    bool exclusive;
};

/*
 * Take the lock. Its number, which is positive; 0: the file system has no extended attributes, so the lock cannot be
 * regained. -EAGAIN: another description has a conflicting lock. -EBADF: not open for writing (exclusive) or reading.
 * -ENOLCK, -EOPNOTSUPP and the like: the file system has no locks, or none left. Nothing is held after a failure.
 */
int64_t aiod_file_lock_take(int fd, const struct aiod_file_lock *lock);

/*
 * Take a lock that had the number `number` with an earlier engine. `number`, or -EOWNERDEAD: an overlapping exclusive
 * lock was held since then, or that cannot be excluded; or a failure of aiod_file_lock_take(). Nothing is held after a
 * failure.
 */
int64_t aiod_file_lock_regain(int fd, const struct aiod_file_lock *lock, uint64_t number);

/* Release all locks of the range. 0, or -errno. */
int aiod_file_lock_release(int fd, uint64_t first, uint64_t last);

#endif
