/*
 * COPY_RANGE: by the kernel, by reads and writes, within one file, up to the end of the source, and with errors
 * half-way.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ops/copy_range.h"
#include "ops/worker_io.h"
#include "scratch.h"

enum {
    SIZE = 1000003, /* bytes of a source: several steps, the last one partial */
    /*
     * bytes that a limited kernel copies per call: whole blocks, because shared blocks are copied in whole blocks only
     */
    PART = 65536,
    ROUNDS = 300
};

static struct aiod_buffers buffers;
static struct aiod_os os; /* the test's system calls; the real ones by default */
static char content[2 * SIZE];
static uint64_t written;

/* ---- limited kernels --------------------------------------------------------------------------------------------- */

enum kernel {
    ABLE,
    SHORT,     /* short copies, with interrupts */
    STOPPING,  /* one part, then an error */
    PREMATURE, /* one part, then a false end of the source */
};

static enum kernel kernel;
static int refusal;        /* the errno of STOPPING */
static unsigned asked;     /* the number of calls */
static unsigned transfers; /* reads and writes through a buffer */

static ssize_t lesser_copy(int from, off_t *from_offset, int to, off_t *offset, size_t length, unsigned flags)
{
    size_t part = length < PART ? length : PART;

    asked++;
    switch (kernel) {
    case ABLE:
        break;
    case SHORT:
        errno = EINTR;
        return asked % 2 == 1 ? -1 : aiod_os_real.copy_file_range(from, from_offset, to, offset, part, flags);
    case STOPPING:
    case PREMATURE:
        if (asked % 2 == 1) {
            return aiod_os_real.copy_file_range(from, from_offset, to, offset, part, flags);
        }
        errno = refusal;
        return kernel == PREMATURE ? 0 : -1;
    }
    return aiod_os_real.copy_file_range(from, from_offset, to, offset, length, flags);
}

static ssize_t counting_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    transfers++;
    return aiod_os_real.pwritev2(fd, iov, count, offset, flags);
}

static void set_kernel(enum kernel kind, int error)
{
    kernel = kind;
    refusal = error;
    asked = 0;
    transfers = 0;
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static struct aiod_range_locks ranges_of[2];

static struct aiod_direct open_file(size_t index, int flags, uint64_t bytes)
{
    struct aiod_direct file = {.buffers = &buffers, .range_locks = &ranges_of[index], .alignment = {1, 1}};
    int buffered = scratch_file(0);
    struct iovec part = {.iov_base = content, .iov_len = bytes};

    CHECK(aiod_io_write(buffered, &part, 1, 0, 0, &written) == (int64_t)bytes);
    file.fd = open_again(buffered, flags);
    close(buffered);
    if ((flags & O_DIRECT) != 0) {
        CHECK(aiod_alignment_find(file.fd, &file.alignment) == 0);
    }
    return file;
}

/* ---- copies ------------------------------------------------------------------------------------------------------ */

static void copied(int to_flags, int from_flags)
{
    const uint64_t spans[][3] = {/* to, from, length */
                                 {0, 0, SIZE},       {0, 0, 4096},     {77, 5, 700000},     {SIZE, 100, 300000},
                                 {5, SIZE - 10, 10}, {4096, 8192, 1},  {10, 20, SIZE - 20}, {3 * SIZE, 0, SIZE},
                                 {0, 99, 2 * SIZE},  {1, SIZE - 1, 5}, {7, SIZE, 5},        {7, 2 * SIZE, 1 << 30}};

    for (size_t i = 0; i < sizeof(spans) / sizeof(*spans); i++) {
        uint64_t offset = spans[i][0], from_offset = spans[i][1], length = spans[i][2];
        uint64_t there = from_offset >= SIZE ? 0 : SIZE - from_offset < length ? SIZE - from_offset : length;
        struct aiod_direct to = open_file(0, to_flags, 5000), from = open_file(1, from_flags, SIZE);
        uint64_t end = offset + there > 5000 && there > 0 ? offset + there : 5000;

        asked = 0;
        CHECK(aiod_copy_range(&to, offset, &from, from_offset, length, &written) == (int64_t)there);
        CHECK(written == there);
        check_size(to.fd, (int64_t)end);
        check_bytes(to.fd, content + from_offset, there, offset);
        check_bytes(to.fd, content, offset < 5000 ? offset : 5000, 0);
        close(to.fd);
        close(from.fd);
    }
}

static void every_way_copies_every_range(int to_flags, int from_flags)
{
    const int errors[] = {EXDEV, EOPNOTSUPP, EINVAL, ENOSYS};

    set_kernel(ABLE, 0);
    copied(to_flags, from_flags);
    set_kernel(SHORT, 0);
    copied(to_flags, from_flags);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        set_kernel(STOPPING, errors[i]);
        copied(to_flags, from_flags);
        CHECK(transfers > 0);
    }
    set_kernel(PREMATURE, 0);
    copied(to_flags, from_flags);
    CHECK(transfers > 0);
}

/* Through the page cache the kernel copies everything. */
static void the_kernel_copies_without_a_buffer(void)
{
    struct aiod_direct to = open_file(0, 0, 0), from = open_file(1, 0, SIZE);

    set_kernel(ABLE, 0);
    CHECK(aiod_copy_range(&to, 0, &from, 0, SIZE, &written) == SIZE);
    CHECK(asked > 0 && transfers == 0);
    close(to.fd);
    close(from.fd);
}

/* ---- within one file --------------------------------------------------------------------------------------------- */

static void ranges_of_one_file_are_copied(int flags, enum kernel kind)
{
    struct aiod_direct file = open_file(0, flags, SIZE), other = file;

    set_kernel(kind, EINVAL);
    other.fd = open_again(file.fd, 0); /* another handle of the same file */
    other.alignment = (struct aiod_alignment){1, 1};
    CHECK(aiod_copy_range(&file, 100, &file, 0, 101, &written) == -EINVAL && written == 0);
    CHECK(aiod_copy_range(&file, 0, &other, 100, 101, &written) == -EINVAL);
    CHECK(aiod_copy_range(&file, 7, &file, 7, 1, &written) == -EINVAL);
    CHECK(aiod_copy_range(&file, 7, &file, 7, 0, &written) == 0);
    check_bytes(file.fd, content, SIZE, 0);
    CHECK(aiod_copy_range(&file, 0, &other, 300000, 300000, &written) == 300000);
    check_bytes(file.fd, content + 300000, 300000, 0);
    /* The copy ends where the source ended at the start, although it makes the file longer. */
    CHECK(aiod_copy_range(&file, 2 * SIZE, &file, SIZE - 400000, SIZE, &written) == 400000);
    check_size(file.fd, 2 * SIZE + 400000);
    check_bytes(file.fd, content + SIZE - 400000, 400000, 2 * SIZE);
    CHECK(ranges_of[0].first == NULL);
    close(file.fd);
    close(other.fd);
}

/* ---- in both directions at once ---------------------------------------------------------------------------------- */

struct copier {
    pthread_t thread;
    const struct aiod_direct *to;
    const struct aiod_direct *from;
};

static void *copy_again_and_again(void *argument)
{
    const struct copier *copier = argument;
    uint64_t done;

    for (int i = 0; i < ROUNDS; i++) {
        CHECK(aiod_copy_range(copier->to, 1, copier->from, 1, 5000, &done) == 5000);
    }
    return NULL;
}

/* Exclusive ranges in both files: no deadlock. */
static void opposite_copies_do_not_deadlock(void)
{
    struct aiod_direct one = open_file(0, O_DIRECT, 5001), two = open_file(1, O_DIRECT, 5001);
    struct copier copiers[2] = {{.to = &one, .from = &two}, {.to = &two, .from = &one}};

    set_kernel(ABLE, 0);
    os.copy_file_range = copy_file_range;
    os.pwritev2 = pwritev2; /* the counting functions are for one thread */
    for (size_t i = 0; i < 2; i++) {
        CHECK(pthread_create(&copiers[i].thread, NULL, copy_again_and_again, &copiers[i]) == 0);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(copiers[i].thread, NULL);
    }
    check_bytes(one.fd, content, 5001, 0);
    check_bytes(two.fd, content, 5001, 0);
    close(one.fd);
    close(two.fd);
    os.copy_file_range = lesser_copy;
    os.pwritev2 = counting_pwritev2;
}

/* ---- failures ---------------------------------------------------------------------------------------------------- */

static ssize_t full_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct iovec cut = *iov;

    if (transfers++ > 0) {
        errno = ENOSPC;
        return -1;
    }
    cut.iov_len = 1234;
    return aiod_os_real.pwritev2(fd, &cut, count, offset, flags);
}

static void an_error_reports_the_bytes_copied(void)
{
    struct aiod_direct to = open_file(0, 0, 0), from = open_file(1, 0, SIZE);
    int fd = from.fd;

    set_kernel(STOPPING, ENOSPC); /* an error that a copy through a buffer would not avoid */
    CHECK(aiod_copy_range(&to, 0, &from, 0, SIZE, &written) == -ENOSPC && written == PART && transfers == 0);
    set_kernel(STOPPING, EXDEV);
    os.pwritev2 = full_pwritev2;
    CHECK(aiod_copy_range(&to, 0, &from, 0, SIZE, &written) == -ENOSPC && written == PART + 1234);
    os.pwritev2 = counting_pwritev2;
    check_bytes(to.fd, content, written, 0);
    from.fd = -1;
    CHECK(aiod_copy_range(&to, 0, &from, 0, SIZE, &written) == -EBADF && written == 0);
    CHECK(ranges_of[0].first == NULL && ranges_of[1].first == NULL); /* all range locks are released */
    close(to.fd);
    close(fd);
}

int main(void)
{
    os = aiod_os_real;
    os.copy_file_range = lesser_copy;
    os.pwritev2 = counting_pwritev2;
    aiod_os = &os;
    for (size_t i = 0; i < sizeof(content); i++) {
        content[i] = i < SIZE ? pattern(i) : 0;
    }
    aiod_buffers_init(&buffers, 1 << 20);
    aiod_range_locks_init(&ranges_of[0]);
    aiod_range_locks_init(&ranges_of[1]);
    every_way_copies_every_range(0, 0);
    every_way_copies_every_range(O_DIRECT, 0);
    every_way_copies_every_range(0, O_DIRECT);
    every_way_copies_every_range(O_DIRECT, O_DIRECT);
    the_kernel_copies_without_a_buffer();
    ranges_of_one_file_are_copied(0, ABLE);
    ranges_of_one_file_are_copied(0, STOPPING);
    ranges_of_one_file_are_copied(O_DIRECT, STOPPING);
    opposite_copies_do_not_deadlock();
    an_error_reports_the_bytes_copied();
    aiod_range_locks_destroy(&ranges_of[0]);
    aiod_range_locks_destroy(&ranges_of[1]);
    aiod_buffers_destroy(&buffers);
    return 0;
}
