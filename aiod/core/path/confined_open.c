/* confined_open.c - opens or creates a file beneath a root, and describes it. */
#include "path/confined_open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/file_locks.h"
#include "ops/worker_io.h"
#include "path/confined.h"
#include "path/file_id.h"
#include "path/filesystem.h"

/* limits the retries when a name appears and vanishes again; more than this is not accidental */
#define CREATE_RACES_MAX 8

/* Opened for reading as well with O_DIRECT: a write of a part of a block reads the block. */
static int access_mode(unsigned flags)
{
    int direct = (flags & AIOD_OPEN_DIRECT) != 0 ? O_DIRECT : 0;

    if ((flags & AIOD_OPEN_WRITE) == 0) {
        return O_RDONLY | direct;
    }
    return ((flags & AIOD_OPEN_READ) != 0 || direct != 0 ? O_RDWR : O_WRONLY) | direct;
}

/* Only regular files are served, and block devices if allowed. */
static int check_kind(int fd, bool device_allowed)
{
    struct stat status;

    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISREG(status.st_mode) || (device_allowed && S_ISBLK(status.st_mode))) {
        return 0;
    }
    return S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;
}

/*
 * Reopen an O_PATH descriptor for I/O. The type is checked first: opening a FIFO would block, and opening a device may
 * have effects. EAGAIN: another process holds a lease on the file, and was asked to release it. The open does not wait
 * for that: a client with a lease on a file of its own could otherwise block the only thread of an export with
 * as_client for lease-break-time (45 s) per open.
 */
static int reopen(int path_fd, unsigned flags, bool device_allowed)
{
    char name[64];
    int fd = check_kind(path_fd, device_allowed);

    if (fd < 0) {
        return fd;
    }
    snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
    fd = open(name, access_mode(flags) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static int open_existing(int root_fd, const char *path, unsigned flags)
{
    int path_fd = aiod_open_beneath(root_fd, path, O_PATH, 0, (flags & AIOD_OPEN_NO_LINKS) == 0);
    int fd;

    if (path_fd < 0) {
        return path_fd;
    }
    fd = reopen(path_fd, flags, false);
    close(path_fd);
    return fd;
}

int aiod_confined_set_owner_and_mode(int fd, const struct aiod_creation *creation)
{
    if ((creation->uid != (uid_t)-1 || creation->gid != (gid_t)-1) && fchown(fd, creation->uid, creation->gid) < 0) {
        return -errno;
    }
    return creation->exact && fchmod(fd, creation->mode & 0777) < 0 ? -errno : 0;
}

static int create(int root_fd, const char *path, unsigned flags, const struct aiod_creation *creation)
{
    uint64_t how = (uint64_t)access_mode(flags) | O_CREAT | O_EXCL | O_NOCTTY;
    int fd = aiod_open_beneath(root_fd, path, how, creation->mode & 0777, (flags & AIOD_OPEN_NO_LINKS) == 0);
    int error = fd < 0 ? 0 : aiod_confined_set_owner_and_mode(fd, creation);

    if (error < 0) {
        close(fd);
        return error;
    }
    return fd;
}

/* With CREATE, open first and create then: an existing FIFO or device is not opened to find out whether it exists. */
static int open_in_directory(int root_fd, const char *path, unsigned flags, const struct aiod_creation *creation)
{
    int fd = -EAGAIN;

    for (int races = 0; races < CREATE_RACES_MAX; races++) {
        if ((flags & AIOD_OPEN_EXCLUSIVE) != 0) {
            return create(root_fd, path, flags, creation);
        }
        fd = open_existing(root_fd, path, flags);
        if (fd != -ENOENT || (flags & AIOD_OPEN_CREATE) == 0) {
            return fd;
        }
        fd = create(root_fd, path, flags, creation);
        if (fd != -EEXIST) {
            return fd;
        }
    }
    return fd;
}

/* The root itself exists: CREATE has no effect, EXCLUSIVE fails. */
static int open_whole(int root_fd, unsigned flags)
{
    return (flags & AIOD_OPEN_EXCLUSIVE) != 0 ? -EEXIST : reopen(root_fd, flags, true);
}

static int open_any(const char *root, const char *path, unsigned flags, const struct aiod_creation *creation)
{
    int root_fd = aiod_open_root(root, *path != '\0' ? O_DIRECTORY : 0);
    int fd;

    if (root_fd < 0) {
        return root_fd;
    }
    fd = *path != '\0' ? open_in_directory(root_fd, path, flags, creation) : open_whole(root_fd, flags);
    close(root_fd);
    return fd;
}

/*
 * Set O_NOATIME. An update of the access time changes the inode, which may wait for the journal; cached reads are
 * answered on the leader and the main loop, which must not wait. Only the file's owner and CAP_FOWNER may set it;
 * otherwise the access times are updated. Not set by open(2): if open(2) refuses it for a file that the file system
 * gives to another owner (all_squash), the file has been created already.
 */
static void set_noatime(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0) {
        (void)!fcntl(fd, F_SETFL, flags | O_NOATIME);
    }
}

int aiod_confined_open_reading(const char *root, const char *path, unsigned flags)
{
    int fd = open_any(root, path, flags | AIOD_OPEN_READ, NULL);

    if (fd >= 0) {
        set_noatime(fd);
    }
    return fd;
}

/* Fill `opened`, and truncate last, when nothing else can fail. */
static int describe(int fd, unsigned flags, struct aiod_opened *opened)
{
    struct aiod_alignment alignment = {0};
    struct stat status;
    int64_t size;
    int error = (flags & AIOD_OPEN_DIRECT) != 0 ? aiod_alignment_find(fd, &alignment) : 0;

    if (error < 0) {
        return error;
    }
    set_noatime(fd);
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if ((flags & AIOD_OPEN_TRUNCATE) != 0 && S_ISREG(status.st_mode) && ftruncate(fd, 0) < 0) {
        return -errno;
    }
    size = aiod_io_size(fd);
    if (size < 0) {
        return (int)size;
    }
    *opened = (struct aiod_opened){
        .fd = fd,
        .size = (uint64_t)size,
        .dev = status.st_dev,
        .ino = status.st_ino,
        .store_fd = -1,
        .flush_fd = -1,
        .alignment = alignment,
        .on_fuse = aiod_is_on_fuse(fd),
    };
    opened->generation = aiod_file_generation(fd, &opened->dev);
    return 0;
}

/*
 * Open a description for flushes (flush.h). Returns -1 if the file is read-only (no write passes through it then), or
 * its mode does not allow another open.
 */
static int open_for_flushes(int fd, unsigned flags)
{
    int again = (flags & AIOD_OPEN_WRITE) != 0 ? reopen(fd, flags, true) : -1;

    return again < 0 ? -1 : again;
}

int aiod_confined_adopt(int fd, unsigned flags, struct aiod_opened *opened)
{
    int again = open_for_flushes(fd, flags);
    int error;

    if (again < 0) {
        /* the handle gets a description that outlived the earlier engine, perhaps with locks of which nobody knows now */
        (void)aiod_file_lock_release(fd, 0, AIOD_LOCK_LAST);
    }
    error = describe(again >= 0 ? again : fd, flags & ~(unsigned)AIOD_OPEN_TRUNCATE, opened);

    if (error < 0) {
        close(fd);
        if (again >= 0) {
            close(again);
        }
        return error;
    }
    opened->flush_fd = again >= 0 ? fd : -1;
    return 0;
}

int aiod_confined_open(const char *root, const char *path, unsigned flags, const struct aiod_creation *creation,
                       struct aiod_opened *opened)
{
    int fd = open_any(root, path, flags, creation);
    int error;

    if (fd < 0) {
        return fd;
    }
    error = describe(fd, flags, opened);
    if (error < 0) {
        close(fd);
        return error;
    }
    opened->flush_fd = open_for_flushes(fd, flags);
    opened->store_fd = reopen(fd, flags, true);
    if (opened->store_fd < 0) { /* the file's mode does not allow another open */
        opened->store_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    }
    return 0;
}
