/*
 * os.h - the system-call seam, and small wrappers of system calls.
 *
 * Every call of the core that can fail for reasons outside the process goes through the table aiod_os. The tests
 * replace it with one that injects faults: thread creation that fails, short transfers, EIO. The product never changes
 * it. All functions are thread-safe.
 */
#ifndef AIOD_OS_H
#define AIOD_OS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

struct io_uring;

struct aiod_os {
    int (*thread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);
    ssize_t (*preadv2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
    ssize_t (*pwritev2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
    int (*fdatasync)(int fd);
    int (*fsync)(int fd);
    int (*fstat)(int fd, struct stat *status);
    int (*statx)(int fd, const char *path, int flags, unsigned mask, struct statx *status);
    off_t (*lseek)(int fd, off_t offset, int whence);
    int (*ftruncate)(int fd, off_t size);
    int (*fallocate)(int fd, int mode, off_t offset, off_t length);
    ssize_t (*copy_file_range)(int from, off_t *from_offset, int to, off_t *offset, size_t length, unsigned flags);
    int (*posix_fadvise)(int fd, off_t offset, off_t length, int advice); /* returns an errno; 0: success */
    int (*ioctl)(int fd, unsigned long request, void *argument);
    int (*munmap)(void *address, size_t length);
    int (*add_seals)(int fd, unsigned seals);
    int (*uring_submit)(struct io_uring *uring);
    int (*uring_result)(int result); /* what io_uring says of a request: the same */
    int (*ofd_setlk)(int fd, struct flock *lock);
    ssize_t (*fgetxattr)(int fd, const char *name, void *value, size_t size);
    int (*fsetxattr)(int fd, const char *name, const void *value, size_t size);
    int (*renameat2)(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
};

/* Set before the first pool is created, and constant while a pool exists. */
extern const struct aiod_os *aiod_os;
extern const struct aiod_os aiod_os_real;

/* thread_create() with all signals blocked except those that a fault in the thread raises. 0, or an errno. */
int aiod_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

/*
 * Initialise a mutex that is held for a few dozen instructions: a thread that finds it locked tries again for a moment before it
 * sleeps. 0, or an errno.
 */
int aiod_mutex_init(pthread_mutex_t *mutex);

/* The time of CLOCK_MONOTONIC in nanoseconds. */
uint64_t aiod_now_ns(void);

/* CLOCK_BOOTTIME, which also counts the time that the host was suspended. */
uint64_t aiod_boot_ns(void);

/* Create a non-blocking, close-on-exec eventfd. -errno on failure. */
int aiod_eventfd_create(void);

/* Make `fd` readable. Never blocks: an eventfd with a full counter is readable already. */
void aiod_eventfd_ring(int fd);

/* Make `fd` unreadable until the next aiod_eventfd_ring(). */
void aiod_eventfd_clear(int fd);

#endif
