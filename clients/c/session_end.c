/*
 * session_end.c - the end of a session, and the functions that report it.
 */
#include "session_end.h"

#include <errno.h>

#include "client.h"

void aiod_end_session(struct aiod_client *client, int error)
{
    if (client->ended != 0) {
        return;
    }
    aiod_queue_withdraw(client);
    aiod_queue_drain(client);
    client->ended = error;
    client->away = false;
    aiod_queue_fail_all(client, error);
    aiod_lose_calls(client);
    aiod_loop_ring(&client->loop);
    aiod_waiters_wake_all(client);
}

int aiod_ended(struct aiod_client *client)
{
    int ended;

    if (aiod_forked(client)) {
        return EBADF;
    }
    pthread_mutex_lock(&client->lock);
    ended = client->ended;
    pthread_mutex_unlock(&client->lock);
    return ended;
}

unsigned aiod_last_word(const struct aiod_client *client)
{
    return aiod_forked(client) ? 0 : __atomic_load_n(&client->header->shutdown_notice, __ATOMIC_ACQUIRE);
}
