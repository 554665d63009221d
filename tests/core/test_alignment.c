/* The alignment for O_DIRECT: from the kernel, from test reads, and the assumption without either. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ops/alignment.h"
#include "scratch.h"
#include "util/buffers.h"

static struct aiod_os os;

/* ---- a kernel with chosen answers -------------------------------------------------------------------------------- */

static int silent_statx(int fd, const char *path, int flags, unsigned mask, struct statx *status)
{
    int result = aiod_os_real.statx(fd, path, flags, mask, status);

    status->stx_mask = STATX_TYPE;
    return result;
}

#ifdef STATX_DIOALIGN
static uint32_t answered_memory;
static uint32_t answered_offset;

static int answering_statx(int fd, const char *path, int flags, unsigned mask, struct statx *status)
{
    int result = aiod_os_real.statx(fd, path, flags, mask, status);

    status->stx_mask |= STATX_DIOALIGN;
    status->stx_dio_mem_align = answered_memory;
    status->stx_dio_offset_align = answered_offset;
    return result;
}
#endif

static uint32_t picky_memory; /* the alignment that the simulated file system requires */
static uint32_t picky_block;

static ssize_t picky_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    CHECK(count == 1);
    if ((uintptr_t)iov->iov_base % picky_memory != 0 || iov->iov_len % picky_block != 0 ||
        (uint64_t)offset % picky_block != 0) {
        errno = EINVAL;
        return -1;
    }
    return aiod_os_real.preadv2(fd, iov, count, offset, flags);
}

static off_t no_holes_lseek(int fd, off_t offset, int whence)
{
    (void)fd, (void)offset, (void)whence;
    errno = EINVAL;
    return -1;
}

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

static void check_found(int fd, uint32_t memory, uint32_t offset)
{
    struct aiod_alignment found;

    CHECK(aiod_alignment_find(fd, &found) == 0);
    if (found.memory != memory || found.offset != offset) {
        fprintf(stderr, "found %u and %u, not %u and %u\n", found.memory, found.offset, memory, offset);
        abort();
    }
}

static int file_of(int64_t bytes, off_t offset)
{
    static char data[8192];
    int fd = scratch_file(O_DIRECT);
    int buffered = open_again(fd, 0);

    memset(data, 'x', sizeof(data));
    CHECK(pwrite(buffered, data, (size_t)bytes, offset) == bytes);
    CHECK(fsync(buffered) == 0);
    close(buffered);
    return fd;
}

/* A read with the alignment that was found for a real file succeeds. */
static void a_read_with_the_found_alignment_succeeds(void)
{
    int fd = file_of(8192, 0);
    char *data = aligned_alloc(AIOD_BUFFER_ALIGNMENT, (size_t)2 * AIOD_ALIGNMENT_MAX);
    struct aiod_alignment found;

    for (int i = 0; i < 2; i++) {
        CHECK(aiod_alignment_find(fd, &found) == 0);
        printf("memory %u, offset %u\n", found.memory, found.offset);
        CHECK(pread(fd, data + found.memory, found.offset, found.offset) > 0);
        os.statx = silent_statx;
    }
    os.statx = statx;
    free(data);
    close(fd);
}

static void statx_and_the_device_are_believed(void)
{
    struct aiod_alignment found;
    int fd = file_of(10, 0);

#ifdef STATX_DIOALIGN
    os.statx = answering_statx;
    answered_memory = 4, answered_offset = 512;
    check_found(fd, 4, 512);
    answered_memory = 0, answered_offset = 0;
    CHECK(aiod_alignment_find(fd, &found) == -EINVAL);
    answered_memory = 512, answered_offset = 2 * AIOD_ALIGNMENT_MAX;
    CHECK(aiod_alignment_find(fd, &found) == -EINVAL);
    answered_memory = 2 * AIOD_BUFFER_ALIGNMENT, answered_offset = 4096;
    CHECK(aiod_alignment_find(fd, &found) == -EINVAL);
    os.statx = statx;
#endif
    CHECK(aiod_alignment_find(-1, &found) == -EBADF);
    close(fd);
}

static void test_reads_find_the_alignment(void)
{
    const uint32_t wanted[][2] = {{1, 1}, {512, 512}, {1, 512}, {512, 4096}, {4096, 4096}};
    int large = file_of(8192, 0), small = file_of(10, 0), behind_a_hole = file_of(10, 1000000);

    os.statx = silent_statx;
    os.preadv2 = picky_preadv2;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
        int buffered = open_again(large, 0);

        picky_memory = wanted[i][0], picky_block = wanted[i][1];
        /* the real file system below has no requirement of its own */
        check_found(buffered, picky_memory, picky_block);
        close(buffered);
    }
    picky_memory = 4096, picky_block = 4096;
    check_found(large, 4096, 4096);
    check_found(small, 4096, 4096);
    check_found(behind_a_hole, 4096, 4096);
    os.lseek = no_holes_lseek;
    check_found(small, 4096, 4096);
    os.lseek = lseek;
    os.preadv2 = preadv2;
    os.statx = statx;
    close(large);
    close(small);
    close(behind_a_hole);
}

static void without_data_a_page_is_assumed(void)
{
    int empty = scratch_file(O_DIRECT), hole = scratch_file(O_DIRECT), unreadable = file_of(8192, 0);
    char name[32];
    int write_only;

    CHECK(ftruncate(hole, 100000) == 0);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", unreadable);
    write_only = open(name, O_WRONLY | O_DIRECT);
    CHECK(write_only >= 0);
    os.statx = silent_statx;
    check_found(empty, AIOD_BUFFER_ALIGNMENT, AIOD_BUFFER_ALIGNMENT);
    check_found(hole, AIOD_BUFFER_ALIGNMENT, AIOD_BUFFER_ALIGNMENT);
    check_found(write_only, AIOD_BUFFER_ALIGNMENT, AIOD_BUFFER_ALIGNMENT);
    os.lseek = no_holes_lseek;
    check_found(empty, AIOD_BUFFER_ALIGNMENT, AIOD_BUFFER_ALIGNMENT);
    os.lseek = lseek;
    os.statx = statx;
    close(empty);
    close(hole);
    close(unreadable);
    close(write_only);
}

int main(void)
{
    os = aiod_os_real;
    aiod_os = &os;
    a_read_with_the_found_alignment_succeeds();
    statx_and_the_device_are_believed();
    test_reads_find_the_alignment();
    without_data_a_page_is_assumed();
    return 0;
}
