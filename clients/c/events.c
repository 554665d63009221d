/*
 * events.c - the functions of an event loop: aiod_fd(), aiod_arm() and aiod_disarm(). loop.h has the descriptors.
 */
#include "client.h"
#include "forks.h"
#include "resume.h"

int aiod_fd(struct aiod_client *client)
{
    int error;

    if (aiod_forked(client)) {
        return client->loop.epoll >= 0 ? client->loop.epoll : aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    error = client->loop.epoll >= 0 ? 0 : aiod_loop_open(client);
    pthread_mutex_unlock(&client->lock);
    return error < 0 ? error : client->loop.epoll;
}

static void disarm(struct aiod_client *client)
{
    client->loop.armed = false;
    if (!client->waiters.leading) {
        __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED);
    }
}

bool aiod_arm(struct aiod_client *client)
{
    bool nothing;

    if (aiod_forked(client)) {
        return false;
    }
    pthread_mutex_lock(&client->lock);
    client->loop.armed = true;
    client->loop.notified = client->loop.answer_left; /* the answer keeps aiod_fd() readable */
    if (!client->waiters.leading) {
        aiod_loop_take_client_waits(client);
    }
    aiod_queue_drain(client);
    nothing = client->queue.done == NULL && client->ended == 0;
    if (!nothing) {
        disarm(client);
    }
    pthread_mutex_unlock(&client->lock);
    return nothing;
}

void aiod_disarm(struct aiod_client *client)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    disarm(client);
    aiod_loop_silence(client);
    client->loop.answer_left = !aiod_receive(client);
    if (client->away) {
        aiod_resume_poll(client);
    }
    pthread_mutex_unlock(&client->lock);
}
