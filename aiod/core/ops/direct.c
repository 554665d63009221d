/* direct.c - aligned, bounced and padded transfers for O_DIRECT (direct.h). */
#include "ops/direct.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "ops/worker_io.h"
#include "util/iov.h"
#include "util/memory_guard.h"
#include "util/os.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The number of bytes from `offset` that fit in one bounce buffer, which starts at a block boundary. */
static uint64_t step_at(const struct aiod_direct *file, uint64_t offset)
{
    return AIOD_DIRECT_STEP_BYTES - (offset - aiod_align_down(offset, file->alignment.offset));
}

/* Of `moved` bytes of a buffer, the number of those behind the first `skew` bytes; at most `length`. */
static uint64_t part_of(uint64_t moved, uint64_t skew, uint64_t length)
{
    return moved <= skew ? 0 : min_u64(moved - skew, length);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

/* At most step_at() bytes. */
static int64_t read_bounced(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset)
{
    uint32_t block = file->alignment.offset;
    uint64_t start = aiod_align_down(offset, block);
    uint64_t blocks = aiod_align_up(offset + length, block) - start;
    struct aiod_buffer *bounce = aiod_buffer_get(file->buffers, blocks);
    int64_t got;

    if (bounce == NULL) {
        return -ENOMEM;
    }
    got = aiod_io_read_blocks(file->fd, bounce->data, blocks, start, block);
    if (got >= 0) {
        got = (int64_t)part_of((uint64_t)got, offset - start, length);
        memcpy(data, bounce->data + (offset - start), (size_t)got);
    }
    aiod_buffer_put(bounce);
    return got;
}

/* Read as many of the `*length` bytes as one transfer can, and store that number there. */
static int64_t read_some(const struct aiod_direct *file, char *data, uint64_t *length, uint64_t offset)
{
    uint32_t block = file->alignment.offset;

    if (aiod_is_aligned(offset, block) && aiod_is_aligned((uintptr_t)data, file->alignment.memory) &&
        *length >= block) {
        *length = aiod_align_down(*length, block);
        return aiod_io_read_blocks(file->fd, data, *length, offset, block);
    }
    *length = min_u64(*length, step_at(file, offset));
    return read_bounced(file, data, *length, offset);
}

int64_t aiod_direct_read_locked(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset)
{
    uint64_t have = 0;

    while (have < length) {
        uint64_t asked = length - have;
        int64_t got = read_some(file, data + have, &asked, offset + have);

        if (got < 0) {
            return got;
        }
        have += (uint64_t)got;
        if ((uint64_t)got < asked) {
            break;
        }
    }
    return (int64_t)have;
}

int64_t aiod_direct_read(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset)
{
    struct aiod_range_lock range = {.start = offset, .end = offset + length};
    int64_t got;

    aiod_range_lock_acquire(file->range_locks, &range);
    got = aiod_direct_read_locked(file, data, length, offset);
    aiod_range_lock_release(file->range_locks, &range);
    return got;
}

/* Part by part: a part that is not aligned is bounced. */
static int64_t read_parts(const struct aiod_direct *file, const struct iovec *iov, size_t count, uint64_t offset)
{
    uint64_t have = 0;

    for (size_t i = 0; i < count; i++) {
        int64_t got = aiod_direct_read_locked(file, iov[i].iov_base, iov[i].iov_len, offset + have);

        if (got < 0) {
            return got;
        }
        have += (uint64_t)got;
        if ((uint64_t)got < iov[i].iov_len) {
            break;
        }
    }
    return (int64_t)have;
}

static bool is_straight(const struct aiod_direct *file, const struct aiod_iov *iov)
{
    for (size_t i = 0; i < iov->count; i++) {
        const struct iovec *part = &iov->entries[i];

        if (!aiod_is_aligned((uintptr_t)part->iov_base, file->alignment.memory) ||
            !aiod_is_aligned(part->iov_len, file->alignment.offset)) {
            return false;
        }
    }
    return true;
}

int64_t aiod_direct_readv(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset)
{
    const struct aiod_iov whole = {iov, count};
    struct aiod_range_lock range = {.start = offset, .end = offset + aiod_iov_bytes(&whole)};
    int64_t got;

    aiod_range_lock_acquire(file->range_locks, &range);
    if (is_straight(file, &whole) && aiod_is_aligned(offset, file->alignment.offset)) {
        got = aiod_io_readv(file->fd, iov, count, offset, file->alignment.offset);
    } else {
        got = read_parts(file, iov, count, offset);
    }
    aiod_range_lock_release(file->range_locks, &range);
    return got;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

/* The bytes behind the end of the file are read as zeroes. */
static int64_t read_block(const struct aiod_direct *file, char *data, uint64_t offset)
{
    uint32_t block = file->alignment.offset;
    int64_t got = aiod_io_read_blocks(file->fd, data, block, offset, block);

    if (got < 0) {
        return got;
    }
    memset(data + got, 0, block - (size_t)got);
    return 0;
}

/*
 * Of the blocks that contain the `length` bytes at `offset`, read the first and the last one into `data` if the bytes
 * do not fill them.
 */
static int64_t read_edges(const struct aiod_direct *file, char *data, uint64_t offset, uint64_t length)
{
    uint32_t block = file->alignment.offset;
    uint64_t start = aiod_align_down(offset, block);
    uint64_t last = aiod_align_down(offset + length, block);
    bool head = start < offset;
    int64_t error = head ? read_block(file, data, start) : 0;

    if (error == 0 && last < offset + length && (last > start || !head)) {
        error = read_block(file, data + (last - start), last);
    }
    return error;
}

/* At most step_at() bytes of `left`. */
static int64_t write_bounced(const struct aiod_direct *file, struct aiod_iov *left, uint64_t length, uint64_t offset,
                             int flags, uint64_t *written)
{
    uint64_t start = aiod_align_down(offset, file->alignment.offset);
    uint64_t blocks = aiod_align_up(offset + length, file->alignment.offset) - start;
    struct aiod_buffer *bounce = aiod_buffer_get(file->buffers, blocks);
    const void *from = left->entries->iov_base;
    int64_t result;

    *written = 0;
    if (bounce == NULL) {
        return -ENOMEM;
    }
    result = read_edges(file, bounce->data, offset, length);
    if (result == 0) {
        struct iovec whole = {.iov_base = bounce->data, .iov_len = blocks};
        uint64_t put = 0;

        aiod_iov_gather(left, bounce->data + (offset - start), length);
        /* A missing page was replaced by a spare page during the copy; a system call would have returned EFAULT. */
        result =
            aiod_memory_guard_page_lost_at(from) ? -EFAULT : aiod_io_write(file->fd, &whole, 1, start, flags, &put);
        *written = part_of(put, offset - start, length);
    }
    aiod_buffer_put(bounce);
    return result;
}

static int64_t write_in_steps(const struct aiod_direct *file, struct aiod_iov *left, uint64_t length, uint64_t offset,
                              int flags, uint64_t *written)
{
    *written = 0;
    while (*written < length) {
        uint64_t at = offset + *written;
        uint64_t put;
        int64_t result = write_bounced(file, left, min_u64(length - *written, step_at(file, at)), at, flags, &put);

        *written += put;
        if (result < 0) {
            return result;
        }
    }
    return (int64_t)length;
}

/*
 * Truncate the file to `size` if whole blocks, up to `padded`, made it larger. A size beyond `padded` was set by
 * another process, and stays.
 */
static int64_t truncate_padding(int fd, int64_t size, int64_t padded, int flags)
{
    int64_t now = aiod_io_size(fd);
    int64_t error;

    if (now < 0 || now <= size || now > padded) {
        return now < 0 ? now : 0;
    }
    error = aiod_io_truncate(fd, (uint64_t)size);
    return error == 0 && (flags & (RWF_DSYNC | RWF_SYNC)) != 0 ? aiod_io_flush(fd) : error;
}

/*
 * Write whole blocks around the rest, then cut the padding off. If the file ends before these blocks, other requests
 * may let it grow up to them meanwhile: bytes in front of the blocks are never cut off, even if nothing was written.
 */
static int64_t write_padded(const struct aiod_direct *file, struct aiod_iov *left, uint64_t length, uint64_t offset,
                            int flags, uint64_t *written)
{
    int64_t size = aiod_io_size(file->fd);
    int64_t padded = (int64_t)aiod_align_up(offset + length, file->alignment.offset);
    int64_t result, error, ours;

    *written = 0;
    if (size < 0) {
        return size;
    }
    result = write_in_steps(file, left, length, offset, flags, written);
    if (padded <= size) {
        return result;
    }
    ours = (int64_t)(*written > 0 ? offset + *written : aiod_align_down(offset, file->alignment.offset));
    error = truncate_padding(file->fd, ours > size ? ours : size, padded, result < 0 ? 0 : flags);
    return result < 0 || error == 0 ? result : error;
}

/*
 * The kernel truncates a write at RLIMIT_FSIZE, and may then refuse the misaligned rest with EINVAL. The correct error
 * is EFBIG.
 */
static int64_t explain_invalid(int64_t result, uint64_t end)
{
    struct rlimit limit;

    return result == -EINVAL && getrlimit(RLIMIT_FSIZE, &limit) == 0 && end > limit.rlim_cur ? -EFBIG : result;
}

/*
 * With half of this the flooding client of benchmarks.fairness lost 42 % of its throughput, and the reader gained
 * little.
 */
#define SHARED_STEP_BYTES (UINT64_C(512) << 10)

/*
 * A disk does not interrupt a request: with steps another client's request waits for one step, not for the whole write.
 */
static int64_t write_straight_in_steps(const struct aiod_direct *file, const struct iovec *whole, uint64_t offset,
                                       uint64_t *written)
{
    for (uint64_t done = 0; done < whole->iov_len; done = *written) {
        uint64_t left = whole->iov_len - done;
        struct iovec step = {.iov_base = (char *)whole->iov_base + done,
                             .iov_len = left < SHARED_STEP_BYTES ? left : SHARED_STEP_BYTES};
        int64_t result = aiod_io_write(file->fd, &step, 1, offset + done, 0, written);

        *written += done;
        if (result < 0) {
            return result;
        }
    }
    return (int64_t)whole->iov_len;
}

int64_t aiod_direct_write_locked(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset,
                                 int flags, uint64_t *written)
{
    struct aiod_iov left = {iov, count};
    uint64_t length = aiod_iov_bytes(&left);

    int64_t result;

    if (!aiod_is_aligned(offset | length, file->alignment.offset)) {
        result = write_padded(file, &left, length, offset, flags, written);
    } else if (!is_straight(file, &left)) {
        result = write_in_steps(file, &left, length, offset, flags, written);
    } else if (file->in_steps && count == 1 && flags == 0 && file->alignment.offset > 1) {
        result = write_straight_in_steps(file, iov, offset, written);
    } else {
        result = aiod_io_write(file->fd, iov, count, offset, flags, written);
    }
    return explain_invalid(result, offset + length);
}

/* ---- range locks ------------------------------------------------------------------------------------------------- */

struct aiod_range_lock aiod_direct_range_lock(const struct aiod_direct *file, uint64_t offset, uint64_t length)
{
    if (file->alignment.offset == 1) {
        return (struct aiod_range_lock){.start = offset, .end = offset + length};
    }
    return (struct aiod_range_lock){
        .start = aiod_align_down(offset, file->alignment.offset), .end = AIOD_RANGE_END, .exclusive = true};
}

/*
 * A write of a part of a block locks its blocks before it reads the file's size, which then cannot come to lie within
 * them. If the blocks reach past the end of the file, it locks again, up to AIOD_RANGE_END.
 */
static void lock_for_write(const struct aiod_direct *file, struct aiod_range_lock *range, uint64_t offset,
                           uint64_t length)
{
    *range = (struct aiod_range_lock){.start = offset, .end = offset + length};
    if (aiod_is_aligned(offset | length, file->alignment.offset)) {
        aiod_range_lock_acquire(file->range_locks, range);
        return;
    }
    range->start = aiod_align_down(offset, file->alignment.offset);
    range->end = aiod_align_up(offset + length, file->alignment.offset);
    range->exclusive = true;
    aiod_range_lock_acquire(file->range_locks, range);
    if ((uint64_t)aiod_io_size(file->fd) < range->end) {
        aiod_range_lock_release(file->range_locks, range);
        range->end = AIOD_RANGE_END;
        aiod_range_lock_acquire(file->range_locks, range);
    }
}

int64_t aiod_direct_write(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset, int flags,
                          uint64_t *written)
{
    uint64_t length = aiod_iov_bytes(&(struct aiod_iov){iov, count});
    struct aiod_range_lock range;
    int64_t result;

    *written = 0;
    if (length == 0) {
        return 0;
    }
    lock_for_write(file, &range, offset, length);
    result = aiod_direct_write_locked(file, iov, count, offset, flags, written);
    aiod_range_lock_release(file->range_locks, &range);
    return result;
}
