/* range_io.c - discard, write-zeroes, truncate and allocate, with the fallbacks for files and devices. */
#include "ops/range_io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>

#include "ops/worker_io.h"
#include "util/os.h"

#define ZEROES_BYTES ((size_t)64 << 10)
#define ZEROES_PARTS 64u

/* Never written. In .bss, so that it takes no room in the executable file. */
static _Alignas(AIOD_BUFFER_ALIGNMENT) char zeroes[ZEROES_BYTES];

/* ---- system calls ------------------------------------------------------------------------------------------------ */

/* 1, 0, or -errno. */
static int is_device(int fd)
{
    struct stat status;

    return aiod_os->fstat(fd, &status) < 0 ? -errno : S_ISBLK(status.st_mode);
}

/* FUSE returns ENOSYS where other file systems return EOPNOTSUPP. */
static int64_t call_fallocate(int fd, int mode, uint64_t offset, uint64_t length)
{
    while (aiod_os->fallocate(fd, mode, (off_t)offset, (off_t)length) < 0) {
        if (errno != EINTR) {
            return errno == ENOSYS ? -EOPNOTSUPP : -errno;
        }
    }
    return 0;
}

static int64_t punch(int fd, uint64_t offset, uint64_t length)
{
    return call_fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

/* BLKDISCARD or BLKZEROOUT. */
static int64_t call_ioctl(int fd, unsigned long request, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};

    while (aiod_os->ioctl(fd, request, range) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* ---- zeroes ------------------------------------------------------------------------------------------------------ */

/* Fill the parts of one write of zeroes with at most `length` bytes. Their number. */
static size_t fill_parts(struct iovec parts[ZEROES_PARTS], uint64_t length)
{
    size_t count = 0;

    while (count < ZEROES_PARTS && length > 0) {
        size_t bytes = length < ZEROES_BYTES ? (size_t)length : ZEROES_BYTES;

        parts[count++] = (struct iovec){.iov_base = zeroes, .iov_len = bytes};
        length -= bytes;
    }
    return count;
}

static int64_t write_zeroes(const struct aiod_direct *file, uint64_t offset, uint64_t length, uint64_t *written)
{
    *written = 0;
    while (*written < length) {
        struct iovec parts[ZEROES_PARTS];
        size_t count = fill_parts(parts, length - *written);
        uint64_t put;
        int64_t result = aiod_direct_write_locked(file, parts, count, offset + *written, 0, &put);

        *written += put;
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

/* Read the range, of which a part may lie behind the end of the file. 0, or -EOPNOTSUPP: it is not known to be zeroes. */
static int64_t check_zeroes(const struct aiod_direct *file, uint64_t offset, uint64_t length)
{
    struct aiod_buffer *buffer = aiod_buffer_get(file->buffers, ZEROES_BYTES);
    int64_t result = buffer != NULL ? 0 : -EOPNOTSUPP;

    while (result == 0 && length > 0) {
        uint64_t bytes = length < ZEROES_BYTES ? length : ZEROES_BYTES;
        int64_t got = aiod_direct_read_locked(file, buffer->data, bytes, offset);

        if (got != (int64_t)bytes || memcmp(buffer->data, zeroes, bytes) != 0) {
            result = -EOPNOTSUPP;
        }
        offset += bytes;
        length -= bytes;
    }
    aiod_buffer_put(buffer);
    return result;
}

/*
 * A FUSE server may take FALLOC_FL_ZERO_RANGE for an allocation and say that it has succeeded: glusterfs does (10.3). The
 * kernel has dropped the range from the page cache, so reading asks the server. What cannot be read, because the file is
 * open for writing only, counts as not zeroed.
 */
static int64_t zero_range(const struct aiod_direct *file, uint64_t offset, uint64_t length)
{
    int64_t result = call_fallocate(file->fd, FALLOC_FL_ZERO_RANGE, offset, length);

    return result == 0 && file->on_fuse ? check_zeroes(file, offset, length) : result;
}

/*
 * Make the file at least `end` bytes long, by allocating its last byte. ftruncate() would cut off bytes that another
 * process has appended since the size was read.
 */
static int64_t grow(const struct aiod_direct *file, uint64_t end)
{
    int64_t size = aiod_io_size(file->fd);
    int64_t result;
    uint64_t written;

    if (size < 0 || (uint64_t)size >= end) {
        return size < 0 ? size : 0;
    }
    result = call_fallocate(file->fd, 0, end - 1, 1);
    return result == -EOPNOTSUPP ? write_zeroes(file, end - 1, 1, &written) : result;
}

static int64_t zero_file(const struct aiod_direct *file, uint64_t offset, uint64_t length, unsigned flags,
                         uint64_t *written)
{
    int64_t result = (flags & AIOD_UNMAP) != 0 ? punch(file->fd, offset, length) : -EOPNOTSUPP;

    if (result == 0) {
        result = grow(file, offset + length);
    } else if (result == -EOPNOTSUPP) {
        result = zero_range(file, offset, length);
    }
    if (result == -EOPNOTSUPP && (flags & AIOD_FAST) == 0) {
        return write_zeroes(file, offset, length, written);
    }
    *written = result == 0 ? length : 0;
    return result;
}

/* `offset` and `length` are multiples of the sector size, and within the device. BLKZEROOUT may write the zeroes. */
static int64_t zero_sectors(const struct aiod_direct *file, uint64_t offset, uint64_t length, unsigned flags,
                            uint64_t *written)
{
    int64_t result = (flags & AIOD_UNMAP) != 0 ? punch(file->fd, offset, length) : -EOPNOTSUPP;
    bool fast = (flags & AIOD_FAST) != 0;

    if (result == -EOPNOTSUPP && !fast) {
        result = call_ioctl(file->fd, BLKZEROOUT, offset, length);
    }
    if (result == -EOPNOTSUPP && !fast) {
        return write_zeroes(file, offset, length, written);
    }
    *written = result == 0 ? length : 0;
    return result;
}

/* Partial sectors, and the range behind the end of the device, are written: that fails in the same way as a write. */
static int64_t zero_device(const struct aiod_direct *file, uint64_t offset, uint64_t length, unsigned flags,
                           uint64_t *written)
{
    uint64_t end = offset + length;
    int64_t size = aiod_io_size(file->fd);
    int sector;
    uint64_t first, behind, part = 0;
    int64_t result;

    if (size < 0 || aiod_os->ioctl(file->fd, BLKSSZGET, &sector) < 0) {
        return size < 0 ? size : -errno;
    }
    behind = aiod_align_down(end < (uint64_t)size ? end : (uint64_t)size, (uint32_t)sector);
    first = aiod_align_up(offset, (uint32_t)sector);
    if (first >= behind) {
        return write_zeroes(file, offset, length, written);
    }
    result = write_zeroes(file, offset, first - offset, written);
    if (result == 0) {
        result = zero_sectors(file, first, behind - first, flags, &part);
        *written += part;
    }
    if (result == 0) {
        result = write_zeroes(file, behind, end - behind, &part);
        *written += part;
    }
    return result;
}

int64_t aiod_range_write_zeroes(const struct aiod_direct *file, uint64_t offset, uint64_t length, unsigned flags,
                                uint64_t *written)
{
    struct aiod_range_lock range = aiod_direct_range_lock(file, offset, length);
    int64_t device = is_device(file->fd);
    int64_t result;

    *written = 0;
    if (device < 0 || length == 0) {
        return device < 0 ? device : 0;
    }
    aiod_range_lock_acquire(file->range_locks, &range);
    result = (device ? zero_device : zero_file)(file, offset, length, flags, written);
    aiod_range_lock_release(file->range_locks, &range);
    return result;
}

/* ---- discard, truncate, allocate --------------------------------------------------------------------------------- */

int64_t aiod_range_discard(const struct aiod_direct *file, uint64_t offset, uint64_t length)
{
    struct aiod_range_lock range = {.start = offset, .end = offset + length};
    int64_t device = is_device(file->fd);
    int64_t result;

    if (device < 0 || length == 0) {
        return device < 0 ? device : 0;
    }
    aiod_range_lock_acquire(file->range_locks, &range);
    result = device ? call_ioctl(file->fd, BLKDISCARD, offset, length) : punch(file->fd, offset, length);
    aiod_range_lock_release(file->range_locks, &range);
    return result;
}

int64_t aiod_range_truncate(const struct aiod_direct *file, uint64_t size)
{
    struct aiod_range_lock range = {.start = size, .end = AIOD_RANGE_END};
    int64_t result;

    aiod_range_lock_acquire(file->range_locks, &range);
    result = aiod_io_truncate(file->fd, size);
    aiod_range_lock_release(file->range_locks, &range);
    return result;
}

int64_t aiod_range_allocate(const struct aiod_direct *file, uint64_t offset, uint64_t length, bool keep_size)
{
    struct aiod_range_lock range = {.start = offset, .end = offset + length};
    int64_t device = is_device(file->fd);
    int64_t result;

    if (device != 0) {
        return device < 0 ? device : -EOPNOTSUPP; /* the kernel's error depends on the range; this one does not */
    }
    aiod_range_lock_acquire(file->range_locks, &range);
    result = call_fallocate(file->fd, keep_size ? FALLOC_FL_KEEP_SIZE : 0, offset, length);
    aiod_range_lock_release(file->range_locks, &range);
    return result;
}
