/* A block device with sectors of 4096 bytes (a loop device): through the page cache and with O_DIRECT. Needs root. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "ops/copy_range.h"
#include "ops/query_ops.h"
#include "ops/range_io.h"
#include "ops/worker_io.h"
#include "scratch.h"

enum {
    SECTOR = 4096,
    DEVICE = 1024 * SECTOR
};

static struct aiod_buffers buffers;
static struct aiod_range_locks range_locks;
static char wanted[DEVICE];
static uint64_t written;

static int64_t write_at(const struct aiod_direct *device, uint64_t offset, uint64_t length)
{
    struct iovec part = {.iov_base = wanted + offset, .iov_len = length};

    for (uint64_t i = offset; i < offset + length && i < DEVICE; i++) {
        wanted[i] = pattern(i);
    }
    return aiod_direct_write(device, &part, 1, offset, 0, &written);
}

static void check_device(const struct aiod_direct *device)
{
    check_bytes(device->fd, wanted, DEVICE, 0);
}

static void written_and_read(const struct aiod_direct *device)
{
    static char back[2 * SECTOR];

    CHECK(write_at(device, 0, DEVICE) == DEVICE);
    CHECK(write_at(device, 5 * SECTOR + 1, 10000) == 10000);
    CHECK(write_at(device, DEVICE - 1, 1) == 1);
    check_device(device);
    CHECK(aiod_direct_read(device, back, 2 * SECTOR, DEVICE - 10) == 10);
    CHECK(memcmp(back, wanted + DEVICE - 10, 10) == 0);
    CHECK(aiod_direct_read(device, back, SECTOR, DEVICE) == 0);
}

static void past_the_end(const struct aiod_direct *device)
{
    struct iovec part = {.iov_base = wanted, .iov_len = 2 * SECTOR};

    memset(wanted, 'e', 2 * SECTOR);
    memset(wanted + DEVICE - SECTOR, 'e', SECTOR);
    CHECK(aiod_direct_write(device, &part, 1, DEVICE - SECTOR, 0, &written) == -ENOSPC && written == SECTOR);
    part = (struct iovec){.iov_base = wanted, .iov_len = 200};
    CHECK(aiod_direct_write(device, &part, 1, DEVICE - 100, 0, &written) == -ENOSPC && written == 100);
    part = (struct iovec){.iov_base = wanted, .iov_len = 200};
    CHECK(aiod_direct_write(device, &part, 1, DEVICE + 50, 0, &written) == -ENOSPC && written == 0);
    CHECK(aiod_range_write_zeroes(device, DEVICE - 100, 200, 0, &written) == -ENOSPC && written == 100);
    memset(wanted + DEVICE - 100, 0, 100);
    CHECK(aiod_range_write_zeroes(device, DEVICE - 2 * SECTOR, 3 * SECTOR, 0, &written) == -ENOSPC);
    CHECK(written == 2 * SECTOR);
    memset(wanted + DEVICE - 2 * SECTOR, 0, 2 * SECTOR);
    CHECK(aiod_range_write_zeroes(device, DEVICE + 5, 10, AIOD_UNMAP, &written) == -ENOSPC && written == 0);
    CHECK(write_at(device, 0, 2 * SECTOR) == 2 * SECTOR);
    check_device(device);
}

static void zeroed(const struct aiod_direct *device, unsigned flags)
{
    const uint64_t spans[][2] = {
        {0, SECTOR},       {SECTOR + 5, 10}, {3 * SECTOR - 1, 5 * SECTOR}, {50 * SECTOR, DEVICE / 2},
        {77, SECTOR - 77}, {DEVICE - 3, 3}};

    for (size_t i = 0; i < sizeof(spans) / sizeof(*spans); i++) {
        CHECK(aiod_range_write_zeroes(device, spans[i][0], spans[i][1], flags, &written) == 0);
        CHECK(written == spans[i][1]);
        memset(wanted + spans[i][0], 0, spans[i][1]);
        check_device(device);
    }
}

/* BLKZEROOUT does not tell whether it would write. */
static void never_fast_without_unmap(const struct aiod_direct *device)
{
    CHECK(aiod_range_write_zeroes(device, 8 * SECTOR, 100 * SECTOR, AIOD_FAST, &written) == -EOPNOTSUPP);
    CHECK(written == 0);
    check_device(device);
}

static void discarded(const struct aiod_direct *device)
{
    CHECK(aiod_range_discard(device, 8 * SECTOR, 100 * SECTOR) == 0);
    CHECK(write_at(device, 8 * SECTOR, 100 * SECTOR) == 100 * SECTOR); /* its old contents may be read as anything */
    CHECK(aiod_range_discard(device, 8 * SECTOR + 512, SECTOR) == -EINVAL);
    CHECK(aiod_range_discard(device, 8 * SECTOR, 512) == -EINVAL);
    check_device(device);
}

static void what_is_no_file(const struct aiod_direct *device)
{
    struct aiod_extent extents[AIOD_EXTENTS_MAX];
    struct aiod_stat record;

    CHECK(aiod_range_truncate(device, SECTOR) == -EINVAL);
    CHECK(aiod_range_allocate(device, 0, SECTOR, false) == -EOPNOTSUPP);
    CHECK(aiod_range_allocate(device, 0, SECTOR, true) == -EOPNOTSUPP);
    CHECK(aiod_range_allocate(device, 5, 7, false) == -EOPNOTSUPP);
    CHECK(aiod_range_allocate(device, 0, 2 * DEVICE, false) == -EOPNOTSUPP);
    CHECK(aiod_query_extents(device->fd, 10, 2 * DEVICE, extents) == 1);
    CHECK(extents[0].length == DEVICE - 10 && extents[0].flags == 0);
    CHECK(aiod_query_stat(device->fd, &device->alignment, &record) == 0);
    CHECK(record.size == DEVICE && record.block_size == SECTOR);
}

static void copied(const struct aiod_direct *device)
{
    struct aiod_range_locks file_ranges;
    struct aiod_direct file = {
        .fd = scratch_file(0), .buffers = &buffers, .range_locks = &file_ranges, .alignment = {1, 1}};

    aiod_range_locks_init(&file_ranges);
    CHECK(aiod_copy_range(&file, 7, device, 5, DEVICE, &written) == DEVICE - 5);
    check_size(file.fd, DEVICE + 2);
    check_bytes(file.fd, wanted + 5, DEVICE - 5, 7);
    CHECK(aiod_copy_range(device, SECTOR + 1, &file, 7, 3 * SECTOR, &written) == 3 * SECTOR);
    memmove(wanted + SECTOR + 1, wanted + 5, 3 * SECTOR);
    CHECK(aiod_copy_range(device, 100 * SECTOR, device, 0, 3 * SECTOR, &written) == 3 * SECTOR);
    memmove(wanted + 100 * SECTOR, wanted, 3 * SECTOR);
    CHECK(aiod_copy_range(device, DEVICE - 10, &file, 7, 20, &written) == -ENOSPC && written == 10);
    memmove(wanted + DEVICE - 10, wanted + 5, 10);
    check_device(device);
    aiod_range_locks_destroy(&file_ranges);
    close(file.fd);
}

static void every_operation_works(const struct aiod_direct *device)
{
    written_and_read(device);
    past_the_end(device);
    zeroed(device, 0);
    CHECK(write_at(device, 0, DEVICE) == DEVICE);
    zeroed(device, AIOD_UNMAP);
    never_fast_without_unmap(device);
    CHECK(write_at(device, 0, DEVICE) == DEVICE);
    discarded(device);
    what_is_no_file(device);
    copied(device);
}

int main(void)
{
    struct aiod_direct device = {
        .fd = scratch_device(DEVICE, O_DIRECT), .buffers = &buffers, .range_locks = &range_locks};

    if (device.fd < 0) {
        printf("no loop device with sectors of 4096 bytes: %s\n", strerror(-device.fd));
        return STATUS_SKIPPED;
    }
    aiod_buffers_init(&buffers, 1 << 20);
    aiod_range_locks_init(&range_locks);
    CHECK(aiod_alignment_find(device.fd, &device.alignment) == 0);
    CHECK(device.alignment.offset == SECTOR);
    every_operation_works(&device);
    close(device.fd);
    device.fd = scratch_device(DEVICE, 0);
    CHECK(device.fd >= 0);
    device.alignment = (struct aiod_alignment){1, 1};
    every_operation_works(&device);
    close(device.fd);
    aiod_range_locks_destroy(&range_locks);
    aiod_buffers_destroy(&buffers);
    return 0;
}
