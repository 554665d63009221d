/* core_rings.c - the rings of sessions: creation, attachment and removal (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>

#include "ring/poller.h"
#include "ring/ring.h"
#include "ring/ring_maker.h"

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

void aiod_core_remove_ring(struct aiod_core *core, struct aiod_ring *ring)
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
        .files = &core->files,
        .collect_timer = &core->collect_timer,
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
        aiod_core_remove_ring(core, ring);
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
    error = aiod_poller_add(core->poller, &ring->polled);
    if (error == 0) {
        session->ring = ring;
        ring->attached = true;
    }
    return error;
}

void aiod_core_finish_attach(struct aiod_core *core, struct aiod_ring *ring, struct aiod_reaped *reaped)
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
        aiod_core_remove_ring(core, ring);
    } else if (error < 0 || !wanted) {
        aiod_ring_end(ring);
    }
}

struct aiod_attached aiod_core_attached(const struct aiod_session *session)
{
    const struct aiod_ring *ring = session->ring;

    return (struct aiod_attached){ring->memory.fd, ring->polled.doorbell_fd, ring->memory.bytes};
}
