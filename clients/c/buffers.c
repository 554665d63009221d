/*
 * buffers.c - buffers in the ring's memory, as aiod.h offers them and as blocking calls use them.
 */
#include "buffers.h"

#include "client.h"

void aiod_release_buffer(struct aiod_client *client, void *buffer)
{
    aiod_waiters_count_room(client);
    if (client->waiters.room_waiters > 0) {
        aiod_waiters_wake_all(client);
    }
    aiod_areas_release(&client->areas, buffer);
}

void *aiod_alloc(struct aiod_client *client, uint64_t bytes)
{
    void *buffer;

    if (aiod_forked(client)) {
        return NULL;
    }
    pthread_mutex_lock(&client->lock);
    buffer = aiod_areas_get(&client->areas, bytes);
    pthread_mutex_unlock(&client->lock);
    return buffer;
}

void aiod_free(struct aiod_client *client, void *buffer)
{
    if (buffer == NULL || aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    aiod_release_buffer(client, buffer);
    pthread_mutex_unlock(&client->lock);
}

uint64_t aiod_alloc_max(const struct aiod_client *client)
{
    return aiod_buffer_pool_largest(&client->areas.pool);
}

bool aiod_in_area(struct aiod_client *client, const void *data, uint64_t bytes)
{
    bool contained;

    if (aiod_forked(client)) {
        return false;
    }
    if (client->resume == NULL) { /* the area never moves */
        return aiod_areas_contain(&client->areas, data, bytes);
    }
    pthread_mutex_lock(&client->lock);
    contained = aiod_areas_contain(&client->areas, data, bytes);
    pthread_mutex_unlock(&client->lock);
    return contained;
}

/* ---- of blocking calls ------------------------------------------------------------------------------------------- */

void *aiod_borrow_buffer(struct aiod_client *client, uint64_t bytes)
{
    void *buffer;

    pthread_mutex_lock(&client->lock);
    buffer = aiod_areas_get(&client->areas, bytes);
    client->borrowed += buffer != NULL;
    pthread_mutex_unlock(&client->lock);
    return buffer;
}

void aiod_return_buffer(struct aiod_client *client, void *buffer)
{
    if (buffer == NULL) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    client->borrowed--;
    aiod_release_buffer(client, buffer);
    pthread_mutex_unlock(&client->lock);
}

void aiod_disown_buffer(struct aiod_client *client, const void *buffer)
{
    pthread_mutex_lock(&client->lock);
    client->borrowed -= buffer != NULL;
    pthread_mutex_unlock(&client->lock);
}
