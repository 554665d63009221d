/*
 * buffers.c - who has which part of the buffer area, and of those of engines before (resume.h).
 */
#include "client.h"
#include "resume.h"

uint64_t aiod_offset_of(const struct aiod_client *client, const void *buffer)
{
    const char *data = buffer;

    if (client->resume != NULL) {
        const struct aiod_old_area *old = aiod_old_area_of(client->resume, client->area_bytes, data);

        if (old != NULL) {
            return (uint64_t)(data - old->base);
        }
    }
    return (uint64_t)(data - client->area_base);
}

void aiod_make_room(struct aiod_client *client)
{
    __atomic_store_n(&client->room_count, client->room_count + 1, __ATOMIC_RELEASE);
}

void aiod_put_buffer(struct aiod_client *client, void *buffer)
{
    aiod_make_room(client);
    if (client->room_waiters > 0) {
        aiod_wake_all(client);
    }
    aiod_area_put(&client->area, aiod_offset_of(client, buffer));
    if (client->resume != NULL) {
        aiod_old_area_put(client->resume, client->area_bytes, buffer);
    }
}

/* Lock held. */
static void *get_buffer(struct aiod_client *client, uint64_t bytes)
{
    uint64_t offset = aiod_area_get(&client->area, bytes);

    if (offset == UINT64_MAX) {
        return NULL;
    }
    if (client->resume != NULL) {
        client->resume->taken++;
    }
    return client->area_base + offset;
}

void *aiod_alloc(struct aiod_client *client, uint64_t bytes)
{
    void *buffer;

    if (aiod_forked(client)) {
        return NULL;
    }
    pthread_mutex_lock(&client->lock);
    buffer = get_buffer(client, bytes);
    pthread_mutex_unlock(&client->lock);
    return buffer;
}

void aiod_free(struct aiod_client *client, void *buffer)
{
    if (buffer == NULL || aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    aiod_put_buffer(client, buffer);
    pthread_mutex_unlock(&client->lock);
}

/* ---- of blocking calls ------------------------------------------------------------------------------------------------ */

void *aiod_borrow(struct aiod_client *client, uint64_t bytes)
{
    void *buffer;

    pthread_mutex_lock(&client->lock);
    buffer = get_buffer(client, bytes);
    client->borrowed += buffer != NULL;
    pthread_mutex_unlock(&client->lock);
    return buffer;
}

void aiod_give_back_borrowed(struct aiod_client *client, void *buffer)
{
    if (buffer == NULL) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    client->borrowed--;
    aiod_put_buffer(client, buffer);
    pthread_mutex_unlock(&client->lock);
}

void aiod_abandon_borrowed(struct aiod_client *client, struct aiod_op *op)
{
    pthread_mutex_lock(&client->lock);
    client->borrowed -= op->buffer != NULL;
    pthread_mutex_unlock(&client->lock);
    aiod_abandon(client, op);
}

static bool lies_in(const char *base, uint64_t area_bytes, const char *first, uint64_t bytes)
{
    return first >= base && first <= base + area_bytes && bytes <= (uint64_t)(base + area_bytes - first);
}

bool aiod_in_area(struct aiod_client *client, const void *data, uint64_t bytes)
{
    const struct aiod_old_area *old;
    bool does;

    if (aiod_forked(client)) {
        return false;
    }
    if (client->resume == NULL) {
        return lies_in(client->area_base, client->area_bytes, data, bytes);
    }
    pthread_mutex_lock(&client->lock);
    old = aiod_old_area_of(client->resume, client->area_bytes, data);
    does = lies_in(old != NULL ? old->base : client->area_base, client->area_bytes, data, bytes);
    pthread_mutex_unlock(&client->lock);
    return does;
}

uint64_t aiod_alloc_max(const struct aiod_client *client)
{
    return aiod_area_largest(&client->area);
}
