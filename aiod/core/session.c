#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_SLOTS 16u

struct aiod_session *aiod_session_create(const struct aiod_limits *limits)
{
    struct aiod_session *session = calloc(1, sizeof(*session));

    if (session == NULL) {
        return NULL;
    }
    session->limits = *limits;
    session->refs = 1;
    session->completed_bytes = calloc((size_t)limits->depth_max * 2, sizeof(*session->completed_bytes));
    if (session->completed_bytes == NULL) {
        free(session);
        return NULL;
    }
    return session;
}

void aiod_session_ref(struct aiod_session *session)
{
    session->refs++;
}

void aiod_session_unref(struct aiod_session *session)
{
    if (--session->refs > 0) {
        return;
    }
    aiod_stats_destroy(&session->stats);
    free(session->completed_bytes);
    free(session->slots);
    free(session);
}

/* ---- credit -------------------------------------------------------------------------------------------------------- */

static uint64_t *ring_slot(const struct aiod_session *session, uint64_t number)
{
    return &session->completed_bytes[number % ((uint64_t)session->limits.depth_max * 2)];
}

bool aiod_session_acknowledge(struct aiod_session *session, uint64_t received)
{
    if (received < session->acknowledged || received > session->completed) {
        return false;
    }
    while (session->acknowledged < received) {
        session->unacknowledged_bytes -= *ring_slot(session, session->acknowledged);
        session->acknowledged++;
    }
    return true;
}

uint64_t aiod_session_unacknowledged(const struct aiod_session *session)
{
    return session->submitted - session->acknowledged;
}

bool aiod_session_charge(struct aiod_session *session, uint64_t length)
{
    session->submitted++;
    if (aiod_session_unacknowledged(session) > session->limits.depth_max ||
        length > session->limits.bytes_max - session->unacknowledged_bytes) {
        return false;
    }
    session->unacknowledged_bytes += length;
    return true;
}

void aiod_session_complete(struct aiod_session *session, uint64_t length)
{
    *ring_slot(session, session->completed) = length;
    session->completed++;
}

/* ---- handles ------------------------------------------------------------------------------------------------------- */

/* Index of a free slot, more slots being made when there is none; -errno. */
static int64_t find_slot(struct aiod_session *session)
{
    uint32_t count = session->slot_count == 0 ? FIRST_SLOTS : session->slot_count * 2;
    struct aiod_handle_slot *slots;

    if (session->handle_count >= session->limits.handles_max) {
        return -EMFILE;
    }
    for (uint32_t i = 0; i < session->slot_count && session->handle_count < session->slot_count; i++) {
        if (session->slots[i].handle == NULL) {
            return i;
        }
    }
    count = count < session->limits.handles_max ? count : session->limits.handles_max;
    slots = realloc(session->slots, count * sizeof(*slots));
    if (slots == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = session->slot_count; i < count; i++) {
        slots[i] = (struct aiod_handle_slot){0};
    }
    session->slots = slots;
    session->slot_count = count;
    return session->handle_count;
}

/* A handle with room for its ioctls behind it. */
static struct aiod_handle *allocate(const struct aiod_ioctls *ioctls)
{
    size_t bytes = ioctls->count * sizeof(*ioctls->items);
    struct aiod_handle *handle = malloc(sizeof(*handle) + bytes);

    if (handle != NULL && bytes > 0) {
        memcpy(handle + 1, ioctls->items, bytes);
    }
    return handle;
}

int64_t aiod_handle_add(struct aiod_session *session, int fd, struct aiod_file *file, const struct aiod_handle_use *use)
{
    int64_t index = find_slot(session);
    struct aiod_handle *handle;

    if (index < 0) {
        return index;
    }
    handle = allocate(&use->ioctls);
    if (handle == NULL) {
        return -ENOMEM;
    }
    *handle = (struct aiod_handle){
        .session = session,
        .file = file,
        .fd = fd,
        .number = (uint32_t)session->slots[index].generation << 16 | (uint32_t)(index + 1),
        .use = *use,
    };
    handle->use.ioctls.items = (const struct aiod_ioctl *)(handle + 1);
    session->slots[index].handle = handle;
    session->handle_count++;
    aiod_session_ref(session);
    return handle->number;
}

struct aiod_handle *aiod_handle_find(const struct aiod_session *session, uint32_t number)
{
    uint32_t index = (number & 0xffff) - 1;
    struct aiod_handle *handle = index < session->slot_count ? session->slots[index].handle : NULL;

    return handle != NULL && handle->number == number && !handle->closing ? handle : NULL;
}

void aiod_handle_remove(struct aiod_handle *handle)
{
    struct aiod_session *session = handle->session;
    struct aiod_handle_slot *slot = &session->slots[(handle->number & 0xffff) - 1];

    slot->handle = NULL;
    slot->generation++;
    session->handle_count--;
    free(handle);
    aiod_session_unref(session);
}
