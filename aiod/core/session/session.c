/* session.c - credit accounting, and the table of handles. */
#include "session/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/os.h"

#define FIRST_SLOTS 16u

struct aiod_session *aiod_session_create(const struct aiod_limits *limits, struct aiod_rate *rate)
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
    session->rate = rate;
    if (rate != NULL) {
        aiod_rate_ref(rate);
    }
    return session;
}

bool aiod_session_lease_over(const struct aiod_session *session)
{
    uint64_t until_ns = __atomic_load_n(&session->lease_until_ns, __ATOMIC_RELAXED);

    return until_ns != 0 && aiod_boot_ns() >= until_ns;
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
    while (session->flows != NULL) {
        struct aiod_session_flow *next = session->flows->next;

        aiod_rate_unref(session->flows->flow.rates[0]);
        aiod_stats_destroy(&session->flows->ring_stats);
        free(session->flows);
        session->flows = next;
    }
    aiod_rate_unref(session->rate);
    aiod_stats_destroy(&session->stats);
    free(session->completed_bytes);
    free(session->slots);
    free(session);
}

/* ---- credit ------------------------------------------------------------------------------------------------------ */

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

/* ---- handles ----------------------------------------------------------------------------------------------------- */

/* Grow the table to at least `count` slots. 0, or -ENOMEM. */
static int grow_slots(struct aiod_session *session, uint32_t count)
{
    struct aiod_handle_slot *slots;

    if (count <= session->slot_count) {
        return 0;
    }
    slots = realloc(session->slots, count * sizeof(*slots));
    if (slots == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = session->slot_count; i < count; i++) {
        slots[i] = (struct aiod_handle_slot){0};
    }
    session->slots = slots;
    session->slot_count = count;
    return 0;
}

/* The index of a free slot, after growing the table if there is none; or -errno. */
static int64_t find_slot(struct aiod_session *session)
{
    uint32_t before = session->slot_count;
    uint32_t count = before == 0 ? FIRST_SLOTS : before * 2;

    for (uint32_t i = 0; i < before && session->handle_count + session->lent_count < before; i++) {
        if (session->slots[i].handle == NULL && !session->slots[i].lent) {
            return i;
        }
    }
    count = count < session->limits.handles_max ? count : session->limits.handles_max;
    return grow_slots(session, count) < 0 ? -ENOMEM : (int64_t)before;
}

/* The index of the slot for this handle number; or -errno. */
static int64_t slot_of(struct aiod_session *session, uint32_t number)
{
    uint32_t index = (number & 0xffff) - 1;

    if (index >= session->limits.handles_max) {
        return -EMFILE;
    }
    if (grow_slots(session, index + 1) < 0) {
        return -ENOMEM;
    }
    if (session->slots[index].handle != NULL || session->slots[index].lent) {
        return -EEXIST;
    }
    session->slots[index].generation = (uint16_t)(number >> 16);
    return index;
}

/* Copy `count` bytes to `*end`, and move that behind them. */
static const char *copy_to(char **end, const char *from, size_t count)
{
    char *copy = *end;

    if (count > 0) {
        memcpy(copy, from, count);
    }
    *end += count;
    return copy;
}

/* Allocate a handle, with copies of the ioctls, the name, the root and the keeping in the same block. */
static struct aiod_handle *allocate(const struct aiod_handle_use *use)
{
    const char *name = use->name != NULL ? use->name : "";
    const struct aiod_keeping *keeping = &use->names.keeping;
    size_t name_bytes = strlen(name) + 1;
    size_t root_bytes = use->names.root != NULL ? strlen(use->names.root) + 1 : 0;
    size_t bytes = use->ioctls.count * sizeof(*use->ioctls.items);
    struct aiod_handle *handle =
        calloc(1, sizeof(*handle) + bytes + name_bytes + root_bytes + keeping->token_bytes + keeping->record_bytes);
    char *end = (char *)(handle + 1);

    if (handle == NULL) {
        return NULL;
    }
    handle->use = *use;
    handle->use.ioctls.items = (const struct aiod_ioctl *)copy_to(&end, (const char *)use->ioctls.items, bytes);
    handle->use.name = copy_to(&end, name, name_bytes);
    if (root_bytes > 0) {
        handle->use.names.root = copy_to(&end, use->names.root, root_bytes);
    }
    handle->use.names.keeping.token = copy_to(&end, keeping->token, keeping->token_bytes);
    handle->use.names.keeping.record = copy_to(&end, keeping->record, keeping->record_bytes);
    return handle;
}

/* The session's flow for the export with this rate; NULL if there is no memory. */
static struct aiod_flow *flow_of(struct aiod_session *session, struct aiod_rate *rate)
{
    struct aiod_session_flow *flow = session->flows;

    while (flow != NULL && flow->flow.rates[0] != rate) {
        flow = flow->next;
    }
    if (flow != NULL) {
        return &flow->flow;
    }
    flow = calloc(1, sizeof(*flow));
    if (flow == NULL) {
        return NULL;
    }
    flow->flow.rates[0] = rate;
    flow->flow.rates[1] = session->rate;
    if (rate != NULL) {
        aiod_rate_ref(rate);
    }
    flow->next = session->flows;
    session->flows = flow;
    return &flow->flow;
}

struct aiod_handle *aiod_handle_create(struct aiod_session *session, int fd, struct aiod_file *file,
                                       const struct aiod_handle_use *use, struct aiod_flow *flow, uint32_t number)
{
    struct aiod_handle *handle = allocate(use);

    if (handle == NULL) {
        return NULL;
    }
    handle->session = session;
    handle->flow = flow;
    handle->file = file;
    handle->fd = fd;
    handle->store_fd = -1;
    handle->number = number;
    return handle;
}

void aiod_handle_destroy(struct aiod_handle *handle)
{
    free(handle->regained);
    free(handle);
}

static uint32_t slot_index(uint32_t number)
{
    return (number & 0xffff) - 1;
}

static uint32_t next_number(const struct aiod_session *session, uint32_t index)
{
    return (uint32_t)session->slots[index].generation << 16 | (index + 1);
}

uint32_t aiod_handle_next_number(uint32_t number)
{
    return (number + (1u << 16));
}

static void insert(struct aiod_session *session, struct aiod_handle *handle)
{
    session->slots[slot_index(handle->number)].handle = handle;
    session->handle_count++;
    session->names_count += handle->use.names.root != NULL;
    aiod_session_ref(session);
}

/* ---- slots that are lent to the ring ----------------------------------------------------------------------------- */

int64_t aiod_handle_lend(struct aiod_session *session)
{
    int64_t index =
        session->handle_count + session->lent_count >= session->limits.handles_max ? -EMFILE : find_slot(session);

    if (index < 0) {
        return index;
    }
    session->slots[index].lent = true;
    session->lent_count++;
    return next_number(session, (uint32_t)index);
}

void aiod_handle_take_back(struct aiod_session *session, uint32_t number)
{
    struct aiod_handle_slot *slot = &session->slots[slot_index(number)];

    slot->lent = false;
    slot->generation = (uint16_t)(number >> 16);
    session->lent_count--;
}

void aiod_handle_register(struct aiod_session *session, struct aiod_handle *handle)
{
    aiod_handle_take_back(session, handle->number);
    insert(session, handle);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

int64_t aiod_handle_add(struct aiod_session *session, int fd, struct aiod_file *file, const struct aiod_handle_use *use,
                        const struct aiod_resumed *resumed)
{
    bool again = resumed != NULL && resumed->number != 0;
    struct aiod_handle *handle;
    struct aiod_flow *flow;
    int64_t index;

    if (session->handle_count + session->lent_count >= session->limits.handles_max) {
        return -EMFILE;
    }
    index = again ? slot_of(session, resumed->number) : find_slot(session);
    if (index < 0) {
        return index;
    }
    flow = flow_of(session, use->rate);
    handle =
        flow == NULL ? NULL : aiod_handle_create(session, fd, file, use, flow, next_number(session, (uint32_t)index));
    if (handle == NULL) {
        return -ENOMEM;
    }
    insert(session, handle);
    return handle->number;
}

void aiod_handle_retire(struct aiod_session *session, uint32_t number)
{
    int64_t index = slot_of(session, number);

    if (index >= 0) {
        session->slots[index].generation++;
    }
}

struct aiod_session_flow *aiod_handle_flow(const struct aiod_handle *handle)
{
    return (struct aiod_session_flow *)handle->flow; /* the first member */
}

struct aiod_handle *aiod_handle_find(const struct aiod_session *session, uint32_t number)
{
    uint32_t index = (number & 0xffff) - 1;
    struct aiod_handle *handle = index < session->slot_count ? session->slots[index].handle : NULL;

    return handle != NULL && handle->number == number && !handle->closing ? handle : NULL;
}

bool aiod_handle_reads_inline(const struct aiod_handle *handle)
{
    return !handle->use.direct && handle->use.faults.count == 0 && !aiod_flow_limited(handle->flow) &&
           !__atomic_load_n(&handle->never_nowait, __ATOMIC_RELAXED);
}

void aiod_handle_remove(struct aiod_handle *handle)
{
    struct aiod_session *session = handle->session;
    struct aiod_handle_slot *slot = &session->slots[(handle->number & 0xffff) - 1];

    slot->handle = NULL;
    slot->generation++;
    session->handle_count--;
    session->names_count -= handle->use.names.root != NULL;
    aiod_handle_destroy(handle);
    aiod_session_unref(session);
}
