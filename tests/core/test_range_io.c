/* DISCARD, WRITE_ZEROES, TRUNCATE and ALLOCATE of regular files, with and without support by the file system. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ops/range_io.h"
#include "ops/worker_io.h"
#include "scratch.h"

enum {
    SIZE = 100000,
    LARGE = 9 << 20, /* more than one write of zeroes */
};

static struct aiod_buffers buffers;
static struct aiod_range_locks range_locks;
static struct aiod_os os; /* the test's system calls; the real ones by default */
static char content[LARGE + 2 * SIZE];
static uint64_t written;

/* ---- file systems with less support ------------------------------------------------------------------------------ */

static int missing_modes; /* modes that fallocate() does not support; -1: none at all */
static int missing_errno;
static int interruptions;
static char modes_used[8]; /* p: punch, z: zero, g: grow */

static int lacking_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    if (missing_modes == -1 || (mode & missing_modes) != 0) {
        errno = missing_errno;
        return -1;
    }
    modes_used[strlen(modes_used)] = (mode & FALLOC_FL_PUNCH_HOLE) != 0   ? 'p'
                                     : (mode & FALLOC_FL_ZERO_RANGE) != 0 ? 'z'
                                                                          : 'g';
    return aiod_os_real.fallocate(fd, mode, offset, length);
}

static int open_for_writing(int fd)
{
    char name[32];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    return open(name, O_WRONLY);
}

/* The FUSE server of GlusterFS 10.3 takes FALLOC_FL_ZERO_RANGE for an allocation. */
static int pretending_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return aiod_os_real.fallocate(fd, mode & ~FALLOC_FL_ZERO_RANGE, offset, length);
}

static void lacking(int modes, int error)
{
    missing_modes = modes;
    missing_errno = error;
    memset(modes_used, 0, sizeof(modes_used));
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static struct aiod_direct open_file(int flags)
{
    struct aiod_direct file = {
        .fd = scratch_file(0), .buffers = &buffers, .range_locks = &range_locks, .alignment = {1, 1}};
    struct iovec part = {.iov_base = content, .iov_len = SIZE};

    for (size_t i = 0; i < SIZE; i++) {
        content[i] = pattern(i);
    }
    memset(content + SIZE, 0, sizeof(content) - SIZE);
    CHECK(aiod_io_write(file.fd, &part, 1, 0, 0, &written) == SIZE);
    if ((flags & O_DIRECT) != 0) {
        int direct = open_again(file.fd, O_DIRECT);

        close(file.fd);
        file.fd = direct;
        CHECK(aiod_alignment_find(file.fd, &file.alignment) == 0);
    }
    return file;
}

static int64_t allocated(int fd)
{
    struct stat status;

    CHECK(fsync(fd) == 0 && fstat(fd, &status) == 0);
    return (int64_t)status.st_blocks * 512;
}

/* Check that the range is zeroes, the rest unchanged, and the file as large as after a write. */
static void check_zeroed(const struct aiod_direct *file, uint64_t offset, uint64_t length)
{
    uint64_t size = offset + length > SIZE ? offset + length : SIZE;

    memset(content + offset, 0, length);
    check_size(file->fd, (int64_t)size);
    check_bytes(file->fd, content, size, 0);
}

/* ---- zeroes ------------------------------------------------------------------------------------------------------ */

/* Inside the file, across its end, right behind it, far behind it; small and large. */
static void zeroes_everywhere(int flags, unsigned how, int modes, int error)
{
    const uint64_t spans[][2] = {{0, 4096},        {5000, 1},         {4095, 50000},          {SIZE - 10, 10},
                                 {SIZE - 10, 20},  {SIZE, 5000},      {SIZE + 70000, 3},      {8192, LARGE},
                                 {0, SIZE + 8192}, {SIZE - 1, 40960}, {98304, LARGE - 98304}, {77, 0}};

    for (size_t i = 0; i < sizeof(spans) / sizeof(*spans); i++) {
        struct aiod_direct file = open_file(flags);
        uint64_t offset = spans[i][0], length = spans[i][1];

        lacking(modes, error);
        interruptions = 2;
        CHECK(aiod_range_write_zeroes(&file, offset, length, how, &written) == 0 && written == length);
        check_zeroed(&file, offset, length);
        close(file.fd);
    }
}

/* Not on tmpfs. */
static bool has_zero_range(void)
{
    int fd = scratch_file(0);
    bool has = fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 4096) == 0;

    close(fd);
    return has;
}

static void every_way_writes_zeroes(int flags)
{
    for (unsigned how = 0; how <= AIOD_UNMAP; how += AIOD_UNMAP) {
        zeroes_everywhere(flags, how, 0, 0);
        zeroes_everywhere(flags, how, FALLOC_FL_PUNCH_HOLE, EOPNOTSUPP);
        zeroes_everywhere(flags, how, FALLOC_FL_ZERO_RANGE, EOPNOTSUPP);
        zeroes_everywhere(flags, how, -1, ENOSYS);
    }
    if (has_zero_range()) {
        zeroes_everywhere(flags, AIOD_FAST, 0, 0);
        zeroes_everywhere(flags, AIOD_FAST | AIOD_UNMAP, FALLOC_FL_PUNCH_HOLE, EOPNOTSUPP);
    }
}

static void ranges_that_a_fuse_server_has_not_zeroed_are_written(int flags)
{
    struct aiod_direct file = open_file(flags);

    file.on_fuse = true;
    os.fallocate = pretending_fallocate;
    CHECK(aiod_range_write_zeroes(&file, 5000, 1000, AIOD_FAST, &written) == -EOPNOTSUPP && written == 0);
    check_bytes(file.fd, content, SIZE, 0);
    CHECK(aiod_range_write_zeroes(&file, 5000, 90000, 0, &written) == 0 && written == 90000);
    check_zeroed(&file, 5000, 90000);
    CHECK(aiod_range_write_zeroes(&file, 0, 4096, AIOD_UNMAP, &written) == 0 && written == 4096);
    check_zeroed(&file, 0, 4096);
    CHECK(aiod_range_write_zeroes(&file, SIZE - 1000, 5000, 0, &written) == 0 && written == 5000);
    check_zeroed(&file, SIZE - 1000, 5000);
    os.fallocate = lacking_fallocate;
    close(file.fd);
}

static void a_file_on_fuse_that_is_open_for_writing_only_is_zeroed(void)
{
    struct aiod_direct file = open_file(0);
    int both = file.fd;
    struct aiod_direct for_writing = file;

    lacking(0, 0);
    for_writing.on_fuse = true;
    for_writing.fd = open_for_writing(both);
    CHECK(aiod_range_write_zeroes(&for_writing, 100, 200, 0, &written) == 0 && written == 200);
    check_zeroed(&file, 100, 200);
    close(for_writing.fd);
    close(both);
}

static void fast_never_writes(void)
{
    struct aiod_direct file = open_file(0);

    lacking(-1, EOPNOTSUPP);
    CHECK(aiod_range_write_zeroes(&file, 100, LARGE, AIOD_FAST | AIOD_UNMAP, &written) == -EOPNOTSUPP && written == 0);
    check_size(file.fd, SIZE);
    check_bytes(file.fd, content, SIZE, 0);
    close(file.fd);
}

static void unmap_frees_space_and_write_zeroes_keeps_it(void)
{
    struct aiod_direct file = open_file(0);
    int64_t before = allocated(file.fd);

    lacking(0, 0);
    CHECK(aiod_range_write_zeroes(&file, 0, 65536, 0, &written) == 0);
    CHECK(allocated(file.fd) == before && strcmp(modes_used, "z") == 0);
    lacking(0, 0);
    CHECK(aiod_range_write_zeroes(&file, 0, 65536, AIOD_UNMAP, &written) == 0);
    CHECK(allocated(file.fd) == before - 65536 && strcmp(modes_used, "p") == 0);
    lacking(0, 0);
    CHECK(aiod_range_write_zeroes(&file, 65536, LARGE, AIOD_UNMAP, &written) == 0);
    CHECK(allocated(file.fd) < before && strcmp(modes_used, "pg") == 0);
    close(file.fd);
}

/* ---- another process makes the file longer at the worst moment --------------------------------------------------- */

static int other_fd;

static int late_fstat(int fd, struct stat *status)
{
    int result = aiod_os_real.fstat(fd, status);

    CHECK(pwrite(other_fd, "end", 3, SIZE + 50000) == 3); /* after the size was read */
    return result;
}

static void appends_of_others_survive_write_zeroes(int modes)
{
    struct aiod_direct file = open_file(0);

    lacking(modes, EOPNOTSUPP);
    other_fd = file.fd;
    os.fstat = late_fstat;
    CHECK(aiod_range_write_zeroes(&file, SIZE - 100, 10000, AIOD_UNMAP, &written) == 0);
    os.fstat = fstat;
    check_size(file.fd, SIZE + 50003);
    memset(content + SIZE - 100, 0, 100);
    memcpy(content + SIZE + 50000, "end", 3);
    check_bytes(file.fd, content, SIZE + 50003, 0);
    close(file.fd);
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static size_t room; /* free bytes of the disk */

static ssize_t full_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct iovec cut = *iov;

    (void)count;
    if (room == 0) {
        errno = ENOSPC;
        return -1;
    }
    cut.iov_len = cut.iov_len < room ? cut.iov_len : room;
    room -= cut.iov_len;
    return aiod_os_real.pwritev2(fd, &cut, 1, offset, flags);
}

static void a_full_disk_reports_the_bytes_zeroed(void)
{
    struct aiod_direct file = open_file(0);

    os.pwritev2 = full_pwritev2;
    lacking(-1, EOPNOTSUPP);
    room = 70000;
    CHECK(aiod_range_write_zeroes(&file, 50000, LARGE, 0, &written) == -ENOSPC && written == 70000);
    check_zeroed(&file, 50000, 70000);
    os.pwritev2 = pwritev2;
    lacking(-1, ENOSPC);
    CHECK(aiod_range_write_zeroes(&file, 0, 50000, 0, &written) == -ENOSPC && written == 0);
    CHECK(aiod_range_allocate(&file, 0, 50000, false) == -ENOSPC);
    close(file.fd);
}

static void unsupported_operations_are_refused(void)
{
    struct aiod_direct file = open_file(0);
    int fd = file.fd;

    lacking(-1, EOPNOTSUPP);
    CHECK(aiod_range_discard(&file, 0, 4096) == -EOPNOTSUPP);
    CHECK(aiod_range_allocate(&file, 0, 4096, false) == -EOPNOTSUPP);
    lacking(-1, ENOSYS);
    CHECK(aiod_range_discard(&file, 0, 4096) == -EOPNOTSUPP);
    lacking(0, 0);
    CHECK(aiod_range_allocate(&file, 0, 0, false) == -EINVAL);
    CHECK(aiod_range_discard(&file, 0, 0) == 0);
    file.fd = -1;
    CHECK(aiod_range_discard(&file, 0, 1) == -EBADF);
    CHECK(aiod_range_write_zeroes(&file, 0, 1, 0, &written) == -EBADF && written == 0);
    CHECK(aiod_range_truncate(&file, 0) == -EBADF);
    CHECK(aiod_range_allocate(&file, 0, 1, true) == -EBADF);
    CHECK(range_locks.first == NULL); /* all range locks are released */
    close(fd);
}

/* ---- allocation and size ----------------------------------------------------------------------------------------- */

static void discard_frees_space(int flags)
{
    struct aiod_direct file = open_file(flags);
    int64_t before = allocated(file.fd);

    lacking(0, 0);
    interruptions = 1;
    CHECK(aiod_range_discard(&file, 5000, 60000) == 0);
    memset(content + 5000, 0, 60000);
    check_bytes(file.fd, content, SIZE, 0);
    CHECK(allocated(file.fd) < before);
    CHECK(aiod_range_discard(&file, SIZE - 5, 1000000) == 0);
    memset(content + SIZE - 5, 0, 5);
    check_size(file.fd, SIZE); /* the file never grows */
    check_bytes(file.fd, content, SIZE, 0);
    close(file.fd);
}

static void truncate_and_allocate_set_the_size(void)
{
    struct aiod_direct file = open_file(0);

    lacking(0, 0);
    CHECK(aiod_range_truncate(&file, 50001) == 0);
    check_size(file.fd, 50001);
    CHECK(aiod_range_truncate(&file, 2 * SIZE) == 0);
    memset(content + 50001, 0, SIZE);
    check_bytes(file.fd, content, 2 * SIZE, 0);
    interruptions = 1;
    CHECK(aiod_range_allocate(&file, 0, LARGE, true) == 0);
    check_size(file.fd, 2 * SIZE);
    CHECK(allocated(file.fd) >= LARGE);
    CHECK(aiod_range_allocate(&file, 10, LARGE, false) == 0);
    check_size(file.fd, LARGE + 10);
    check_bytes(file.fd, content, LARGE + 10, 0);
    close(file.fd);
}

static _Atomic int truncations_interrupted;

static int interrupted_ftruncate(int fd, off_t size)
{
    if (truncations_interrupted-- > 0) {
        errno = EINTR;
        return -1;
    }
    return aiod_os_real.ftruncate(fd, size);
}

static void an_interrupted_truncation_is_retried(void)
{
    struct aiod_direct file = open_file(0);

    os.ftruncate = interrupted_ftruncate;
    truncations_interrupted = 2;
    CHECK(aiod_range_truncate(&file, 7) == 0);
    os.ftruncate = ftruncate;
    check_size(file.fd, 7);
    close(file.fd);
}

int main(void)
{
    os = aiod_os_real;
    os.fallocate = lacking_fallocate;
    aiod_os = &os;
    aiod_buffers_init(&buffers, 1 << 20);
    aiod_range_locks_init(&range_locks);
    every_way_writes_zeroes(0);
    every_way_writes_zeroes(O_DIRECT);
    unmap_frees_space_and_write_zeroes_keeps_it();
    ranges_that_a_fuse_server_has_not_zeroed_are_written(0);
    ranges_that_a_fuse_server_has_not_zeroed_are_written(O_DIRECT);
    a_file_on_fuse_that_is_open_for_writing_only_is_zeroed();
    fast_never_writes();
    appends_of_others_survive_write_zeroes(0);
    appends_of_others_survive_write_zeroes(FALLOC_FL_PUNCH_HOLE);
    a_full_disk_reports_the_bytes_zeroed();
    unsupported_operations_are_refused();
    discard_frees_space(0);
    discard_frees_space(O_DIRECT);
    truncate_and_allocate_set_the_size();
    an_interrupted_truncation_is_retried();
    aiod_range_locks_destroy(&range_locks);
    aiod_buffers_destroy(&buffers);
    return 0;
}
