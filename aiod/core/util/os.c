/* os.c - the real system calls behind the seam, thread creation with blocked signals, and eventfd helpers. */
#include "util/os.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static int ioctl_pointer(int fd, unsigned long request, void *argument)
{
    return ioctl(fd, request, argument);
}

static int uring_result(int result)
{
    return result;
}

static int add_seals(int fd, unsigned seals)
{
    return fcntl(fd, F_ADD_SEALS, seals);
}

static int ofd_setlk(int fd, struct flock *lock)
{
    return fcntl(fd, F_OFD_SETLK, lock);
}

static int set_xattr(int fd, const char *name, const void *value, size_t size)
{
    return fsetxattr(fd, name, value, size, 0);
}

const struct aiod_os aiod_os_real = {
    .thread_create = pthread_create,
    .preadv2 = preadv2,
    .pwritev2 = pwritev2,
    .fdatasync = fdatasync,
    .fsync = fsync,
    .fstat = fstat,
    .statx = statx,
    .lseek = lseek,
    .ftruncate = ftruncate,
    .fallocate = fallocate,
    .copy_file_range = copy_file_range,
    .posix_fadvise = posix_fadvise,
    .ioctl = ioctl_pointer,
    .munmap = munmap,
    .add_seals = add_seals,
    .uring_submit = io_uring_submit,
    .uring_result = uring_result,
    .ofd_setlk = ofd_setlk,
    .fgetxattr = fgetxattr,
    .fsetxattr = set_xattr,
    .renameat2 = renameat2,
};

const struct aiod_os *aiod_os = &aiod_os_real;

int aiod_thread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    sigset_t blocked;
    sigset_t before;
    int error;

    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    error = aiod_os->thread_create(thread, attr, start, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int aiod_mutex_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t adaptive;
    int error = pthread_mutexattr_init(&adaptive);

    if (error == 0) {
        pthread_mutexattr_settype(&adaptive, PTHREAD_MUTEX_ADAPTIVE_NP);
        error = pthread_mutex_init(mutex, &adaptive);
        pthread_mutexattr_destroy(&adaptive);
    }
    return error;
}

uint64_t aiod_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t aiod_boot_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int aiod_eventfd_create(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

void aiod_eventfd_ring(int fd)
{
    uint64_t one = 1;
    ssize_t written;

    /* EAGAIN: the counter is at its maximum, so the eventfd is readable already. */
    do {
        written = write(fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
}

void aiod_eventfd_clear(int fd)
{
    uint64_t count;
    ssize_t got;

    do {
        got = read(fd, &count, sizeof(count));
    } while (got < 0 && errno == EINTR);
}
