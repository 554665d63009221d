/* core_handles.c - opens, closes, directory operations, and the handles of sessions (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "pool/uring.h"
#include "ring/ring.h"
#include "session/move_handle.h"
#include "util/os.h"

void aiod_control_destroy(struct aiod_control *control)
{
    free(control->root);
    free(control->path);
    aiod_directory_op_destroy(control->directory_op);
    free(control->as);
    aiod_rate_unref(control->rate);
    free(control);
}

struct aiod_control *aiod_core_create_control(enum aiod_op op, uint64_t tag, struct aiod_rate *rate)
{
    struct aiod_control *control = calloc(1, sizeof(*control));

    if (control == NULL) {
        return NULL;
    }
    control->task.kind = AIOD_TASK_CONTROL;
    control->task.request.run = aiod_control_run;
    control->task.request.cookie = tag;
    control->op = op;
    control->tag = tag;
    if (rate != NULL) {
        aiod_rate_ref(rate);
        control->rate = rate;
        control->task.request.flow = &rate->control;
    }
    return control;
}

void aiod_core_submit_control(struct aiod_core *core, struct aiod_control *control)
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
        aiod_core_submit_control(core, control);
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

int aiod_core_open(struct aiod_core *core, uint64_t tag, enum aiod_transport transport, struct aiod_rate *rate,
                   const char *root, const char *path, unsigned flags, const struct aiod_creation *creation,
                   struct aiod_identity *as, uint64_t timeout_ns)
{
    struct aiod_control *control = aiod_core_create_control(AIOD_OPEN, tag, rate);

    if (control == NULL) {
        free(as);
        return -ENOMEM;
    }
    control->transport = transport;
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

int aiod_core_move_handle(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                          const char *root, const char *path, bool no_links, struct aiod_identity *as,
                          uint64_t timeout_ns)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);
    struct aiod_control *control = handle != NULL ? aiod_core_create_control(AIOD_OPEN, tag, handle->use.rate) : NULL;
    int error;

    if (control == NULL) {
        free(as);
        return handle == NULL ? -EBADF : -ENOMEM;
    }
    control->transport = AIOD_BY_DAEMON;
    control->as = as;
    control->root = strdup(root);
    control->path = strdup(path);
    control->flags = aiod_handle_open_flags(handle) | (no_links ? AIOD_OPEN_NO_LINKS : 0u);
    if (control->root == NULL || control->path == NULL) {
        aiod_control_destroy(control);
        return -ENOMEM;
    }
    control->handle = handle;
    error = submit_control_as(core, control, timeout_ns);
    handle->inflight += error == 0;
    return error;
}

int aiod_core_adopt(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd, unsigned flags)
{
    struct aiod_control *control = aiod_core_create_control(AIOD_OPEN, tag, rate);

    if (control == NULL) {
        return -ENOMEM;
    }
    control->fd = fd;
    control->flags = flags;
    aiod_core_submit_control(core, control);
    return 0;
}

/* Close a descriptor on a worker, for a message that came by `transport`, or the CLOSE_FILE `ring_close` (NULL: none). */
static void submit_close(struct aiod_core *core, uint64_t tag, enum aiod_transport transport, struct aiod_rate *rate,
                         int fd, struct aiod_ring_request *ring_close)
{
    struct aiod_control *control = aiod_core_create_control(AIOD_CLOSE, tag, rate);

    if (control == NULL) {
        abort(); /* a descriptor must not be lost, and closing it here could block the main loop for seconds */
    }
    control->transport = transport;
    control->fd = fd;
    control->ring_close = ring_close;
    aiod_core_submit_control(core, control);
}

void aiod_core_close_fd(struct aiod_core *core, uint64_t tag, struct aiod_rate *rate, int fd)
{
    submit_close(core, tag, AIOD_BY_DAEMON, rate, fd, NULL);
}

int aiod_core_directory_op(struct aiod_core *core, uint64_t tag, enum aiod_transport transport, struct aiod_rate *rate,
                           struct aiod_directory_op *directory_op, struct aiod_identity *as, uint64_t timeout_ns)
{
    struct aiod_control *control = aiod_core_create_control(AIOD_NAME, tag, rate);

    if (control == NULL) {
        aiod_directory_op_destroy(directory_op);
        free(as);
        return -ENOMEM;
    }
    control->transport = transport;
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

/* The handle's requests count for its export from now on. */
static void count_for_export(struct aiod_core *core, const struct aiod_handle *handle)
{
    aiod_handle_flow(handle)->exported = aiod_export_stats_get(&core->exports, handle->use.rate);
}

/* A NAMES handle has no file. */
static void count_handle(struct aiod_core *core, const struct aiod_handle_use *use, int change)
{
    core->handle_count += use->names.root == NULL ? (uint32_t)change : 0;
}

int64_t aiod_core_add_handle(struct aiod_core *core, struct aiod_session *session, int fd, int flush_fd, uint64_t dev,
                             uint64_t ino, const struct aiod_handle_use *use, const struct aiod_resumed *resumed)
{
    const struct aiod_file_user user = {fd, use->writable, use->on_fuse, resumed != NULL && resumed->number != 0};
    struct aiod_file *file = aiod_file_get(&core->files, core->pool, dev, ino, &user, &flush_fd);
    int64_t number;
    int unused[2];

    if (flush_fd >= 0) {
        aiod_core_close_fd(core, 0, use->rate, flush_fd); /* the file has a descriptor for flushes already */
    }
    if (file == NULL) {
        return -ENOMEM;
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
        count_for_export(core, aiod_handle_find(session, (uint32_t)number));
        add_handle_to_file(aiod_handle_find(session, (uint32_t)number), origin_of(resumed));
        count_handle(core, use, 1);
        if (use->uring) {
            aiod_uring_want(core->pool);
        }
        if (session->ring != NULL) {
            aiod_ring_add_handle(session->ring, aiod_handle_find(session, (uint32_t)number));
        }
    }
    return number;
}

int64_t aiod_core_add_names(struct aiod_core *core, struct aiod_session *session, const struct aiod_handle_use *use)
{
    /* a file of its own, which no other handle shares: no device has this number */
    return aiod_core_add_handle(core, session, -1, -1, UINT64_MAX, ++core->names_count, use, NULL);
}

void aiod_core_revoke_names(struct aiod_session *session)
{
    for (uint32_t i = 0; i < session->slot_count; i++) {
        struct aiod_handle *handle = session->slots[i].handle;

        if (handle != NULL && handle->use.names.root != NULL) {
            __atomic_store_n(&handle->revoked, true, __ATOMIC_RELAXED);
        }
    }
}

/* ---- handles that a ring opens ----------------------------------------------------------------------------------- */

uint32_t aiod_core_lend_handles(struct aiod_core *core, struct aiod_session *session, uint32_t count)
{
    uint32_t lent = 0;

    while (session->ring != NULL && lent < count && session->lent_count < AIOD_RING_NUMBERS_MAX) {
        int64_t number = aiod_handle_lend(session);

        if (number < 0) {
            break;
        }
        aiod_ring_opens_lend(session->ring, (uint32_t)number);
        lent++;
    }
    core->lent_count += lent;
    return lent;
}

uint32_t aiod_core_take_back_handles(struct aiod_core *core, struct aiod_session *session)
{
    uint32_t number;
    uint32_t taken = 0;

    while (session->ring != NULL && aiod_ring_opens_take_back(session->ring, &number)) {
        aiod_handle_take_back(session, number);
        taken++;
    }
    core->lent_count -= taken;
    return taken;
}

bool aiod_core_ran_out_of_handles(const struct aiod_session *session)
{
    return session->ring != NULL && aiod_ring_opens_ran_out(session->ring);
}

static struct aiod_handle *collect_opened(struct aiod_core *core, struct aiod_session *session, enum aiod_collect which)
{
    struct aiod_handle *opened = aiod_ring_opens_collect(session->ring, which);

    for (struct aiod_handle *handle = opened; handle != NULL; handle = handle->ring_next) {
        aiod_handle_register(session, handle);
        core->lent_count--;
        count_handle(core, &handle->use, 1);
    }
    return opened;
}

bool aiod_core_has_opened(const struct aiod_session *session)
{
    return session->ring != NULL && aiod_ring_opens_any(session->ring);
}

struct aiod_session *aiod_core_sessions_to_collect(struct aiod_core *core)
{
    struct aiod_session *found = NULL;

    aiod_collect_timer_expired(&core->collect_timer);
    for (struct aiod_ring *ring = core->rings; ring != NULL; ring = ring->next) {
        struct aiod_session *session = ring->session;

        aiod_ring_wake_unseen(ring);
        if (session->owner != NULL && session->ring == ring && aiod_ring_opens_any(ring)) {
            session->next_to_collect = found;
            found = session;
        }
    }
    return found;
}

struct aiod_handle *aiod_core_collect_opened(struct aiod_core *core, struct aiod_session *session, bool all)
{
    return aiod_core_has_opened(session) ? collect_opened(core, session, all ? AIOD_COLLECT_ALL : AIOD_COLLECT_OLD)
                                         : NULL;
}

void aiod_core_end_opens(struct aiod_core *core, struct aiod_session *session)
{
    struct aiod_handle *opened = session->ring != NULL ? collect_opened(core, session, AIOD_COLLECT_LAST) : NULL;

    for (; opened != NULL; opened = opened->ring_next) {
        if (opened->store_fd >= 0) {
            aiod_core_close_fd(core, 0, opened->use.rate, opened->store_fd);
            opened->store_fd = -1;
        }
    }
    core->lent_count -= session->lent_count;
    session->lent_count = 0;
}

/* Flush the handle's file; ends as a control. 0, or -ENOMEM. */
static int submit_flush(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle)
{
    struct aiod_control *control = aiod_core_create_control(AIOD_FLUSH, tag, handle->use.rate);

    if (control == NULL) {
        return -ENOMEM;
    }
    control->handle = handle;
    control->transport = tag != 0 ? handle->session->transport : AIOD_BY_DAEMON;
    control->task.request.group = &handle->file->flushes;
    handle->inflight++;
    aiod_core_submit_control(core, control);
    return 0;
}

/*
 * On FUSE, a later flush by another handle does not reach the data that the server keeps for this one
 * (flush_writers.h). Needed once: a failure poisons the file.
 */
static bool needs_last_flush(struct aiod_core *core, struct aiod_handle *handle)
{
    bool needed = !handle->flushed_last && aiod_file_is_shared(&core->files, handle->file) &&
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

    submit_close(core, tag, tag != 0 ? handle->session->transport : AIOD_BY_DAEMON, rate, unneeded[0],
                 handle->ring_close);
    if (count == 2) {
        aiod_core_close_fd(core, 0, rate, unneeded[1]);
    }
    count_handle(core, &handle->use, -1);
    aiod_handle_remove(handle); /* this may free the session, which holds the export's rate */
}

/* A closing handle has no requests in flight any more: let a worker close the descriptors that are not needed. */
static void finish_close(struct aiod_core *core, struct aiod_handle *handle)
{
    if (needs_last_flush(core, handle) && submit_flush(core, 0, handle) == 0) {
        return; /* called again when the flush has ended */
    }
    if (handle->locked && aiod_core_release_locks(core, handle) == 0) {
        return; /* called again when they are released */
    }
    close_now(core, handle);
}

void aiod_core_start_close(struct aiod_core *core, uint64_t tag, struct aiod_handle *handle)
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
    aiod_core_start_close(core, tag, handle);
    return 0;
}

struct aiod_handle *aiod_core_take_ring_close(struct aiod_ring_request *request)
{
    struct aiod_session *session = request->ring->session;
    struct aiod_handle *handle = session->owner != NULL ? aiod_handle_find(session, request->number) : NULL;

    if (handle == NULL) { /* closed by a message, or with its session */
        aiod_ring_opens_answer_close(request, -EBADF, AIOD_REASON_NO_HANDLE);
        return NULL;
    }
    handle->ring_close = request; /* answered when the handle is closed, whatever closes it */
    return handle;
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

void aiod_core_release_handle(struct aiod_core *core, struct aiod_handle *handle)
{
    handle->inflight--;
    if (handle->closing && handle->inflight == 0) {
        finish_close(core, handle);
    }
}
