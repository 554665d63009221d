/*
 * admission.c - validates a SUBMIT batch, so that the code that executes a request need not check it again.
 *
 * Two passes. The first checks the batch as a message (counts, frames, twice the credit). An error there is a mistake
 * of the client, and nothing is executed. The second checks each record; a refused record gets its errno, and the
 * others continue. Main loop's thread only.
 */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ops/worker_io.h"
#include "pool/request_list.h"
#include "session/io_prepare.h"
#include "session/operations.h"
#include "session/trace.h"
#include "util/os.h"
#include "util/probes.h"

#define AIOD_PAYLOADS_MAX 1024u /* frames per message */

/* The state of the second pass. */
struct batch {
    struct aiod_core *core;
    struct aiod_session *session;
    struct aiod_payload **payloads;
    struct aiod_reply *reply;
    uint64_t arrived_ns;
    uint64_t now_ns;      /* updated after each step that takes time */
    uint64_t small_bytes; /* of small reads that follow in the batch */
    uint64_t inline_bytes;
    struct aiod_request_list queued; /* for the pool */
};

static struct aiod_submission record_at(const void *records, size_t index)
{
    struct aiod_submission record;

    memcpy(&record, (const char *)records + index * sizeof(record), sizeof(record));
    return record;
}

/* ---- the first pass ---------------------------------------------------------------------------------------------- */

/* The payload of a record must exist, in one frame or in several consecutive ones. Marks those frames. */
static bool payload_exists(const struct aiod_submission *record, struct aiod_payload **payloads, size_t payload_count,
                           bool *used)
{
    uint64_t there = 0;

    if (!aiod_op_has_payload(record->op) || record->length == 0) {
        return true;
    }
    if (record->frame >= payload_count || record->frame_offset >= payloads[record->frame]->length) {
        return false;
    }
    for (size_t frame = record->frame; frame < payload_count; frame++) {
        used[frame] = true;
        there += payloads[frame]->length - (frame == record->frame ? record->frame_offset : 0);
        if (there >= record->length) {
            return true;
        }
    }
    return false;
}

static const char *check_payloads(const void *records, size_t count, struct aiod_payload **payloads,
                                  size_t payload_count)
{
    bool used[AIOD_PAYLOADS_MAX] = {false};

    if (payload_count > AIOD_PAYLOADS_MAX) {
        return "more than 1024 payload frames";
    }
    for (size_t i = 0; i < count; i++) {
        struct aiod_submission record = record_at(records, i);

        if (!payload_exists(&record, payloads, payload_count, used)) {
            return "a record refers to a payload frame, or to bytes in it, that do not exist";
        }
    }
    for (size_t i = 0; i < payload_count; i++) {
        if (!used[i]) {
            return "no record refers to a payload frame";
        }
    }
    return NULL;
}

static const char *check_batch(struct aiod_session *session, uint64_t received, const void *records, size_t count,
                               struct aiod_payload **payloads, size_t payload_count)
{
    if (!aiod_session_acknowledge(session, received)) {
        return "the count of received completions is wrong";
    }
    if (count > session->limits.batch_max) {
        return "more records than batch_max";
    }
    if (aiod_session_unacknowledged(session) + count > (uint64_t)session->limits.depth_max * 2) {
        return "over twice the credit";
    }
    return check_payloads(records, count, payloads, payload_count);
}

/* ---- the second pass --------------------------------------------------------------------------------------------- */

static void refuse(struct batch *batch, const struct aiod_submission *record, uint64_t charged, int error,
                   enum aiod_reason reason)
{
    struct aiod_failure failure = {
        .handle = record->handle,
        .op = aiod_op_known(record->op) ? (enum aiod_op)record->op : AIOD_OPS,
        .reason = reason,
        .error = error,
        .offset = record->offset,
        .length = record->length,
    };

    if (aiod_op_known(record->op)) {
        struct aiod_session *session = batch->session;
        const struct aiod_handle *handle = aiod_handle_find(session, record->handle);

        aiod_stats_refuse(aiod_core_stats_of(batch->core, handle), session->transport, failure.op, error);
        aiod_stats_refuse(&session->stats, session->transport, failure.op, error);
    }
    aiod_session_complete(batch->session, charged);
    aiod_reply_add(batch->reply, record->cookie, -error, 0);
    aiod_reply_add_failure(batch->reply, &failure);
}

/* Complete a record that needed no worker. */
static void complete_inline(struct batch *batch, const struct aiod_submission *record, const struct aiod_handle *handle,
                            uint64_t started_ns)
{
    struct aiod_session *session = batch->session;
    struct aiod_timing timing = {
        .latency_ns = batch->now_ns - batch->arrived_ns,
        .service_ns = batch->now_ns - started_ns,
        .ended_ns = batch->now_ns,
        .started = true,
        .inlined = true,
    };

    aiod_stats_record(aiod_core_stats_of(batch->core, handle), session->transport, record->op, record->length, 0,
                      &timing);
    aiod_stats_record(&session->stats, session->transport, record->op, record->length, 0, &timing);
    aiod_session_complete(session, record->length);
    aiod_trace_done(NULL, &timing, session->client, record->cookie, record->op, record->length, 0);
    AIOD_PROBE6(request_done, NULL, session->client, record->cookie, (int)record->op, (uint64_t)record->length, 0);
}

/* Account for the request, and queue it for the pool. */
static void queue_io(struct batch *batch, struct aiod_message_io *message)
{
    struct aiod_session *session = batch->session;
    struct aiod_io *io = &message->io;

    message->next = session->inflight;
    if (message->next != NULL) {
        message->next->previous = message;
    }
    session->inflight = message;
    session->inflight_count++;
    aiod_session_ref(session);
    io->handle->inflight++;
    if (io->source != NULL) {
        io->source->inflight++;
    }
    batch->core->inflight++;
    batch->core->bytes_inflight += message->charged;
    aiod_request_list_append(&batch->queued, &io->task.request);
    AIOD_PROBE5(request_submit, &io->task.request, session->client, message->cookie, (int)io->op, io->length);
}

/*
 * Allocate the request of an admitted record, with its buffer and payload. NULL if there is no memory. Takes `buffer`.
 */
static struct aiod_message_io *make_io(struct batch *batch, struct aiod_io_description *description,
                                       struct aiod_buffer *buffer)
{
    const struct aiod_submission *record = description->record;
    uint64_t result_bytes = aiod_op_result_bytes(record->op, record->length);
    struct aiod_message_io *message = calloc(1, sizeof(*message));
    int error = message == NULL ? -ENOMEM : 0;

    if (result_bytes > 0 && buffer == NULL) {
        buffer = aiod_buffer_get(&batch->core->buffers, result_bytes);
        error = buffer == NULL ? -ENOMEM : error;
    }
    if (error == 0 && aiod_op_has_payload(record->op) && record->length > 0) {
        error =
            aiod_io_gather(message, batch->payloads + record->frame, record->frame_offset, record->length, description);
    }
    if (error < 0) {
        aiod_buffer_put(buffer);
        free(message);
        return NULL;
    }
    description->data = buffer != NULL ? buffer->data : NULL;
    aiod_io_prepare(&message->io, description);
    message->session = batch->session;
    message->cookie = record->cookie;
    message->charged = aiod_op_charged(record->op) ? record->length : 0;
    message->buffer = buffer;
    return message;
}

/*
 * Try the read from the page cache (RWF_NOWAIT). True: completed. False: a worker must read the rest; the first `*have`
 * bytes are in `*buffer`. A short read says nothing about the end of the file.
 */
static bool read_inline(struct batch *batch, const struct aiod_submission *record, struct aiod_handle *handle,
                        struct aiod_buffer **buffer, uint64_t *have)
{
    bool small = record->length < AIOD_SHARED_PAYLOAD_MAX;
    uint64_t started_ns = batch->now_ns;
    uint64_t got;
    char *data;

    if (!small) {
        *buffer = aiod_buffer_get(&batch->core->buffers, record->length);
    }
    data = small ? aiod_reply_reserve(batch->reply, record->length, batch->small_bytes)
                 : (*buffer != NULL ? (*buffer)->data : NULL);
    if (data == NULL) {
        return false;
    }
    got = aiod_io_read_nowait(handle->fd, data, record->length, record->offset, &handle->never_nowait);
    batch->now_ns = aiod_now_ns();
    if (got < record->length) {
        if (small && got > 0) {
            *buffer = aiod_buffer_get(&batch->core->buffers, record->length);
            if (*buffer != NULL) {
                memcpy((*buffer)->data, data, got);
            }
        }
        *have = *buffer != NULL ? got : 0;
        return false;
    }
    complete_inline(batch, record, handle, started_ns);
    batch->inline_bytes += got;
    if (small) {
        aiod_reply_add_shared(batch->reply, record->cookie, (int64_t)got);
    } else {
        aiod_reply_add_frame(batch->reply, record->cookie, (int64_t)got, *buffer);
    }
    return true;
}

static bool may_read_inline(const struct batch *batch, const struct aiod_submission *record,
                            const struct aiod_handle *handle)
{
    return aiod_io_may_read_inline(record, handle, batch->core->inline_read_max) &&
           batch->inline_bytes + record->length <= AIOD_INLINE_BATCH_BYTES_MAX;
}

/* Complete an admitted record here, or queue it to the pool. 0, or an errno. */
static int execute_or_queue(struct batch *batch, const struct aiod_submission *record, struct aiod_handle *handle,
                            struct aiod_handle *source)
{
    struct aiod_io_description description = {
        .record = record,
        .handle = handle,
        .source = source,
        .buffers = &batch->core->buffers,
        .arrived_ns = batch->arrived_ns,
    };
    struct aiod_buffer *buffer = NULL;
    struct aiod_message_io *message;

    if (aiod_io_is_empty(record)) {
        complete_inline(batch, record, handle, batch->now_ns);
        aiod_reply_add(batch->reply, record->cookie, 0, 0);
        return 0;
    }
    if (may_read_inline(batch, record, handle) && read_inline(batch, record, handle, &buffer, &description.have)) {
        return 0;
    }
    message = make_io(batch, &description, buffer);
    if (message == NULL) {
        return ENOMEM;
    }
    queue_io(batch, message);
    return 0;
}

/*
 * A repeated request (AIOD_REPEAT) is accepted while no new requests are, and where the handle has regained an exclusive
 * lock: nobody else can have written there since the request was sent first. Removes the flag.
 */
static int check_repeat(const struct aiod_core *core, struct aiod_submission *record, const struct aiod_handle *handle,
                        enum aiod_reason *reason)
{
    if ((record->flags & AIOD_REPEAT) == 0) {
        return 0;
    }
    record->flags &= (uint16_t)~AIOD_REPEAT;
    if (aiod_op_may_repeat(record->op) &&
        (core->takes_repeats || aiod_core_lock_covers(handle, record->offset, record->length))) {
        return 0;
    }
    *reason = AIOD_REASON_LATE;
    return EIO;
}

/* As aiod_op_check(), of a request by message. */
static int check_record(const struct aiod_session *session, const struct aiod_submission *record,
                        const struct aiod_handle *handle, enum aiod_reason *reason)
{
    if (aiod_op_by_ring_only(record->op)) {
        *reason = AIOD_REASON_BAD_ENTRY;
        return EINVAL;
    }
    return aiod_op_check(record, handle, session->limits.request_bytes_max, reason);
}

static void admit(struct batch *batch, struct aiod_submission *record)
{
    struct aiod_session *session = batch->session;
    bool fits = aiod_op_charged(record->op) && record->length <= session->limits.request_bytes_max;
    uint64_t charged = fits ? record->length : 0;
    struct aiod_handle *handle = aiod_handle_find(session, record->handle);
    struct aiod_handle *source = NULL;
    enum aiod_reason reason = AIOD_REASON_BY_KERNEL;
    int error;

    if (batch->core->draining) {
        session->submitted++;
        refuse(batch, record, 0, ESHUTDOWN, AIOD_REASON_STOPPING);
        return;
    }
    if (!aiod_session_charge(session, charged)) {
        refuse(batch, record, 0, EAGAIN, AIOD_REASON_OVER_CREDIT);
        return;
    }
    error = check_repeat(batch->core, record, handle, &reason);
    if (error == 0) {
        error = check_record(session, record, handle, &reason);
    }
    if (error == 0 && record->op == AIOD_COPY_RANGE) {
        source = aiod_handle_find(session, record->frame);
        error = aiod_op_check_source(record, source, &reason);
    }
    if (error == 0) {
        error = execute_or_queue(batch, record, handle, source);
    }
    if (error != 0) {
        refuse(batch, record, charged, error, reason);
    }
}

static bool is_small_read(const struct aiod_submission *record)
{
    return record->op == AIOD_READ && record->length < AIOD_SHARED_PAYLOAD_MAX;
}

const char *aiod_core_submit(struct aiod_core *core, struct aiod_session *session, uint64_t received,
                             const void *records, size_t count, struct aiod_payload **payloads, size_t payload_count,
                             struct aiod_reply **reply)
{
    const char *wrong = check_batch(session, received, records, count, payloads, payload_count);
    struct batch batch = {.core = core, .session = session, .payloads = payloads};

    *reply = NULL;
    if (wrong != NULL) {
        return wrong;
    }
    batch.reply = aiod_reply_create(session, &core->buffers);
    batch.arrived_ns = batch.now_ns = aiod_now_ns();
    for (size_t i = 0; i < count; i++) {
        struct aiod_submission record = record_at(records, i);

        batch.small_bytes += is_small_read(&record) ? record.length : 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct aiod_submission record = record_at(records, i);

        admit(&batch, &record);
        batch.small_bytes -= is_small_read(&record) ? record.length : 0;
    }
    aiod_request_list_submit(&batch.queued, core->pool, aiod_pool_submit);
    if (batch.reply->record_count == 0) {
        aiod_reply_destroy(batch.reply);
    } else {
        *reply = batch.reply;
    }
    return NULL;
}
