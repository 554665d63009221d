/* core.c - joins sessions, handles, rings and the pool (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ring/poller.h"
#include "ring/ring.h"
#include "ring/ring_maker.h"
#include "session/operations.h"
#include "util/os.h"

/* ---- creation and end -------------------------------------------------------------------------------------------- */

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
    error = aiod_poller_create(&core->poller, config->pool.name, config->poll_max_ns, config->rings_max);
    if (error == 0) {
        error = aiod_ring_maker_create(&core->maker, config->pool.name);
    }
    if (error < 0) {
        if (core->poller != NULL) {
            aiod_poller_destroy(core->poller);
        }
        aiod_pool_stop(core->pool, AIOD_POOL_NEVER / 2);
        aiod_pool_destroy(core->pool);
        free(core);
        return error;
    }
    core->files.notice_fd = -1;
    aiod_open_as_client_threads_init(&core->open_as_client, core->pool, config->pool.name);
    core->inline_read_max = config->inline_read_max;
    aiod_buffers_init(&core->buffers, config->buffer_cache_max);
    *result = core;
    return 0;
}

bool aiod_core_stop(struct aiod_core *core, uint64_t timeout_ns)
{
    bool others_stopped;

    core->stopping = true;
    aiod_core_drain(core);
    aiod_poller_stop(core->poller);
    others_stopped = aiod_open_as_client_threads_stop(&core->open_as_client, timeout_ns);
    others_stopped = aiod_ring_maker_stop(core->maker, timeout_ns) && others_stopped;
    core->stopped = aiod_pool_stop(core->pool, timeout_ns) && others_stopped;
    return core->stopped;
}

/* Take what is still on the done list, and free it without delivering it. */
static void discard_done(struct aiod_core *core)
{
    struct aiod_reaped reaped;

    while (aiod_core_reap(core, &reaped) > 0) {
        while (reaped.replies != NULL) {
            struct aiod_reply *next = reaped.replies->next;

            aiod_reply_destroy(reaped.replies);
            reaped.replies = next;
        }
        while (reaped.controls != NULL) {
            struct aiod_control *next = (struct aiod_control *)reaped.controls->task.request.next;

            aiod_control_destroy(reaped.controls);
            reaped.controls = next;
        }
    }
}

void aiod_core_destroy(struct aiod_core *core)
{
    if (!core->stopped && !aiod_core_stop(core, 0)) {
        return;
    }
    discard_done(core);
    aiod_poller_destroy(core->poller);
    aiod_ring_maker_destroy(core->maker);
    aiod_open_as_client_threads_destroy(&core->open_as_client);
    aiod_pool_destroy(core->pool);
    aiod_stats_destroy(&core->stats);
    aiod_buffers_destroy(&core->buffers);
    free(core);
}

/* ---- opens, closes and directory operations ---------------------------------------------------------------------- */

void aiod_control_destroy(struct aiod_control *control)
{
    free(control->root);
    free(control->path);
    aiod_directory_op_destroy(control->directory_op);
    free(control->as);
    aiod_rate_unref(control->rate);
    free(control);
}

/* Allocate a control for the export with this rate (NULL: none). NULL if there is no memory. */
static struct aiod_control *create_control(enum aiod_op op, uint64_t tag, struct aiod_rate *rate)
{
    struct aiod_control *control = calloc(1, sizeof(*control));

    if (control == NULL) {
        return NULL;
    }
    control->task.kind = AIOD_TASK_CONTROL;
    control->task.request.run = aiod_control_run;
    control->op = op;
    control->tag = tag;
    if (rate != NULL) {
        aiod_rate_ref(rate);
        control->rate = rate;
        control->task.request.flow = &rate->control;
    }
    return control;
}

static void submit_control(struct aiod_core *core, struct aiod_control *control)
{
    control->task.request.queued_ns = aiod_now_ns();
    core->inflight++;
    aiod_pool_submit(core->pool, &control->task.request, 1);
}

/*
 * Submit with a time limit, and to a thread with the client's identity if the control has one. 0, or -errno: then the
 * control was freed.
 */
static int submit_control_as(struct aiod_core *core, struct aiod_control *control, uint64_t timeout_ns)
{
    uint64_t now_ns = aiod_now_ns();
    int error;

    control->task.request.deadline_ns = timeout_ns != 0 ? now_ns + timeout_ns : 0;
    if (control->as == NULL) {
        submit_control(core, control);
        return 0;
    }
    control->task.request.queued_ns = now_ns;
    error =
        aiod_open_as_client_threads_submit(&core->open_as_client, control->rate, &control->task.request, control->as);
    if (error < 0) {
        aiod_control_destroy(control);
        return error;
    }
    core->inflight++;
    return 0;
}

int aiod_core_open(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, const char *root, const char *path,
                   unsigned flags, const struct aiod_creation *creation, struct aiod_identity *as, uint64_t timeout_ns)
{
    struct aiod_control *control = create_control(AIOD_OPEN, tag, rate);

    if (control == NULL) {
        free(as);
        return -ENOMEM;
    }
    control->as = as;
    control->root = strdup(root);
    control->path = strdup(path);
    control->flags = flags;
    control->creation = *creation;
    if (control->root == NULL || control->path == NULL) {
        aiod_control_destroy(control);
        return -ENOMEM;
    }
    return submit_control_as(core, control, timeout_ns);
}

int aiod_core_adopt(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd, unsigned flags)
{
    struct aiod_control *control = create_control(AIOD_OPEN, tag, rate);

    if (control == NULL) {
        return -ENOMEM;
    }
    control->fd = fd;
    control->flags = flags;
    submit_control(core, control);
    return 0;
}

void aiod_core_close_fd(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd)
{
    struct aiod_control *control = create_control(AIOD_CLOSE, tag, rate);

    if (control == NULL) {
        abort(); /* a descriptor must not be lost, and closing it here could block the main loop for seconds */
    }
    control->fd = fd;
    submit_control(core, control);
}

int aiod_core_directory_op(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate,
                           struct aiod_directory_op *directory_op, struct aiod_identity *as, uint64_t timeout_ns)
{
    struct aiod_control *control = create_control(AIOD_NAME, tag, rate);

    if (control == NULL) {
        aiod_directory_op_destroy(directory_op);
        free(as);
        return -ENOMEM;
    }
    control->as = as;
    control->directory_op = directory_op;
    return submit_control_as(core, control, timeout_ns);
}

static enum aiod_handle_origin origin_of(const struct aiod_resumed *resumed)
{
    if (resumed == NULL || resumed->number == 0) {
        return AIOD_HANDLE_NEW;
    }
    return resumed->suspect ? AIOD_HANDLE_SUSPECT : AIOD_HANDLE_RESUMED;
}

/* On FUSE, the file's flushes also sync the descriptor of a writable handle. */
static void add_handle_to_file(struct aiod_handle *handle, enum aiod_handle_origin origin)
{
    aiod_write_loss_add_handle(&handle->file->write_loss, &handle->loss_reader, origin);
    if (handle->use.on_fuse && handle->use.writable) {
        aiod_flush_writer_add(&handle->writer, handle->fd);
    }
}

int64_t aiod_core_add_handle(struct aiod_core *core, struct aiod_session *session, int fd, int flush_fd, uint64_t dev,
                             uint64_t ino, const struct aiod_handle_use *use, const struct aiod_resumed *resumed)
{
    bool has_flush_fd = flush_fd >= 0;
    struct aiod_file *file =
        aiod_file_get(&core->files, core->pool, dev, ino, fd, &flush_fd, use->writable, use->on_fuse);
    int64_t number;
    int unused[2];

    if (flush_fd >= 0) {
        aiod_core_close_fd(core, 0, use->rate, flush_fd); /* the file has a descriptor for flushes already */
        has_flush_fd = false;
    }
    if (file == NULL) {
        return -ENOMEM;
    }
    if (file->refs == 1) {
        file->flushes.writers.inherited = resumed != NULL && resumed->number != 0;
    }
    if (resumed != NULL && resumed->poisoned) {
        aiod_flushes_poison(&file->flushes);
    }
    number = aiod_handle_add(session, fd, file, use, resumed);
    if (number < 0) {
        if (aiod_file_put(&core->files, file, fd, unused) == 2) {
            aiod_core_close_fd(core, 0, use->rate, unused[1]);
        }
    } else {
        add_handle_to_file(aiod_handle_find(session, (uint32_t)number), origin_of(resumed));
        core->handle_count++;
        core->descriptor_count += has_flush_fd ? 2 : 1;
        if (session->ring != NULL) {
            aiod_ring_add_handle(session->ring, aiod_handle_find(session, (uint32_t)number));
        }
    }
    return number;
}

/* Flush the handle's file; ends as a control. 0, or -ENOMEM. */
static int submit_flush(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle)
{
    struct aiod_control *control = create_control(AIOD_FLUSH, tag, handle->use.rate);

    if (control == NULL) {
        return -ENOMEM;
    }
    control->handle = handle;
    control->task.request.group = &handle->file->flushes;
    handle->inflight++;
    submit_control(core, control);
    return 0;
}

/*
 * On FUSE, a later flush by another handle does not reach the data that the server keeps for this one
 * (flush_writers.h). Needed once: a failure poisons the file.
 */
static bool needs_last_flush(struct aiod_handle *handle)
{
    bool needed = !handle->flushed_last && handle->file->refs > 1 &&
                  aiod_flush_writer_has_changes(&handle->file->flushes.writers, &handle->writer);

    handle->flushed_last |= needed;
    return needed;
}

static void close_now(struct aiod_core *core, struct aiod_handle *handle)
{
    struct aiod_rate *rate = handle->use.rate;
    uint64_t tag = handle->close_tag;
    int unneeded[2] = {-1, -1};
    unsigned count;

    aiod_flush_writer_remove(&handle->file->flushes.writers, &handle->writer);
    count = aiod_file_put(&core->files, handle->file, handle->fd, unneeded);

    aiod_core_close_fd(core, tag, rate, unneeded[0]);
    if (count == 2) {
        aiod_core_close_fd(core, 0, rate, unneeded[1]);
    }
    aiod_handle_remove(handle); /* this may free the session, which holds the export's rate */
    core->handle_count--;
    core->descriptor_count -= count;
}

/* A closing handle has no requests in flight any more: let a worker close the descriptors that are not needed. */
static void finish_close(struct aiod_core *core, struct aiod_handle *handle)
{
    if (needs_last_flush(handle) && submit_flush(core, 0, handle) == 0) {
        return; /* called again when the flush has ended */
    }
    close_now(core, handle);
}

static void close_handle(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle)
{
    handle->closing = true;
    handle->close_tag = tag;
    if (handle->session->ring != NULL && !aiod_ring_forget_handle(handle->session->ring, handle)) {
        handle->inflight++; /* for the ring, until it has no requests on the handle */
    }
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

int aiod_core_flush_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);

    if (handle == NULL) {
        return -EBADF;
    }
    if (aiod_write_loss_unreported(&handle->file->write_loss, &handle->loss_reader)) {
        return -EIO;
    }
    return submit_flush(core, tag, handle);
}

/* ---- cancelling -------------------------------------------------------------------------------------------------- */

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
    for (struct aiod_message_io *message = session->inflight; message != NULL; message = message->next) {
        if (bsearch(&message->cookie, cookies, count, sizeof(*cookies), compare_cookies) != NULL) {
            cancelled += aiod_pool_cancel(core->pool, &message->io.task.request);
        }
    }
    return cancelled;
}

void aiod_core_announce_drained(struct aiod_session *session, bool flushed)
{
    if (session->ring != NULL) {
        aiod_ring_set_shutdown_notice(session->ring, AIOD_RING_DRAINED | (flushed ? AIOD_RING_FLUSHED : 0));
    }
}

void aiod_core_end_session(struct aiod_core *core, struct aiod_session *session)
{
    session->ended = true;
    for (struct aiod_message_io *message = session->inflight; message != NULL; message = message->next) {
        aiod_pool_cancel(core->pool, &message->io.task.request);
    }
    /* Closing the last handle must not free the session during this loop. */
    aiod_session_ref(session);
    for (uint32_t i = 0; i < session->slot_count; i++) {
        struct aiod_handle *handle = session->slots[i].handle;

        if (handle != NULL && !handle->closing) {
            close_handle(core, 0, handle);
        }
    }
    if (session->ring != NULL) {
        aiod_poller_remove(core->poller, session->ring);
        aiod_ring_end(session->ring);
        session->ring = NULL;
    }
    aiod_session_unref(session);
}

/* ---- rings ------------------------------------------------------------------------------------------------------- */

static void link_ring(struct aiod_core *core, struct aiod_ring *ring)
{
    ring->next = core->rings;
    if (ring->next != NULL) {
        ring->next->previous = ring;
    }
    core->rings = ring;
    core->ring_count++;
    core->ring_bytes += ring->memory.bytes;
}

/* The ring has no memory, or none any more. */
static void remove_ring(struct aiod_core *core, struct aiod_ring *ring)
{
    if (ring->previous != NULL) {
        ring->previous->next = ring->next;
    } else {
        core->rings = ring->next;
    }
    if (ring->next != NULL) {
        ring->next->previous = ring->previous;
    }
    core->ring_count--;
    core->ring_bytes -= ring->memory.bytes;
    aiod_ring_free(ring, &core->stats);
}

int aiod_core_attach(struct aiod_core *core, struct aiod_session *session, int wake_fd, uint32_t entries,
                     uint64_t area_bytes, uint64_t *memory_bytes)
{
    struct aiod_ring_config config = {
        .session = session,
        .pool = core->pool,
        .maker = core->maker,
        .buffers = &core->buffers,
        .draining = &core->draining,
        .inline_read_max = core->inline_read_max,
        .entries = entries,
        .area_bytes = area_bytes,
        .wake_fd = wake_fd,
    };
    struct aiod_ring *ring;
    int error;

    if (session->ring != NULL || session->attaching) {
        return -EEXIST;
    }
    *memory_bytes = aiod_ring_memory_bytes(entries, area_bytes);
    if (*memory_bytes == 0) {
        return -EINVAL;
    }
    error = aiod_ring_create(&ring, &config);
    if (error < 0) {
        return error;
    }
    link_ring(core, ring);
    error = aiod_ring_allocate(ring);
    if (error < 0) {
        remove_ring(core, ring);
        return error;
    }
    session->attaching = true;
    return 0;
}

/* The ring has memory: give it to the session and to the poller. 0, or -errno. */
static int attach_ring(struct aiod_core *core, struct aiod_session *session, struct aiod_ring *ring)
{
    int error;

    aiod_ring_add_handles(ring);
    error = aiod_poller_add(core->poller, ring);
    if (error == 0) {
        session->ring = ring;
    }
    return error;
}

/*
 * The maker has finished. The ring is not needed if the session has ended meanwhile or the core is stopping; then the
 * result is not reported.
 */
static void finish_attach(struct aiod_core *core, struct aiod_ring *ring, struct aiod_reaped *reaped)
{
    struct aiod_session *session = ring->session;
    bool wanted = !session->ended && session->owner != NULL && !core->stopping;
    int error = ring->allocation_error;

    session->attaching = false;
    if (error == 0 && wanted) {
        error = attach_ring(core, session, ring);
    }
    if (wanted) { /* the session has an owner, so it lives longer than the ring's reference to it */
        session->attach_error = error;
        session->next_attached = reaped->attached;
        reaped->attached = session;
    }
    if (!ring->allocated) {
        remove_ring(core, ring);
    } else if (error < 0 || !wanted) {
        aiod_ring_end(ring);
    }
}

struct aiod_attached aiod_core_attached(const struct aiod_session *session)
{
    const struct aiod_ring *ring = session->ring;

    return (struct aiod_attached){ring->memory.fd, ring->doorbell_fd, ring->memory.bytes};
}

void aiod_core_drain(struct aiod_core *core)
{
    __atomic_store_n(&core->draining, true, __ATOMIC_RELAXED);
    aiod_pool_disable_rates(core->pool);
}

uint32_t aiod_core_inflight(struct aiod_core *core)
{
    uint32_t inflight = core->inflight;

    for (struct aiod_ring *ring = core->rings; ring != NULL; ring = ring->next) {
        inflight += aiod_ring_inflight(ring);
    }
    return inflight;
}

uint64_t aiod_core_bytes_inflight(struct aiod_core *core)
{
    uint64_t bytes = core->bytes_inflight;

    for (struct aiod_ring *ring = core->rings; ring != NULL; ring = ring->next) {
        bytes += aiod_ring_bytes_inflight(ring);
    }
    return bytes;
}

uint32_t aiod_core_session_inflight(const struct aiod_session *session)
{
    return session->inflight_count + (session->ring != NULL ? aiod_ring_inflight(session->ring) : 0);
}

void aiod_core_add_stats(struct aiod_core *core, struct aiod_stats *stats)
{
    aiod_stats_add(stats, &core->stats);
    for (struct aiod_ring *ring = core->rings; ring != NULL; ring = ring->next) {
        aiod_ring_add_stats(ring, stats);
    }
}

void aiod_core_add_session_stats(const struct aiod_session *session, struct aiod_stats *stats)
{
    aiod_stats_add(stats, &session->stats);
    if (session->ring != NULL) {
        aiod_ring_add_stats(session->ring, stats);
    }
}

int aiod_core_follow_affinity(struct aiod_core *core)
{
    pid_t others[] = {aiod_poller_tid(core->poller), aiod_ring_maker_tid(core->maker)};
    int moved = aiod_pool_follow_affinity(core->pool);

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]) && moved >= 0; i++) {
        int also = others[i] != 0 ? aiod_affinity_follow(others[i]) : 0;

        moved = also < 0 ? also : moved + also;
    }
    return moved;
}

/* ---- active requests --------------------------------------------------------------------------------------------- */

void aiod_core_set_slow_limits(struct aiod_core *core, uint64_t slow_ns, unsigned stuck_threads_max)
{
    core->slow_ns = slow_ns;
    aiod_pool_set_slow_limits(core->pool, slow_ns, stuck_threads_max);
}

struct collector {
    struct aiod_active_request_info *views;
    size_t count;
    size_t max;
};

/*
 * The handle and the strings stay valid after the pool's lock was dropped: only the main loop's thread frees handles.
 */
static bool collect(const struct aiod_active_request *active, void *argument)
{
    const struct aiod_task *task = (const struct aiod_task *)active->request;
    struct collector *collector = argument;
    struct aiod_active_request_info *view = &collector->views[collector->count];

    if (collector->count == collector->max) {
        return false;
    }
    *view = (struct aiod_active_request_info){.age_ns = active->age_ns, .tid = active->tid};
    if (task->kind == AIOD_TASK_CONTROL) {
        const struct aiod_control *control = (const struct aiod_control *)task;

        view->op = control->op;
        view->tag = control->tag;
        view->handle = control->handle;
    } else {
        const struct aiod_io *io = (const struct aiod_io *)task;

        view->op = io->op;
        view->handle = io->handle;
        view->offset = io->offset;
        view->length = io->length;
    }
    collector->count++;
    return true;
}

size_t aiod_core_active_requests(struct aiod_core *core, struct aiod_active_request_info *views, size_t max)
{
    struct collector collector = {.views = views, .max = max};

    aiod_open_as_client_threads_visit(&core->open_as_client, 0, collect, &collector);
    aiod_pool_visit_active(core->pool, collect, &collector);
    return collector.count;
}

size_t aiod_core_find_slow(struct aiod_core *core, struct aiod_active_request_info *views, size_t max)
{
    struct collector collector = {.views = views, .max = max};

    aiod_open_as_client_threads_expire(&core->open_as_client);
    if (core->slow_ns != 0) {
        aiod_open_as_client_threads_visit(&core->open_as_client, core->slow_ns, collect, &collector);
    }
    aiod_pool_find_slow(core->pool, collect, &collector);
    return collector.count;
}

/* ---- reaping ----------------------------------------------------------------------------------------------------- */

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

static void release_handle(struct aiod_core *core, struct aiod_handle *handle)
{
    handle->inflight--;
    if (handle->closing && handle->inflight == 0) {
        finish_close(core, handle);
    }
}

/* The request has ended: release what it holds. */
static void release_io(struct aiod_core *core, struct aiod_message_io *message)
{
    unlink_io(message);
    core->inflight--;
    core->bytes_inflight -= message->charged;
    aiod_io_release(message);
    release_handle(core, message->io.handle);
    if (message->io.source != NULL) {
        release_handle(core, message->io.source);
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

    aiod_stats_record(&core->stats, message->io.op, bytes, result < 0, &timing);
    aiod_stats_record(&session->stats, message->io.op, bytes, result < 0, &timing);
    aiod_session_complete(session, message->charged);
    if (!session->ended) {
        add_completion(reply_of(core, session, tail), message);
    }
    release_io(core, message);
}

static void finish_control(struct aiod_core *core, struct aiod_control *control, struct aiod_control ***tail)
{
    struct aiod_timing timing = aiod_timing_of(&control->task.request);

    core->inflight--;
    if (control->handle != NULL) {
        release_handle(core, control->handle);
    }
    aiod_stats_record(&core->stats, control->op, 0, control->task.request.result < 0, &timing);
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
    struct aiod_ring *ring;

    switch (task->kind) {
    case AIOD_TASK_HANDLE_IDLE:
        release_handle(core, (struct aiod_handle *)(void *)((char *)task - offsetof(struct aiod_handle, ring_idle)));
        break;
    case AIOD_TASK_RING_ALLOCATED:
        finish_attach(core, aiod_ring_of_allocated(task), reaped);
        break;
    case AIOD_TASK_RING_BROKEN:
        ring = aiod_ring_of_broken(task);
        ring->session->broken = ring->broken;
        ring->session->next_broken = reaped->broken;
        reaped->broken = ring->session;
        aiod_ring_put(ring); /* the session stays until its ring is gone */
        break;
    default:
        remove_ring(core, aiod_ring_of_freed(task));
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
