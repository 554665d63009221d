/* EINTR, short transfers, the end of the file, errors half-way: one file owns them all. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "worker_io.h"

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

static int scratch_file(void)
{
    char name[] = "/var/tmp/aiod-core-test-XXXXXX";
    int fd = mkstemp(name);

    CHECK(fd >= 0);
    CHECK(unlink(name) == 0);
    return fd;
}

static void interrupted_and_short_transfers_go_on(int fd)
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

static void the_end_of_the_file(int fd)
{
    CHECK(aiod_io_read(fd, back, 2 * SIZE, 100, 0) == SIZE);
    CHECK(aiod_io_read(fd, back, SIZE, 100 + SIZE - 1, 0) == 1);
    CHECK(aiod_io_read(fd, back, SIZE, 100 + SIZE, 0) == 0);
    CHECK(aiod_io_read(fd, back, 0, 0, 0) == 0);
    CHECK(aiod_io_size(fd) == 100 + SIZE);
}

static void a_part_is_there_already(int fd)
{
    memset(back, 'x', sizeof(back));
    CHECK(aiod_io_read(fd, back, SIZE, 100, 4000) == SIZE);
    CHECK(back[0] == 'x' && back[3999] == 'x');
    CHECK(memcmp(back + 4000, data + 4000, SIZE - 4000) == 0);
}

static void errors_half_way(int fd)
{
    faults.error = EIO;
    faults.error_after = 5000;
    CHECK(write_whole(fd, data, SIZE, 0) == -EIO);
    faults.error_after = 5000;
    CHECK(aiod_io_read(fd, back, SIZE, 100, 0) == -EIO);
    faults_reset();
    faults.flush_error = EIO;
    CHECK(aiod_io_flush(fd) == -EIO); /* once is enough: tried again, the kernel would say that all is well */
    CHECK(faults.flush_error == 0 && aiod_io_flush(fd) == 0);
}

/* A write that carries nothing is no progress: an error, not an endless loop. */
static void empty_writes(int fd)
{
    faults.empty_writes = 1;
    CHECK(write_whole(fd, data, SIZE, 0) == -ENOSPC);
    CHECK(faults.empty_writes == 0);
    CHECK(write_whole(fd, data, 0, 0) == 0);
    faults_reset();
}

static void errors_of_the_kernel(void)
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

static void without_blocking(int fd)
{
    uint64_t got;

    faults.error = EAGAIN;
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 100) == 0);
    faults.error = EOPNOTSUPP;
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 100) == 0);
    faults_reset();
    CHECK(aiod_io_read_nowait(fd, back, SIZE, 1000000) == 0); /* the end of the file */
    got = aiod_io_read_nowait(fd, back, SIZE, 100);           /* as much as is cached, and right */
    CHECK(got <= SIZE && memcmp(back, data, got) == 0);
}

int main(void)
{
    int fd;

    faults_install();
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = (char)(i * 31 >> 3);
    }
    fd = scratch_file();
    interrupted_and_short_transfers_go_on(fd);
    the_end_of_the_file(fd);
    a_part_is_there_already(fd);
    without_blocking(fd);
    errors_half_way(fd);
    empty_writes(fd);
    errors_of_the_kernel();
    close(fd);
    return 0;
}
