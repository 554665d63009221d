#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "operations.h"
#include "os.h"

/* ---- birth and end ------------------------------------------------------------------------------------------------- */

int aiod_core_create(struct aiod_core **result, const struct aiod_core_config *config)
{
    struct aiod_core *core = calloc(1, sizeof(*core));
    int error;

    if (core == NULL) {
        return -ENOMEM;
    }
    error = aiod_pool_create(&core->pool, &config->pool);
    if (error < 0) {
        free(core);
        return error;
    }
    core->inline_read_max = config->inline_read_max;
    aiod_buffers_init(&core->buffers, config->buffer_cache_max);
    *result = core;
    return 0;
}

bool aiod_core_stop(struct aiod_core *core, uint64_t timeout_ns)
{
    core->draining = true;
    core->stopped = aiod_pool_stop(core->pool, timeout_ns);
    return core->stopped;
}

/* End what is still on the done list, with nobody to hear of it. */
static void discard_done(struct aiod_core *core)
{
    struct aiod_reply *replies;
    struct aiod_control *controls;

    aiod_core_reap(core, &replies, &controls);
    while (replies != NULL) {
        struct aiod_reply *next = replies->next;

        aiod_reply_destroy(replies);
        replies = next;
    }
    while (controls != NULL) {
        struct aiod_control *next = (struct aiod_control *)controls->task.request.next;

        aiod_control_destroy(controls);
        controls = next;
    }
}

void aiod_core_destroy(struct aiod_core *core)
{
    if (!core->stopped && !aiod_core_stop(core, 0)) {
        return;
    }
    discard_done(core);
    aiod_pool_destroy(core->pool);
    aiod_stats_destroy(&core->stats);
    aiod_buffers_destroy(&core->buffers);
    free(core);
}

/* ---- opens, closes and names --------------------------------------------------------------------------------------- */

void aiod_control_destroy(struct aiod_control *control)
{
    free(control->root);
    free(control->path);
    aiod_naming_destroy(control->naming);
    free(control);
}

static void submit_control(struct aiod_core *core, struct aiod_control *control)
{
    control->task.kind = AIOD_TASK_CONTROL;
    control->task.request.run = aiod_control_run;
    control->task.request.queued_ns = aiod_now_ns();
    core->inflight++;
    aiod_pool_submit(core->pool, &control->task.request, 1);
}

int aiod_core_open(struct aiod_core *core, uint64_t tag, const char *root, const char *path, unsigned flags,
                   mode_t mode)
{
    struct aiod_control *control = calloc(1, sizeof(*control));

    if (control == NULL) {
        return -ENOMEM;
    }
    control->op = AIOD_OPEN;
    control->tag = tag;
    control->root = strdup(root);
    control->path = strdup(path);
    control->flags = flags;
    control->mode = mode;
    if (control->root == NULL || control->path == NULL) {
        aiod_control_destroy(control);
        return -ENOMEM;
    }
    submit_control(core, control);
    return 0;
}

void aiod_core_close_fd(struct aiod_core *core, uint64_t tag, int fd)
{
    struct aiod_control *control = calloc(1, sizeof(*control));

    if (control == NULL) {
        abort(); /* a descriptor must not be lost, and closing one here could block the main loop for seconds */
    }
    control->op = AIOD_CLOSE;
    control->tag = tag;
    control->fd = fd;
    submit_control(core, control);
}

int aiod_core_name(struct aiod_core *core, uint64_t tag, struct aiod_naming *naming)
{
    struct aiod_control *control = calloc(1, sizeof(*control));

    if (control == NULL) {
        aiod_naming_destroy(naming);
        return -ENOMEM;
    }
    control->op = AIOD_NAME;
    control->tag = tag;
    control->naming = naming;
    submit_control(core, control);
    return 0;
}

int64_t aiod_core_add_handle(struct aiod_core *core, struct aiod_session *session, int fd, uint64_t dev, uint64_t ino,
                             const struct aiod_handle_use *use)
{
    struct aiod_file *file = aiod_file_get(&core->files, core->pool, dev, ino, fd);
    int64_t number;
    int unused[2];

    if (file == NULL) {
        return -ENOMEM;
    }
    number = aiod_handle_add(session, fd, file, use);
    if (number < 0) {
        aiod_file_put(&core->files, file, fd, unused);
    } else {
        core->descriptor_count++;
    }
    return number;
}

/* Nothing is in flight on a handle that is being closed: let a worker close what nobody needs any more. */
static void finish_close(struct aiod_core *core, struct aiod_handle *handle)
{
    uint64_t tag = handle->close_tag;
    int unneeded[2] = {-1, -1};
    unsigned count = aiod_file_put(&core->files, handle->file, handle->fd, unneeded);

    aiod_handle_remove(handle);
    core->descriptor_count -= count;
    aiod_core_close_fd(core, tag, unneeded[0]);
    if (count == 2) {
        aiod_core_close_fd(core, 0, unneeded[1]);
    }
}

static void close_handle(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle)
{
    handle->closing = true;
    handle->close_tag = tag;
    if (handle->inflight == 0) {
        finish_close(core, handle);
    }
}

int aiod_core_close_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);

    if (handle == NULL) {
        return -EBADF;
    }
    close_handle(core, tag, handle);
    return 0;
}

/* ---- cancelling ---------------------------------------------------------------------------------------------------- */

static int compare_cookies(const void *one, const void *other)
{
    const uint64_t *a = one;
    const uint64_t *b = other;

    return (*a > *b) - (*a < *b);
}

size_t aiod_core_cancel(struct aiod_core *core, struct aiod_session *session, uint64_t *cookies, size_t count)
{
    size_t cancelled = 0;

    qsort(cookies, count, sizeof(*cookies), compare_cookies);
    for (struct aiod_io *io = session->inflight; io != NULL; io = io->next) {
        if (bsearch(&io->cookie, cookies, count, sizeof(*cookies), compare_cookies) != NULL) {
            cancelled += aiod_pool_cancel(core->pool, &io->task.request);
        }
    }
    return cancelled;
}

void aiod_core_end_session(struct aiod_core *core, struct aiod_session *session)
{
    session->ended = true;
    for (struct aiod_io *io = session->inflight; io != NULL; io = io->next) {
        aiod_pool_cancel(core->pool, &io->task.request);
    }
    /* Closing the last handle must not free the session under this loop. */
    aiod_session_ref(session);
    for (uint32_t i = 0; i < session->slot_count; i++) {
        struct aiod_handle *handle = session->slots[i].handle;

        if (handle != NULL && !handle->closing) {
            close_handle(core, 0, handle);
        }
    }
    aiod_session_unref(session);
}

/* ---- reaping ------------------------------------------------------------------------------------------------------- */

static struct aiod_timing timing_of(const struct aiod_request *request)
{
    bool started = request->started_ns != 0;

    return (struct aiod_timing){
        .latency_ns = request->done_ns - request->queued_ns,
        .queue_ns = (started ? request->started_ns : request->done_ns) - request->queued_ns,
        .service_ns = started ? request->done_ns - request->started_ns : 0,
        .started = started,
    };
}

static bool has_payload(const struct aiod_io *io)
{
    return io->buffer != NULL && io->task.request.result > 0;
}

static bool is_small_payload(const struct aiod_io *io)
{
    return has_payload(io) && io->task.request.result < AIOD_SHARED_PAYLOAD_MAX;
}

/* The session's reply with room for one more record. */
static struct aiod_reply *reply_of(struct aiod_core *core, struct aiod_session *session, struct aiod_reply ***tail)
{
    if (session->reply == NULL || session->reply->record_count == AIOD_REPLY_RECORDS_MAX) {
        session->reply = aiod_reply_create(session, &core->buffers);
        **tail = session->reply;
        *tail = &session->reply->next;
    }
    return session->reply;
}

/* A result's bytes: in the shared frame, unless they are large or the only ones. */
static void add_payload(struct aiod_reply *reply, struct aiod_io *io)
{
    struct aiod_session *session = io->session;
    int64_t result = io->task.request.result;
    char *room = NULL;

    if (is_small_payload(io)) {
        if (session->small_bytes > (uint64_t)result || reply->shared != NULL) {
            room = aiod_reply_room(reply, (uint64_t)result, session->small_bytes);
        }
        session->small_bytes -= (uint64_t)result;
    }
    if (room != NULL) {
        memcpy(room, io->buffer->data, (size_t)result);
        aiod_reply_add_shared(reply, io->cookie, result);
    } else {
        aiod_reply_add_frame(reply, io->cookie, result, io->buffer);
        io->buffer = NULL;
    }
}

static void add_completion(struct aiod_reply *reply, struct aiod_io *io)
{
    const struct aiod_request *request = &io->task.request;

    if (has_payload(io)) {
        add_payload(reply, io);
        return;
    }
    aiod_reply_add(reply, io->cookie, request->result, io->written);
    if (request->result < 0) {
        aiod_reply_explain(reply, &(struct aiod_failure){
                                      .handle = io->handle->number,
                                      .op = io->op,
                                      .reason = request->reason,
                                      .error = (int)-request->result,
                                      .offset = io->offset,
                                      .length = io->length,
                                  });
    }
}

static void unlink_io(struct aiod_io *io)
{
    if (io->previous != NULL) {
        io->previous->next = io->next;
    } else {
        io->session->inflight = io->next;
    }
    if (io->next != NULL) {
        io->next->previous = io->previous;
    }
    io->session->inflight_count--;
}

static void leave_handle(struct aiod_core *core, struct aiod_handle *handle)
{
    handle->inflight--;
    if (handle->closing && handle->inflight == 0) {
        finish_close(core, handle);
    }
}

/* The request is over: give back what it held. */
static void release_io(struct aiod_core *core, struct aiod_io *io)
{
    unlink_io(io);
    core->inflight--;
    core->bytes_inflight -= io->charged;
    aiod_io_release(io);
    leave_handle(core, io->handle);
    if (io->source != NULL) {
        leave_handle(core, io->source);
    }
    aiod_session_unref(io->session);
    free(io);
}

static void finish_io(struct aiod_core *core, struct aiod_io *io, struct aiod_reply ***tail)
{
    struct aiod_session *session = io->session;
    int64_t result = io->task.request.result;
    uint64_t bytes = aiod_op_moved_bytes(io->op, io->length, result);
    struct aiod_timing timing = timing_of(&io->task.request);

    aiod_stats_record(&core->stats, io->op, bytes, result < 0, &timing);
    aiod_stats_record(&session->stats, io->op, bytes, result < 0, &timing);
    aiod_session_complete(session, io->charged);
    if (!session->ended) {
        add_completion(reply_of(core, session, tail), io);
    }
    release_io(core, io);
}

static void finish_control(struct aiod_core *core, struct aiod_control *control, struct aiod_control ***tail)
{
    struct aiod_timing timing = timing_of(&control->task.request);

    core->inflight--;
    aiod_stats_record(&core->stats, control->op, 0, control->task.request.result < 0, &timing);
    if (control->tag == 0) {
        aiod_control_destroy(control);
        return;
    }
    control->task.request.next = NULL;
    **tail = control;
    *tail = (struct aiod_control **)&control->task.request.next;
}

/* How much each session has of small payloads, so that its shared frame has the right size from the start. */
static void count_small_bytes(struct aiod_request *done)
{
    for (; done != NULL; done = done->next) {
        struct aiod_io *io = (struct aiod_io *)done;

        if (io->task.kind == AIOD_TASK_IO && is_small_payload(io)) {
            io->session->small_bytes += (uint64_t)done->result;
        }
    }
}

void aiod_core_reap(struct aiod_core *core, struct aiod_reply **replies, struct aiod_control **controls)
{
    struct aiod_request *done = aiod_pool_reap(core->pool);
    struct aiod_reply **reply_tail = replies;

    *replies = NULL;
    *controls = NULL;
    count_small_bytes(done);
    while (done != NULL) {
        struct aiod_request *next = done->next;

        if (((struct aiod_task *)done)->kind == AIOD_TASK_IO) {
            finish_io(core, (struct aiod_io *)done, &reply_tail);
        } else {
            finish_control(core, (struct aiod_control *)done, &controls);
        }
        done = next;
    }
    for (struct aiod_reply *reply = *replies; reply != NULL; reply = reply->next) {
        reply->session->reply = NULL;
        reply->session->small_bytes = 0;
    }
}
