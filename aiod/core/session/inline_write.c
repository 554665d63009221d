/* inline_write.c - one attempt of a write with RWF_NOWAIT. */
#include "session/inline_write.h"

#include "ops/worker_io.h"

bool aiod_inline_write_may_try(const struct aiod_submission *record, struct aiod_handle *handle, uint64_t bytes_max)
{
    return record->op == AIOD_WRITE && (record->flags & AIOD_FUA) == 0 && record->length <= bytes_max &&
           !handle->use.direct && !aiod_flow_limited(handle->flow) && aiod_buffered_writes_may_try(&handle->writes);
}

/* The number of bytes that were written. */
static uint64_t write_some(const struct aiod_io *io)
{
    struct aiod_handle *handle = io->handle;
    struct aiod_range_lock range = {.start = io->offset, .end = io->offset + io->length};
    uint64_t bytes;

    if (!aiod_range_lock_try(&handle->file->range_locks, &range)) {
        return 0;
    }
    bytes = aiod_io_write_nowait(handle->fd, io->iov, io->iov_count, io->offset, &handle->writes.never_nowait);
    aiod_range_lock_release(&handle->file->range_locks, &range);
    return bytes;
}

bool aiod_inline_write_try(struct aiod_io *io)
{
    io->have = write_some(io);
    if (io->have > 0) {
        aiod_flush_writer_mark_changed(&io->handle->file->flushes.writers, &io->handle->writer);
        io->task.request.begun = true;
        io->task.request.deadline_ns = 0;
        io->written = io->have;
    }
    if (io->have < io->length) {
        aiod_buffered_writes_failed(&io->handle->writes);
    }
    return io->have == io->length;
}
