/* core_reap.c - completed requests become replies; notices of rings are handled (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ring/ring.h"
#include "session/operations.h"
#include "session/trace.h"
#include "util/probes.h"

static bool has_payload(const struct aiod_message_io *message)
{
    return message->buffer != NULL && message->io.task.request.result > 0;
}

static bool is_small_payload(const struct aiod_message_io *message)
{
    return has_payload(message) && message->io.task.request.result < AIOD_SHARED_PAYLOAD_MAX;
}

/* The session's current reply, with room for one more record. */
static struct aiod_reply *reply_of(struct aiod_core *core, struct aiod_session *session, struct aiod_reply ***tail)
{
    if (session->reply == NULL || session->reply->record_count == AIOD_REPLY_RECORDS_MAX) {
        session->reply = aiod_reply_create(session, &core->buffers);
        **tail = session->reply;
        *tail = &session->reply->next;
    }
    return session->reply;
}

/* Small results go to the shared frame, unless a result is the only one. */
static void add_payload(struct aiod_reply *reply, struct aiod_message_io *message)
{
    struct aiod_session *session = message->session;
    int64_t result = message->io.task.request.result;
    char *room = NULL;

    if (is_small_payload(message)) {
        if (session->small_bytes > (uint64_t)result || reply->shared != NULL) {
            room = aiod_reply_reserve(reply, (uint64_t)result, session->small_bytes);
        }
        session->small_bytes -= (uint64_t)result;
    }
    if (room != NULL) {
        memcpy(room, message->buffer->data, (size_t)result);
        aiod_reply_add_shared(reply, message->cookie, result);
    } else {
        aiod_reply_add_frame(reply, message->cookie, result, message->buffer);
        message->buffer = NULL;
    }
}

static void add_completion(struct aiod_reply *reply, struct aiod_message_io *message)
{
    const struct aiod_request *request = &message->io.task.request;

    if (has_payload(message)) {
        add_payload(reply, message);
        return;
    }
    aiod_reply_add(reply, message->cookie, request->result, message->io.written);
    if (request->result < 0) {
        aiod_reply_add_failure(reply, &(struct aiod_failure){
                                          .handle = message->io.handle->number,
                                          .op = message->io.op,
                                          .reason = request->reason,
                                          .error = (int)-request->result,
                                          .offset = message->io.offset,
                                          .length = message->io.length,
                                      });
    }
}

static void unlink_io(struct aiod_message_io *message)
{
    if (message->previous != NULL) {
        message->previous->next = message->next;
    } else {
        message->session->inflight = message->next;
    }
    if (message->next != NULL) {
        message->next->previous = message->previous;
    }
    message->session->inflight_count--;
}

/* The request has ended: release what it holds. */
static void release_io(struct aiod_core *core, struct aiod_message_io *message)
{
    unlink_io(message);
    core->inflight--;
    core->bytes_inflight -= message->charged;
    aiod_io_release(message);
    if (message->unlock != NULL) {
        aiod_core_continue_unlock(core, message->unlock);
    }
    aiod_core_release_handle(core, message->io.handle);
    if (message->io.source != NULL) {
        aiod_core_release_handle(core, message->io.source);
    }
    aiod_session_unref(message->session);
    free(message);
}

static void finish_io(struct aiod_core *core, struct aiod_message_io *message, struct aiod_reply ***tail)
{
    struct aiod_session *session = message->session;
    int64_t result = message->io.task.request.result;
    uint64_t bytes = aiod_op_moved_bytes(message->io.op, message->io.length, result);
    struct aiod_timing timing = aiod_timing_of(&message->io.task.request);
    int error = result < 0 ? (int)-result : 0;

    aiod_stats_record(aiod_core_stats_of(core, message->io.handle), session->transport, message->io.op, bytes, error,
                      &timing);
    aiod_stats_record(&session->stats, session->transport, message->io.op, bytes, error, &timing);
    aiod_session_complete(session, message->charged);
    aiod_trace_done(&message->io.task.request, &timing, session->client, message->cookie, message->io.op, bytes, error);
    AIOD_PROBE6(request_done, &message->io.task.request, session->client, message->cookie, (int)message->io.op, bytes,
                error);
    if (!session->ended) {
        add_completion(reply_of(core, session, tail), message);
    }
    release_io(core, message);
}

/* A lock that another one has is asked for again, so that only the last attempt is an error. */
static int error_of(const struct aiod_control *control)
{
    int64_t result = control->task.request.result;

    return result < 0 && (control->op != AIOD_LOCK || result != -EAGAIN) ? (int)-result : 0;
}

static void finish_control(struct aiod_core *core, struct aiod_control *control, struct aiod_control ***tail)
{
    struct aiod_timing timing = aiod_timing_of(&control->task.request);
    struct aiod_export_stats *entry = aiod_export_stats_get(&core->exports, control->rate);

    core->inflight--;
    if (control->ring_close != NULL) {
        aiod_ring_opens_answer_close(control->ring_close, control->task.request.result, AIOD_REASON_BY_KERNEL);
    }
    if (control->handle != NULL) {
        aiod_core_release_handle(core, control->handle);
    }
    aiod_stats_record(entry != NULL ? &entry->stats : &core->stats, control->transport, control->op, 0,
                      error_of(control), &timing);
    if (control->tag == 0) {
        aiod_control_destroy(control);
        return;
    }
    control->task.request.next = NULL;
    **tail = control;
    *tail = (struct aiod_control **)&control->task.request.next;
}

/* Sum up the small payloads of each session, so that its shared frame gets the right size. */
static void count_small_bytes(struct aiod_request *done)
{
    for (; done != NULL; done = done->next) {
        struct aiod_message_io *message = (struct aiod_message_io *)done;

        if (message->io.task.kind == AIOD_TASK_IO && is_small_payload(message)) {
            message->session->small_bytes += (uint64_t)done->result;
        }
    }
}

/* Handle a notice from a ring. */
static void handle_notice(struct aiod_core *core, struct aiod_task *task, struct aiod_reaped *reaped)
{
    struct aiod_handle *handle;
    struct aiod_ring *ring;

    switch (task->kind) {
    case AIOD_TASK_RING_CLOSE:
        handle = aiod_core_take_ring_close((struct aiod_ring_request *)task);
        if (handle != NULL) {
            handle->next_to_close = reaped->to_close;
            reaped->to_close = handle;
        }
        break;
    case AIOD_TASK_HANDLE_IDLE:
        aiod_core_release_handle(
            core, (struct aiod_handle *)(void *)((char *)task - offsetof(struct aiod_handle, ring_idle)));
        break;
    case AIOD_TASK_RING_ALLOCATED:
        aiod_core_finish_attach(core, aiod_ring_of_allocated(task), reaped);
        break;
    case AIOD_TASK_RING_BROKEN:
        ring = aiod_ring_of_broken(task);
        ring->session->broken = ring->broken;
        ring->session->next_broken = reaped->broken;
        reaped->broken = ring->session;
        aiod_ring_put(ring); /* the session stays until its ring is gone */
        break;
    default:
        aiod_core_remove_ring(core, aiod_ring_of_freed(task));
        break;
    }
}

size_t aiod_core_reap(struct aiod_core *core, struct aiod_reaped *reaped)
{
    struct aiod_request *done = aiod_pool_reap(core->pool);
    struct aiod_reply **reply_tail = &reaped->replies;
    struct aiod_control **control_tail = &reaped->controls;
    size_t count = 0;

    *reaped = (struct aiod_reaped){0};
    count_small_bytes(done);
    for (; done != NULL; count++) {
        struct aiod_request *next = done->next;
        struct aiod_task *task = (struct aiod_task *)done;

        if (task->kind == AIOD_TASK_IO) {
            finish_io(core, (struct aiod_message_io *)done, &reply_tail);
        } else if (task->kind == AIOD_TASK_CONTROL) {
            finish_control(core, (struct aiod_control *)done, &control_tail);
        } else {
            handle_notice(core, task, reaped);
        }
        done = next;
    }
    for (struct aiod_reply *reply = reaped->replies; reply != NULL; reply = reply->next) {
        reply->session->reply = NULL;
        reply->session->small_bytes = 0;
    }
    return count;
}
