/* core.c - creation and end, cancellation, the drain, statistics and active requests (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>

#include "ring/poller.h"
#include "ring/ring.h"
#include "ring/ring_maker.h"
#include "util/os.h"
#include "vhost/device.h"

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
    error = aiod_collect_timer_init(&core->collect_timer);
    if (error < 0) {
        aiod_pool_stop(core->pool, AIOD_POOL_NEVER / 2);
        aiod_pool_destroy(core->pool);
        free(core);
        return error;
    }
    error = aiod_poller_create(&core->poller, core->pool, config->poll_max_ns, config->rings_max);
    if (error == 0) {
        error = aiod_ring_maker_create(&core->maker, config->pool.name);
    }
    if (error < 0) {
        if (core->poller != NULL) {
            aiod_poller_destroy(core->poller);
        }
        aiod_pool_stop(core->pool, AIOD_POOL_NEVER / 2);
        aiod_pool_destroy(core->pool);
        aiod_collect_timer_destroy(&core->collect_timer);
        free(core);
        return error;
    }
    aiod_files_init(&core->files);
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
    if (core->vhost != NULL) {
        aiod_vhost_device_destroy(core->vhost);
    }
    aiod_poller_destroy(core->poller);
    aiod_ring_maker_destroy(core->maker);
    aiod_open_as_client_threads_destroy(&core->open_as_client);
    aiod_pool_destroy(core->pool);
    aiod_stats_destroy(&core->stats);
    aiod_export_stats_destroy(core->exports);
    aiod_buffers_destroy(&core->buffers);
    aiod_files_destroy(&core->files);
    aiod_collect_timer_destroy(&core->collect_timer);
    free(core);
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
    aiod_core_end_opens(core, session);
    for (uint32_t i = 0; i < session->slot_count; i++) {
        struct aiod_handle *handle = session->slots[i].handle;

        if (handle != NULL && !handle->closing) {
            aiod_core_start_close(core, 0, handle);
        }
    }
    if (session->ring != NULL) {
        aiod_poller_remove(core->poller, &session->ring->polled);
        aiod_ring_end(session->ring);
        session->ring = NULL;
    }
    aiod_session_unref(session);
}

/* ---- drain and statistics ---------------------------------------------------------------------------------------- */

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
    inflight += core->vhost != NULL ? aiod_vhost_device_inflight(core->vhost) : 0;
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

void aiod_core_snapshot_stats(struct aiod_core *core, struct aiod_stats *stats, struct aiod_stats *unnamed)
{
    aiod_export_stats_begin(core->exports);
    aiod_stats_add(unnamed, &core->stats);
    for (struct aiod_ring *ring = core->rings; ring != NULL; ring = ring->next) {
        aiod_ring_show_stats(ring, unnamed);
    }
    if (core->vhost != NULL) {
        struct aiod_export_stats *entry = aiod_handle_flow(core->vhost->backend.handle)->exported;

        aiod_vhost_device_add_stats(core->vhost, entry != NULL ? &entry->shown : unnamed);
    }
    aiod_stats_add(stats, unnamed);
    for (struct aiod_export_stats *entry = core->exports; entry != NULL; entry = entry->next) {
        aiod_stats_add(stats, &entry->shown);
    }
}

struct aiod_stats *aiod_core_stats_of(struct aiod_core *core, const struct aiod_handle *handle)
{
    struct aiod_export_stats *entry = handle != NULL ? aiod_handle_flow(handle)->exported : NULL;

    return entry != NULL ? &entry->stats : &core->stats;
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
    pid_t others[] = {aiod_ring_maker_tid(core->maker)};
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
    *view = (struct aiod_active_request_info){.age_ns = active->age_ns, .tid = active->tid, .started = active->started};
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
