/* EINTR, short transfers, the end of the file, and errors half-way, which worker_io.c handles for all. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "ops/worker_io.h"
#include "scratch.h"

enum {
    SIZE = 10000
};

static char data[SIZE];
static char back[2 * SIZE];

static uint64_t written; /* of the last write */

static int64_t write_whole(int fd, char *bytes, uint64_t length, uint64_t offset)
{
    struct iovec whole = {.iov_base = bytes, .iov_len = length};

    return aiod_io_write(fd, &whole, 1, offset, 0, &written);
}

static void interrupted_and_short_transfers_continue(int fd)
{
    faults.interrupts = 3;
    faults.transfer_max = 7;
    CHECK(write_whole(fd, data, SIZE, 100) == SIZE);
    faults.interrupts = 3;
    CHECK(aiod_io_read(fd, back, SIZE, 100, 0) == SIZE);
    CHECK(memcmp(data, back, SIZE) == 0);
    faults.interrupts = 3;
    CHECK(aiod_io_flush(fd) == 0);
    CHECK(faults.interrupts == 0);
    faults_reset();
}

static void a_read_ends_at_the_end_of_the_file(int fd)
{
    CHECK(aiod_io_read(fd, back, 2 * SIZE, 100, 0) == SIZE);
    CHECK(aiod_io_read(fd, back, SIZE, 100 + SIZE - 1, 0) == 1);
    CHECK(aiod_io_read(fd, back, SIZE, 100 + SIZE, 0) == 0);
    CHECK(aiod_io_read(fd, back, 0, 0, 0) == 0);
    CHECK(aiod_io_size(fd) == 100 + SIZE);
}

static void a_read_continues_after_the_first_bytes(int fd)
{
    memset(back, 'x', sizeof(back));
    CHECK(aiod_io_read(fd, back, SIZE, 100, 4000) == SIZE);
    CHECK(back[0] == 'x' && back[3999] == 'x');
    CHECK(memcmp(back + 4000, data + 4000, SIZE - 4000) == 0);
}

static void an_error_reports_the_bytes_written(int fd)
{
    faults.error = EIO;
    faults.error_after = 5000;
    CHECK(write_whole(fd, data, SIZE, 0) == -EIO && written == 5000);
    faults.error_after = 5000;
    CHECK(aiod_io_read(fd, back, SIZE, 100, 0) == -EIO);
    faults_reset();
    faults.flush_error = EIO;
    CHECK(aiod_io_flush(fd) == -EIO); /* the kernel reports it once: a retry would succeed */
    CHECK(faults.flush_error == 0 && aiod_io_flush(fd) == 0);
}

/* A write of nothing is no progress: an error, not an endless loop. */
static void a_write_of_nothing_is_an_error(int fd)
{
    faults.empty_writes = 1;
    CHECK(write_whole(fd, data, SIZE, 0) == -ENOSPC && written == 0);
    CHECK(faults.empty_writes == 0);
    CHECK(write_whole(fd, data, 0, 0) == 0);
    faults_reset();
}

static void errors_of_the_kernel_are_returned(void)
{
    int fd = open("/dev/full", O_RDWR);

    CHECK(fd >= 0);
    CHECK(write_whole(fd, data, SIZE, 0) == -ENOSPC);
    close(fd);
    CHECK(aiod_io_read(-1, back, 1, 0, 0) == -EBADF);
    CHECK(write_whole(-1, data, 1, 0) == -EBADF);
    CHECK(aiod_io_flush(-1) == -EBADF);
    CHECK(aiod_io_size(-1) == -EBADF);
}

/* Not on tmpfs before Linux 6.6. */
static bool supports_nowait(int fd)
{
    struct iovec byte = {.iov_base = back, .iov_len = 1};

    return preadv2(fd, &byte, 1, 0, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

static void nowait_reads_return_cached_bytes(int fd)
{
    bool supported = supports_nowait(fd);
    bool never = false;
    uint64_t got;

    faults.error = EAGAIN;
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 100, &never) == 0 && !never);
    faults.error = EOPNOTSUPP;
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 100, &never) == 0 && never);
    faults_reset();
    never = false;
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 1000000, &never) == 0); /* the end of the file */
    got = aiod_io_read_nowait(fd, back, SIZE, 100, &never);           /* as much as is cached, with the right bytes */
    CHECK(got <= SIZE && memcmp(back, data, got) == 0 && never == !supported && (supported || got == 0));
}

/* ---- several parts ----------------------------------------------------------------------------------------------- */

/* Split `data` into `count` parts, some of them empty. */
static void part(struct iovec *parts, size_t count)
{
    size_t at = 0;

    for (size_t i = 0; i < count; i++) {
        size_t bytes = i + 1 == count ? SIZE - at : i % 3 == 0 ? 0 : i % 7;

        parts[i] = (struct iovec){.iov_base = data + at, .iov_len = bytes};
        at += bytes;
    }
}

static void vectors_are_written_in_order(void)
{
    static struct iovec parts[2 * IOV_MAX + 5];
    const size_t counts[] = {1, 2, 5, IOV_MAX, IOV_MAX + 1, 2 * IOV_MAX + 5};

    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        int fd = scratch_file(0);

        part(parts, counts[i]);
        faults.interrupts = 1;
        faults.transfer_max = i % 2 == 0 ? 0 : 333;
        CHECK(aiod_io_write(fd, parts, counts[i], 3, RWF_DSYNC, &written) == SIZE && written == SIZE);
        check_size(fd, SIZE + 3);
        check_bytes(fd, data, SIZE, 3);
        faults_reset();
        close(fd);
    }
}

/* ---- appending --------------------------------------------------------------------------------------------------- */

static int64_t append(int fd)
{
    struct iovec parts[5];

    part(parts, 5);
    return aiod_io_append(fd, parts, 5, &written);
}

static void an_append_returns_its_offset(void)
{
    int fd = scratch_file(0);

    CHECK(append(fd) == 0 && written == SIZE);
    CHECK(lseek(fd, 5, SEEK_SET) == 5); /* wherever the file position is */
    faults.interrupts = 2;
    faults.transfer_max = 999;
    CHECK(append(fd) == SIZE && written == SIZE);
    faults_reset();
    check_size(fd, 2 * SIZE);
    check_bytes(fd, data, SIZE, 0);
    check_bytes(fd, data, SIZE, SIZE);
    CHECK(aiod_io_append(fd, NULL, 0, &written) == 2 * SIZE && written == 0);
    close(fd);
}

static void failed_appends_are_reported(void)
{
    int fd = scratch_file(0);

    faults.error = ENOSPC;
    faults.error_after = 4000;
    CHECK(append(fd) == -ENOSPC && written == 4000);
    faults_reset();
    check_bytes(fd, data, 4000, 0);
    CHECK(append(-1) == -EBADF && written == 0);
    close(fd);
}

/* A disk that accepts 4000 bytes; then another process appends. */
static ssize_t pushed_in_between(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    static bool pushed;
    ssize_t put = aiod_os_real.pwritev2(fd, iov, pushed ? count : 1, offset, flags);

    if (!pushed) {
        int other = open_again(fd, O_APPEND);

        pushed = true;
        CHECK(write(other, "!", 1) == 1);
        close(other);
    }
    return put;
}

static void an_interleaved_append_is_an_error(void)
{
    const struct aiod_os *usual = aiod_os;
    struct aiod_os os = *aiod_os;
    struct iovec parts[2] = {{.iov_base = data, .iov_len = 4000}, {.iov_base = data + 4000, .iov_len = 100}};
    int fd = scratch_file(0);

    os.pwritev2 = pushed_in_between;
    aiod_os = &os;
    CHECK(aiod_io_append(fd, parts, 2, &written) == -EIO && written == 4000);
    aiod_os = usual;
    check_size(fd, 4101);
    close(fd);
}

int main(void)
{
    int fd;

    faults_install();
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = (char)(i * 31 >> 3);
    }
    fd = scratch_file(0);
    interrupted_and_short_transfers_continue(fd);
    a_read_ends_at_the_end_of_the_file(fd);
    a_read_continues_after_the_first_bytes(fd);
    nowait_reads_return_cached_bytes(fd);
    an_error_reports_the_bytes_written(fd);
    a_write_of_nothing_is_an_error(fd);
    errors_of_the_kernel_are_returned();
    close(fd);
    vectors_are_written_in_order();
    an_append_returns_its_offset();
    failed_appends_are_reported();
    an_interleaved_append_is_an_error();
    return 0;
}
