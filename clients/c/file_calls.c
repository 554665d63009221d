/*
 * file_calls.c - OPEN and CLOSE by message, repeated at the next engine where that is safe.
 */
#include "file_calls.h"

#include <errno.h>
#include <poll.h>

#include "client.h"
#include "clock.h"
#include "error.h"
#include "resume.h"
#include "wire.h"

/* The daemon is stopping, and will end the session: wait for that. socket_lock is held. */
static void await_end(struct aiod_client *client)
{
    aiod_poll(client->socket, POLLRDHUP, aiod_deadline(AIOD_RETRY_NS));
    pthread_mutex_lock(&client->lock);
    aiod_receive(client);
    pthread_mutex_unlock(&client->lock);
}

bool aiod_files_repeat(struct aiod_client *client, enum aiod_call_state state, int64_t *result)
{
    int error;

    if (client->resume == NULL || state == CALL_ANSWERED) {
        return false;
    }
    pthread_mutex_unlock(&client->lock);
    pthread_mutex_lock(&client->socket_lock);
    if (state == CALL_STOPPING) {
        await_end(client);
    }
    error = aiod_resume_await(client);
    pthread_mutex_unlock(&client->socket_lock);
    pthread_mutex_lock(&client->lock);
    if (error < 0) {
        *result = error;
    }
    return error == 0;
}

int64_t aiod_open_by_message(struct aiod_client *client, const char *path, unsigned flags, unsigned mode)
{
    struct aiod_open_message message;
    struct aiod_call_request request = {.type = AIOD_RING_OPEN, .path = path, .flags = flags};
    enum aiod_call_state state;
    size_t length;
    int64_t result;

    pthread_mutex_lock(&client->lock);
    do {
        request.cookie = aiod_next_cookie(client);
        length = aiod_put_open(&message, path, flags, mode, request.cookie);
        result = aiod_call(client, &request, &message, length, &state);
        if (state == CALL_LOST && client->resume != NULL && (flags & (AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE)) != 0) {
            result = aiod_fail(-EIO, "open %s: the engine has gone: unknown whether done", path);
            break;
        }
    } while (aiod_files_repeat(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return result;
}

/* False: the engine could not open the file again, so that there is nothing to close there. */
static bool find_engine_handle(struct aiod_client *client, uint32_t handle, uint32_t *number)
{
    *number = handle;
    if (client->open_files == NULL || client->away) {
        return true;
    }
    *number = aiod_open_files_engine_handle(client->open_files, handle);
    return *number != 0 || !aiod_open_files_remove(client->open_files, handle);
}

int aiod_close_by_message(struct aiod_client *client, uint32_t handle)
{
    struct aiod_ring_close message = {.type = AIOD_RING_CLOSE};
    struct aiod_call_request request = {.type = AIOD_RING_CLOSE, .handle = handle};
    enum aiod_call_state state;
    int64_t result = 0;

    pthread_mutex_lock(&client->lock);
    do {
        message.cookie = request.cookie = aiod_next_cookie(client);
        if (!find_engine_handle(client, handle, &message.handle)) {
            result = 0;
            break;
        }
        result = aiod_call(client, &request, &message, sizeof(message), &state);
    } while (aiod_files_repeat(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return (int)result;
}

void aiod_discard_by_message(struct aiod_client *client, uint32_t handle)
{
    uint32_t number;

    pthread_mutex_lock(&client->lock);
    if (!client->away && client->ended == 0 && find_engine_handle(client, handle, &number)) {
        aiod_close_unwanted(client, number);
        if (client->open_files != NULL) {
            aiod_open_files_remove(client->open_files, handle);
        }
    }
    pthread_mutex_unlock(&client->lock);
}
