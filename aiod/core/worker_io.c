#include "worker_io.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "os.h"

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

uint64_t aiod_io_read_nowait(int fd, char *data, uint64_t length, uint64_t offset)
{
    struct iovec whole = {.iov_base = data, .iov_len = length};
    ssize_t got = aiod_os->preadv2(fd, &whole, 1, (off_t)offset, RWF_NOWAIT);

    return got > 0 ? (uint64_t)got : 0;
}

int64_t aiod_io_write(int fd, const char *data, uint64_t length, uint64_t offset)
{
    uint64_t done = 0;

    while (done < length) {
        struct iovec rest = {.iov_base = (void *)(uintptr_t)(data + done), .iov_len = length - done};
        ssize_t put = aiod_os->pwritev2(fd, &rest, 1, (off_t)(offset + done), 0);

        if (put > 0) {
            done += (uint64_t)put;
        } else if (put == 0) {
            return -ENOSPC; /* a block device past its end; a loop here would never end */
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return (int64_t)done;
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

    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (!S_ISBLK(status.st_mode)) {
        return status.st_size;
    }
    return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}
