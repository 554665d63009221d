/* worker_io.c - transfers with retries of EINTR and of short transfers. */
#include "ops/worker_io.h"

#include <errno.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/iov.h"
#include "util/os.h"

int64_t aiod_io_read(int fd, char *data, uint64_t length, uint64_t offset, uint64_t have)
{
    while (have < length) {
        struct iovec rest = {.iov_base = data + have, .iov_len = length - have};
        ssize_t got = aiod_os->preadv2(fd, &rest, 1, (off_t)(offset + have), 0);

        if (got > 0) {
            have += (uint64_t)got;
        } else if (got == 0) {
            break;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return (int64_t)have;
}

int64_t aiod_io_readv(int fd, struct iovec *iov, size_t count, uint64_t offset, uint32_t block)
{
    struct aiod_iov left = {iov, count};
    uint64_t length = aiod_iov_bytes(&left);
    uint64_t have = 0;

    aiod_iov_consume(&left, 0);
    while (have < length) {
        int parts = left.count < IOV_MAX ? (int)left.count : IOV_MAX;
        ssize_t got = aiod_os->preadv2(fd, left.entries, parts, (off_t)(offset + have), 0);

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        have += (uint64_t)got;
        if (got == 0 || have % block != 0) {
            break;
        }
        aiod_iov_consume(&left, (uint64_t)got);
    }
    return (int64_t)have;
}

int64_t aiod_io_read_blocks(int fd, char *data, uint64_t length, uint64_t offset, uint32_t block)
{
    struct iovec whole = {.iov_base = data, .iov_len = length};

    return aiod_io_readv(fd, &whole, 1, offset, block);
}

uint64_t aiod_io_read_nowait(int fd, char *data, uint64_t length, uint64_t offset, bool *never)
{
    struct iovec whole = {.iov_base = data, .iov_len = length};

    return aiod_io_readv_nowait(fd, &whole, 1, offset, never);
}

uint64_t aiod_io_readv_nowait(int fd, const struct iovec *iov, size_t count, uint64_t offset, bool *never)
{
    ssize_t got = aiod_os->preadv2(fd, iov, count < IOV_MAX ? (int)count : IOV_MAX, (off_t)offset, RWF_NOWAIT);

    if (got < 0 && errno == EOPNOTSUPP) {
        __atomic_store_n(never, true, __ATOMIC_RELAXED);
    }
    return got > 0 ? (uint64_t)got : 0;
}

/* One pwritev2() of the rest, with EINTR retried. The number of bytes, which are dropped from `left`, or -errno. */
static int64_t write_some(int fd, struct aiod_iov *left, off_t offset, int flags)
{
    for (;;) {
        int count = left->count < IOV_MAX ? (int)left->count : IOV_MAX;
        ssize_t put = aiod_os->pwritev2(fd, left->entries, count, offset, flags);

        if (put > 0) {
            aiod_iov_consume(left, (uint64_t)put);
            return put;
        }
        if (put == 0) {
            return -ENOSPC; /* the end of a block device: without this the caller would loop for ever */
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

int64_t aiod_io_write(int fd, struct iovec *iov, size_t count, uint64_t offset, int flags, uint64_t *written)
{
    struct aiod_iov left = {iov, count};
    uint64_t length = aiod_iov_bytes(&left);

    *written = 0;
    aiod_iov_consume(&left, 0);
    while (*written < length) {
        int64_t put = write_some(fd, &left, (off_t)(offset + *written), flags);

        if (put < 0) {
            return put;
        }
        *written += (uint64_t)put;
    }
    return (int64_t)length;
}

int64_t aiod_io_append(int fd, struct iovec *iov, size_t count, uint64_t *written)
{
    struct aiod_iov left = {iov, count};
    uint64_t length = aiod_iov_bytes(&left);
    int64_t start = -1;

    struct stat status;

    *written = 0;
    aiod_iov_consume(&left, 0);
    if (aiod_os->fstat(fd, &status) < 0) {
        return -errno;
    }
    if (!S_ISREG(status.st_mode)) {
        return -EINVAL; /* a device has no end to append at: the kernel would write at the file position */
    }
    if (length == 0) {
        return status.st_size;
    }
    while (*written < length) {
        int64_t put = write_some(fd, &left, -1, RWF_APPEND); /* -1: write at the file position, and move it */
        off_t end = put < 0 ? 0 : aiod_os->lseek(fd, 0, SEEK_CUR);

        if (put < 0 || end < 0) {
            return put < 0 ? put : -errno;
        }
        if (start < 0) {
            start = end - put;
        } else if (end - put != start + (int64_t)*written) {
            return -EIO;
        }
        *written += (uint64_t)put;
    }
    return start;
}

int64_t aiod_io_truncate(int fd, uint64_t size)
{
    while (aiod_os->ftruncate(fd, (off_t)size) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int64_t aiod_io_flush(int fd)
{
    while (aiod_os->fdatasync(fd) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int64_t aiod_io_size(int fd)
{
    struct stat status;
    uint64_t bytes;

    if (aiod_os->fstat(fd, &status) < 0) {
        return -errno;
    }
    if (!S_ISBLK(status.st_mode)) {
        return status.st_size;
    }
    return aiod_os->ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}
