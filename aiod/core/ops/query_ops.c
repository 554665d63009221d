/* query_ops.c - STAT, EXTENTS and PREFETCH. */
#include "ops/query_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/worker_io.h"
#include "util/os.h"

/* One posix_fadvise() reads at most as much as the device accepts at once, or the kernel's read-ahead size. */
#define PREFETCH_STEP_BYTES (UINT64_C(128) << 10)

/* ---- STAT -------------------------------------------------------------------------------------------------------- */

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Size and block size of a device come from ioctls, which an O_PATH descriptor does not support. */
static void fill_device(int fd, struct aiod_stat *stat)
{
    uint64_t bytes;
    int sector;

    stat->size = aiod_os->ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? 0 : bytes;
    if (stat->block_size == 1 && aiod_os->ioctl(fd, BLKSSZGET, &sector) == 0) {
        stat->block_size = (uint32_t)sector;
    }
}

void aiod_query_fill_stat(struct aiod_stat *stat, const struct stat *status, const struct aiod_alignment *alignment)
{
    *stat = (struct aiod_stat){
        .size = (uint64_t)status->st_size,
        .allocated = (uint64_t)status->st_blocks * 512, /* in units of 512 bytes on every file system: stat(2) */
        .device = status->st_dev,
        .inode = status->st_ino,
        .atime_ns = nanoseconds(status->st_atim),
        .mtime_ns = nanoseconds(status->st_mtim),
        .ctime_ns = nanoseconds(status->st_ctim),
        .mode = status->st_mode,
        .links = (uint32_t)status->st_nlink,
        .uid = status->st_uid,
        .gid = status->st_gid,
        .block_size = alignment->offset,
        .io_size = (uint32_t)status->st_blksize,
    };
}

int64_t aiod_query_stat(int fd, const struct aiod_alignment *alignment, struct aiod_stat *stat)
{
    struct stat status;

    if (aiod_os->fstat(fd, &status) < 0) {
        return -errno;
    }
    aiod_query_fill_stat(stat, &status, alignment);
    if (S_ISBLK(status.st_mode)) {
        fill_device(fd, stat);
    }
    return 0;
}

/* ---- EXTENTS ----------------------------------------------------------------------------------------------------- */

/*
 * Find the end of the data or hole at `position`, at most `end`, and whether it is a hole. A file system without
 * SEEK_HOLE reports only data.
 */
static int64_t piece_end(int fd, uint64_t position, uint64_t end, bool *hole)
{
    off_t next = aiod_os->lseek(fd, (off_t)position, SEEK_DATA);

    *hole = next > (off_t)position || (next < 0 && errno == ENXIO);
    if (next == (off_t)position) {
        next = aiod_os->lseek(fd, (off_t)position, SEEK_HOLE);
    }
    if (next < 0 && errno != ENXIO && errno != EINVAL && errno != EOPNOTSUPP) {
        return -errno;
    }
    return next < 0 || (uint64_t)next > end ? (int64_t)end : next;
}

int64_t aiod_query_extents(int fd, uint64_t offset, uint64_t length, void *extents)
{
    int64_t size = aiod_io_size(fd);
    uint64_t end = offset + length;
    uint32_t count = 0;

    if (size < 0) {
        return size;
    }
    end = end < (uint64_t)size ? end : (uint64_t)size;
    while (offset < end && count < AIOD_EXTENTS_MAX) {
        bool hole;
        int64_t next = piece_end(fd, offset, end, &hole);

        if (next < 0) {
            return next;
        }
        if ((uint64_t)next > offset) { /* false if a hole was made between the two calls: then ask again */
            struct aiod_extent extent = {.length = (uint64_t)next - offset, .flags = hole ? AIOD_EXTENT_HOLE : 0};

            memcpy((char *)extents + count++ * sizeof(extent), &extent, sizeof(extent));
            offset = (uint64_t)next;
        }
    }
    return count;
}

/* ---- PREFETCH ---------------------------------------------------------------------------------------------------- */

int64_t aiod_query_prefetch(int fd, uint64_t offset, uint64_t length)
{
    int64_t size = aiod_io_size(fd);
    uint64_t end = offset + (length < AIOD_RANGE_BYTES_MAX ? length : AIOD_RANGE_BYTES_MAX);
    int error = 0;

    if (size < 0) {
        return size;
    }
    end = end < (uint64_t)size ? end : (uint64_t)size;
    for (; offset < end && error == 0; offset += PREFETCH_STEP_BYTES) {
        uint64_t rest = end - offset;

        error = aiod_os->posix_fadvise(
            fd, (off_t)offset, (off_t)(rest < PREFETCH_STEP_BYTES ? rest : PREFETCH_STEP_BYTES), POSIX_FADV_WILLNEED);
    }
    return -error;
}
