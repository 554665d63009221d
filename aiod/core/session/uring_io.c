/* uring_io.c - fills the entries of an io_uring, and judges the kernel's results (uring_io.h). */
#include "session/uring_io.h"

#include <errno.h>
#include <liburing.h>

#include "session/async_writes.h"

#define LENGTH_MAX (UINT64_C(512) << 10)
#define WAIT_MAX 1023u /* requests */

/* ---- back-off ---------------------------------------------------------------------------------------------------- */

static struct aiod_uring_backoff *backoff_of(const struct aiod_io *io)
{
    return io->op == AIOD_READ ? &io->handle->uring_reads : &io->handle->uring_writes;
}

/* Is a request to be tried now? */
static bool is_due(struct aiod_uring_backoff *backoff)
{
    uint16_t skip = __atomic_load_n(&backoff->skip, __ATOMIC_RELAXED);

    if (skip > 0) {
        __atomic_store_n(&backoff->skip, (uint16_t)(skip - 1), __ATOMIC_RELAXED);
    }
    return skip == 0;
}

/* While requests are skipped, only those fail that were started before: they have met the same obstacle. */
static void note_failure(struct aiod_uring_backoff *backoff)
{
    unsigned wait = 2u * __atomic_load_n(&backoff->wait, __ATOMIC_RELAXED) + 1;

    if (__atomic_load_n(&backoff->skip, __ATOMIC_RELAXED) > 0) {
        return;
    }
    wait = wait < WAIT_MAX ? wait : WAIT_MAX;
    __atomic_store_n(&backoff->wait, (uint16_t)wait, __ATOMIC_RELAXED);
    __atomic_store_n(&backoff->skip, (uint16_t)wait, __ATOMIC_RELAXED);
}

static void note_success(struct aiod_uring_backoff *backoff)
{
    uint16_t wait = __atomic_load_n(&backoff->wait, __ATOMIC_RELAXED);

    if (wait > 0) {
        __atomic_store_n(&backoff->wait, (uint16_t)(wait / 2), __ATOMIC_RELAXED);
    }
}

/* ---- the thread that polls --------------------------------------------------------------------------------------- */

static uint64_t *moved_bytes(struct aiod_io *io)
{
    return io->op == AIOD_READ ? &io->have : &io->written;
}

static bool lock_range(struct aiod_io *io)
{
    if (!io->range_held) {
        io->range = (struct aiod_range_lock){.start = io->offset, .end = io->offset + io->length};
        io->range_held = aiod_range_lock_try(&io->handle->file->range_locks, &io->range);
    }
    return io->range_held;
}

static void release_range(struct aiod_io *io)
{
    aiod_range_lock_release(&io->handle->file->range_locks, &io->range);
    io->range_held = false;
}

static bool start(struct aiod_request *request, struct io_uring_sqe *sqe)
{
    struct aiod_io *io = (struct aiod_io *)request;
    uint64_t moved = *moved_bytes(io);
    unsigned left = (unsigned)(io->length - moved);

    if (aiod_session_lease_over(io->handle->session) || !lock_range(io)) {
        return false;
    }
    if (io->op == AIOD_READ) {
        io_uring_prep_read(sqe, io->handle->fd, io->data + moved, left, io->offset + moved);
    } else {
        io_uring_prep_write(sqe, io->handle->fd, (char *)io->one_iov.iov_base + moved, left, io->offset + moved);
    }
    sqe->rw_flags = RWF_NOWAIT;
    sqe->ioprio = (uint16_t)io->handle->use.ioprio;
    return true;
}

static bool needs_worker(const struct aiod_io *io, int result)
{
    switch (result) {
    case 0:
        return io->op == AIOD_WRITE;
    case -EAGAIN:
    case -EINTR:
    case -EINVAL:
    case -EOPNOTSUPP:
    case -ECANCELED:
        return true;
    default:
        return false;
    }
}

static int64_t leave_to_worker(struct aiod_io *io)
{
    note_failure(backoff_of(io));
    release_range(io);
    *moved_bytes(io) = 0;
    io->compared = false;
    return AIOD_URING_RUN;
}

/* A read that ends within a block has reached the end of the file. */
static bool is_unfinished(const struct aiod_io *io, int result, uint64_t moved)
{
    return result > 0 && moved < io->length && aiod_is_aligned(moved, io->handle->use.alignment.offset);
}

static int64_t ended(struct aiod_request *request, int result)
{
    struct aiod_io *io = (struct aiod_io *)request;
    uint64_t *moved = moved_bytes(io);

    if (needs_worker(io, result)) {
        return leave_to_worker(io);
    }
    *moved += result > 0 ? (uint64_t)result : 0;
    if (is_unfinished(io, result, *moved)) {
        return AIOD_URING_AGAIN;
    }
    if (io->op == AIOD_WRITE && result > 0 && *moved < io->length) {
        return leave_to_worker(io);
    }
    note_success(backoff_of(io));
    release_range(io);
    if (io->op == AIOD_WRITE) {
        aiod_flush_writer_mark_changed(&io->handle->file->flushes.writers, &io->handle->writer);
        aiod_io_count_latency(io, AIOD_ASYNC_WRITES_STARTED);
    }
    return result < 0 ? result : (int64_t)*moved;
}

/* ---- the thread that prepares the request ------------------------------------------------------------------------ */

static const struct aiod_uring_operations in_company = {.start = start, .ended = ended};
static const struct aiod_uring_operations always = {.start = start, .ended = ended, .also_alone = true};

static bool is_whole_blocks(const struct aiod_io *io, const char *data)
{
    const struct aiod_alignment *alignment = &io->handle->use.alignment;

    return aiod_is_aligned(io->offset | io->length, alignment->offset) &&
           aiod_is_aligned((uintptr_t)data, alignment->memory);
}

static bool may_start_write(struct aiod_io *io)
{
    struct aiod_async_write write;

    if (io->handle->use.uring_alone) {
        return true;
    }
    write = aiod_async_writes_next(&io->handle->async_writes);
    io->compared = write.compared;
    return write.start;
}

static bool is_startable(struct aiod_io *io)
{
    if (!io->handle->use.uring || io->length == 0 || io->length > LENGTH_MAX) {
        return false;
    }
    if (io->op == AIOD_READ) {
        return io->iov_count == 0 && is_whole_blocks(io, io->data);
    }
    return io->op == AIOD_WRITE && io->iov_count == 1 && (io->flags & AIOD_FUA) == 0 &&
           is_whole_blocks(io, io->one_iov.iov_base) && may_start_write(io);
}

const struct aiod_uring_operations *aiod_uring_io_operations(struct aiod_io *io)
{
    io->compared = false;
    if (!is_startable(io)) {
        return NULL;
    }
    if (io->op == AIOD_READ) {
        aiod_async_writes_note_read();
    }
    if (!is_due(backoff_of(io))) {
        return NULL;
    }
    return io->handle->use.uring_alone ? &always : &in_company;
}
