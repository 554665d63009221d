/* copy_range.c - COPY_RANGE: copy_file_range() first, then reads and writes through a buffer. */
#include "ops/copy_range.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "ops/worker_io.h"
#include "util/os.h"

#define STEP_BYTES AIOD_DIRECT_STEP_BYTES

struct copy {
    const struct aiod_direct *to;
    const struct aiod_direct *from;
    uint64_t offset;
    uint64_t from_offset;
    uint64_t length;
    uint64_t done;
};

/* ---- range locks ------------------------------------------------------------------------------------------------- */

static bool within_one_file(const struct copy *copy)
{
    return copy->to->range_locks == copy->from->range_locks;
}

static bool overlapping(const struct copy *copy)
{
    return copy->offset < copy->from_offset + copy->length && copy->from_offset < copy->offset + copy->length;
}

/* Within one file both ranges are locked by a single lock that spans them; `from` is not used then. */
static void choose_ranges(const struct copy *copy, struct aiod_range_lock *to, struct aiod_range_lock *from)
{
    *to = aiod_direct_range_lock(copy->to, copy->offset, copy->length);
    *from = (struct aiod_range_lock){.start = copy->from_offset, .end = copy->from_offset + copy->length};
    if (within_one_file(copy)) {
        to->start = from->start < to->start ? from->start : to->start;
        to->end = from->end > to->end ? from->end : to->end;
    }
}

/*
 * Lock order: the file whose aiod_range_locks has the lower address first. Otherwise two copies in opposite directions
 * could deadlock.
 */
static void lock_ranges(const struct copy *copy, struct aiod_range_lock *to, struct aiod_range_lock *from)
{
    bool from_first = (uintptr_t)copy->from->range_locks < (uintptr_t)copy->to->range_locks;

    if (from_first) {
        aiod_range_lock_acquire(copy->from->range_locks, from);
    }
    aiod_range_lock_acquire(copy->to->range_locks, to);
    if (!from_first && !within_one_file(copy)) {
        aiod_range_lock_acquire(copy->from->range_locks, from);
    }
}

static void unlock_ranges(const struct copy *copy, struct aiod_range_lock *to, struct aiod_range_lock *from)
{
    aiod_range_lock_release(copy->to->range_locks, to);
    if (!within_one_file(copy)) {
        aiod_range_lock_release(copy->from->range_locks, from);
    }
}

/* ---- copying ----------------------------------------------------------------------------------------------------- */

/* 0 if everything was copied or the kernel reports the end of the source; or -errno. */
static int64_t copy_in_kernel(struct copy *copy)
{
    while (copy->done < copy->length) {
        off_t from = (off_t)(copy->from_offset + copy->done);
        off_t to = (off_t)(copy->offset + copy->done);
        ssize_t copied =
            aiod_os->copy_file_range(copy->from->fd, &from, copy->to->fd, &to, copy->length - copy->done, 0);

        if (copied == 0) {
            break;
        }
        if (copied > 0) {
            copy->done += (uint64_t)copied;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

/* 0 if everything was copied or the source ended; or -errno. */
static int64_t copy_through_buffer(struct copy *copy)
{
    struct aiod_buffer *buffer = aiod_buffer_get(copy->to->buffers, STEP_BYTES);
    int64_t result = buffer == NULL ? -ENOMEM : 0;

    while (result >= 0 && copy->done < copy->length) {
        uint64_t step = copy->length - copy->done < STEP_BYTES ? copy->length - copy->done : STEP_BYTES;
        struct iovec part = {.iov_base = buffer->data};
        uint64_t put;

        result = aiod_direct_read_locked(copy->from, buffer->data, step, copy->from_offset + copy->done);
        if (result <= 0) {
            break;
        }
        part.iov_len = (size_t)result;
        result = aiod_direct_write_locked(copy->to, &part, 1, copy->offset + copy->done, 0, &put);
        copy->done += put;
    }
    aiod_buffer_put(buffer);
    return result < 0 ? result : 0;
}

/* Block devices, different file systems, FUSE, and O_DIRECT where splicing would be misaligned. */
static bool is_unsupported_by_kernel(int64_t result)
{
    return result == -EXDEV || result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS;
}

static int64_t copy_locked(struct copy *copy)
{
    int64_t size = aiod_io_size(copy->from->fd);
    int64_t result;

    if (size < 0) {
        return size;
    }
    if ((uint64_t)size <= copy->from_offset) {
        return 0;
    }
    /*
     * Fixed at the start: a copy to behind the end of its own source would otherwise continue with the bytes it wrote.
     */
    if ((uint64_t)size - copy->from_offset < copy->length) {
        copy->length = (uint64_t)size - copy->from_offset;
    }
    result = copy_in_kernel(copy);
    if (copy->done < copy->length && (result == 0 || is_unsupported_by_kernel(result))) {
        /* also at a premature end, which some file systems report: the reads will show whether it is one */
        result = copy_through_buffer(copy);
    }
    return result < 0 ? result : (int64_t)copy->done;
}

int64_t aiod_copy_range(const struct aiod_direct *to, uint64_t offset, const struct aiod_direct *from,
                        uint64_t from_offset, uint64_t length, uint64_t *written)
{
    struct copy copy = {
        .to = to, .from = from, .offset = offset, .from_offset = from_offset, .length = length, .done = 0};
    struct aiod_range_lock to_range, from_range;
    int64_t result;

    *written = 0;
    if (length == 0) {
        return 0;
    }
    if (within_one_file(&copy) && overlapping(&copy)) {
        return -EINVAL;
    }
    choose_ranges(&copy, &to_range, &from_range);
    lock_ranges(&copy, &to_range, &from_range);
    result = copy_locked(&copy);
    unlock_ranges(&copy, &to_range, &from_range);
    *written = copy.done;
    return result;
}
