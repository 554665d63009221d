/* io_prepare.c - fills requests, and collects the pieces of a payload. */
#include "session/io_prepare.h"

#include <errno.h>
#include <stdlib.h>

#include "session/operations.h"
#include "session/uring_io.h"

#define NS_PER_MS UINT64_C(1000000)

/* The lane of a buffered write without FUA; NULL: none (buffered_writes.h). */
static struct aiod_lane *lane_of(const struct aiod_submission *record, struct aiod_handle *handle)
{
    bool writes = record->op == AIOD_APPEND || (record->op == AIOD_WRITE && (record->flags & AIOD_FUA) == 0);

    return writes && !handle->use.direct ? aiod_buffered_writes_lane(&handle->writes) : NULL;
}

static void prepare_request(struct aiod_request *request, const struct aiod_io_description *description)
{
    const struct aiod_submission *record = description->record;

    request->run = aiod_io_run;
    request->complete = description->complete;
    request->deadline_ns = record->deadline_ms != 0 ? description->arrived_ns + record->deadline_ms * NS_PER_MS : 0;
    request->group = aiod_flush_group(record->op, description->handle);
    request->flow = description->handle->flow;
    request->lane = lane_of(record, description->handle);
    request->cost = aiod_op_cost(record->op, record->length);
    request->cookie = record->cookie;
    request->reason = AIOD_REASON_BY_KERNEL;
    request->queued_ns = description->arrived_ns;
    request->started_ns = 0;
    request->tid = 0;
}

void aiod_io_prepare(struct aiod_io *io, const struct aiod_io_description *description)
{
    const struct aiod_submission *record = description->record;

    io->task.kind = AIOD_TASK_IO;
    prepare_request(&io->task.request, description);
    io->buffers = description->buffers;
    io->handle = description->handle;
    io->op = (enum aiod_op)record->op;
    io->flags = record->flags;
    io->offset = record->offset;
    io->length = record->length;
    io->source = description->source;
    io->source_offset = description->source != NULL ? aiod_op_source_offset(record) : 0;
    io->path = description->path;
    io->name = description->name;
    io->wanted = description->wanted;
    io->opened.fd = io->opened.flush_fd = -1;
    io->data = description->data;
    io->have = description->have;
    io->one_iov = description->piece;
    io->iov = description->piece_count > 1 ? description->pieces : &io->one_iov;
    io->iov_count = description->piece_count;
    io->written = 0;
    io->range_held = false;
    io->task.request.uring = aiod_uring_io_operations(io);
}

bool aiod_io_is_empty(const struct aiod_submission *record)
{
    return (record->op == AIOD_READ || record->op == AIOD_WRITE) && record->length == 0;
}

bool aiod_io_may_read_inline(const struct aiod_submission *record, const struct aiod_handle *handle,
                             uint64_t inline_read_max)
{
    return record->op == AIOD_READ && record->length <= inline_read_max && aiod_handle_reads_inline(handle);
}

static size_t count_pieces(struct aiod_payload **payloads, uint64_t offset, uint64_t length)
{
    size_t count = 1;

    for (uint64_t there = payloads[0]->length - offset; there < length; count++) {
        there += payloads[count]->length;
    }
    return count;
}

int aiod_io_gather(struct aiod_message_io *message, struct aiod_payload **payloads, uint64_t offset, uint64_t length,
                   struct aiod_io_description *description)
{
    size_t count = count_pieces(payloads, offset, length);
    struct iovec *pieces = &description->piece;

    message->payloads = &message->one_payload;
    if (count > 1) {
        pieces = calloc(count, sizeof(*pieces) + sizeof(struct aiod_payload *));
        if (pieces == NULL) {
            return -ENOMEM;
        }
        message->payloads = (struct aiod_payload **)(pieces + count);
        description->pieces = pieces;
    }
    description->piece_count = count;
    for (size_t i = 0; i < count; i++) {
        uint64_t room = payloads[i]->length - offset;
        uint64_t bytes = room < length ? room : length;

        message->payloads[i] = payloads[i];
        payloads[i]->refs++;
        pieces[i] = (struct iovec){.iov_base = (void *)(uintptr_t)(payloads[i]->data + offset), .iov_len = bytes};
        length -= bytes;
        offset = 0;
    }
    return 0;
}
