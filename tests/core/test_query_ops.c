/* STAT, EXTENTS and PREFETCH. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "ops/query_ops.h"
#include "scratch.h"

enum {
    BLOCK = 65536 /* no file system has larger blocks */
};

static struct aiod_os os;
static struct aiod_extent extents[AIOD_EXTENTS_MAX];

/* Every second block contains data, from the second block, followed by `tail` bytes. */
static int sparse_file(uint64_t blocks, uint64_t tail)
{
    int fd = scratch_file(0);

    for (uint64_t block = 1; block < blocks; block += 2) {
        for (uint64_t at = 0; at < BLOCK; at += 4096) {
            CHECK(pwrite(fd, "x", 1, (off_t)(block * BLOCK + at)) == 1);
        }
    }
    CHECK(ftruncate(fd, (off_t)(blocks * BLOCK + tail)) == 0);
    return fd;
}

static void check_extent(size_t index, uint64_t length, uint64_t flags)
{
    if (extents[index].length != length || extents[index].flags != flags) {
        fprintf(stderr, "%zu: %llu bytes, flags %llu\n", index, (unsigned long long)extents[index].length,
                (unsigned long long)extents[index].flags);
        abort();
    }
}

static void extents_list_data_and_holes(void)
{
    int fd = sparse_file(4, 100);

    CHECK(aiod_query_extents(fd, 0, UINT64_MAX / 2, extents) == 5);
    check_extent(0, BLOCK, AIOD_EXTENT_HOLE);
    check_extent(1, BLOCK, 0);
    check_extent(2, BLOCK, AIOD_EXTENT_HOLE);
    check_extent(3, BLOCK, 0);
    check_extent(4, 100, AIOD_EXTENT_HOLE);
    CHECK(aiod_query_extents(fd, BLOCK + 7, BLOCK, extents) == 2);
    check_extent(0, BLOCK - 7, 0);
    check_extent(1, 7, AIOD_EXTENT_HOLE);
    CHECK(aiod_query_extents(fd, 10, 5, extents) == 1);
    check_extent(0, 5, AIOD_EXTENT_HOLE);
    CHECK(aiod_query_extents(fd, 0, 0, extents) == 0);
    CHECK(aiod_query_extents(fd, 4 * BLOCK + 100, 1, extents) == 0);
    CHECK(aiod_query_extents(fd, 1 << 30, 5, extents) == 0);
    close(fd);
}

static void extents_stop_at_the_limit(void)
{
    int fd = sparse_file(AIOD_EXTENTS_MAX + 10, 0);

    CHECK(aiod_query_extents(fd, 0, UINT64_MAX / 2, extents) == AIOD_EXTENTS_MAX);
    check_extent(AIOD_EXTENTS_MAX - 1, BLOCK, 0);
    CHECK(aiod_query_extents(fd, (uint64_t)AIOD_EXTENTS_MAX * BLOCK, UINT64_MAX / 2, extents) == 10);
    close(fd);
}

static off_t ignorant_lseek(int fd, off_t offset, int whence)
{
    (void)fd, (void)offset, (void)whence;
    errno = EINVAL;
    return -1;
}

static off_t broken_lseek(int fd, off_t offset, int whence)
{
    (void)fd, (void)offset, (void)whence;
    errno = EIO;
    return -1;
}

static void without_seek_hole_all_is_data(void)
{
    int fd = sparse_file(4, 100);

    os.lseek = ignorant_lseek;
    CHECK(aiod_query_extents(fd, 5, UINT64_MAX / 2, extents) == 1);
    check_extent(0, 4 * BLOCK + 95, 0);
    os.lseek = broken_lseek;
    CHECK(aiod_query_extents(fd, 5, UINT64_MAX / 2, extents) == -EIO);
    os.lseek = lseek;
    CHECK(aiod_query_extents(-1, 5, 5, extents) == -EBADF);
    close(fd);
}

/* A hole that appears after the search for data. */
static off_t punched_lseek(int fd, off_t offset, int whence)
{
    off_t found = aiod_os_real.lseek(fd, offset, whence);

    if (whence == SEEK_DATA && found == BLOCK) {
        CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, BLOCK, BLOCK) == 0);
    }
    return found;
}

static void a_new_hole_is_found_by_asking_again(void)
{
    int fd = sparse_file(4, 0);

    os.lseek = punched_lseek;
    CHECK(aiod_query_extents(fd, BLOCK, 3 * BLOCK, extents) == 2);
    check_extent(0, 2 * BLOCK, AIOD_EXTENT_HOLE);
    check_extent(1, BLOCK, 0);
    os.lseek = lseek;
    close(fd);
}

static void stat_fills_the_record(void)
{
    int fd = sparse_file(2, 3);
    struct aiod_stat record;
    struct stat status;

    CHECK(aiod_query_stat(fd, &(struct aiod_alignment){512, 4096}, &record) == 0);
    CHECK(fstat(fd, &status) == 0);
    CHECK(record.size == 2 * BLOCK + 3 && record.allocated == (uint64_t)status.st_blocks * 512);
    CHECK(record.device == status.st_dev && record.inode == status.st_ino);
    CHECK(record.mtime_ns == status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec);
    CHECK(record.mode == status.st_mode && record.links == 0 && record.uid == getuid() && record.gid == status.st_gid);
    CHECK(record.block_size == 4096 && record.io_size == (uint32_t)status.st_blksize);
    CHECK(aiod_query_stat(fd, &(struct aiod_alignment){1, 1}, &record) == 0 && record.block_size == 1);
    CHECK(aiod_query_stat(-1, &(struct aiod_alignment){1, 1}, &record) == -EBADF);
    close(fd);
}

static off_t advised; /* bytes */

static int noting_fadvise(int fd, off_t offset, off_t length, int advice)
{
    CHECK(advice == POSIX_FADV_WILLNEED);
    advised += length;
    return aiod_os_real.posix_fadvise(fd, offset, length, advice);
}

static void prefetch_reads_ahead_within_the_file(void)
{
    int fd = sparse_file(2, 0);

    os.posix_fadvise = noting_fadvise;
    CHECK(aiod_query_prefetch(fd, BLOCK, 100) == 0 && advised == 100);
    CHECK(aiod_query_prefetch(fd, 0, 0) == 0 && advised == 100);
    CHECK(aiod_query_prefetch(fd, 2 * BLOCK, 100) == 0 && advised == 100); /* beyond the end */
    advised = 0;
    CHECK(aiod_query_prefetch(fd, 1, INT64_MAX - 1) == 0 && advised == 2 * BLOCK - 1);
    CHECK(ftruncate(fd, INT64_C(1) << 31) == 0);
    advised = 0;
    CHECK(aiod_query_prefetch(fd, 0, INT64_C(1) << 31) == 0 && advised == INT64_C(1) << 30);
    CHECK(aiod_query_prefetch(-1, 0, 100) == -EBADF);
    os.posix_fadvise = posix_fadvise;
    close(fd);
}

int main(void)
{
    os = aiod_os_real;
    aiod_os = &os;
    extents_list_data_and_holes();
    extents_stop_at_the_limit();
    without_seek_hole_all_is_data();
    a_new_hole_is_found_by_asking_again();
    stat_fills_the_record();
    prefetch_reads_ahead_within_the_file();
    return 0;
}
