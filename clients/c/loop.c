/*
 * loop.c - an event loop that sleeps on aiod_fd() beside threads that wait and call.
 *
 * There is one `client_waits`, and one socket, for all of them. The rule: while a thread leads, `client_waits` is the
 * leader's; otherwise it is the armed loop's. Whoever takes something that the loop sleeps for - a completion to be reaped,
 * or the engine's byte on the socket - rings the loop's bell.
 *
 * Rejected: another value of `client_waits` that wakes both. Engines that do not know it would wake nobody.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "client.h"

static int watch(const struct aiod_client *client, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};

    return fd < 0 ? 0 : epoll_ctl(client->epoll, EPOLL_CTL_ADD, fd, &event);
}

/* The descriptors, for who has an event loop. */
static int make(struct aiod_client *client)
{
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    client->bell = eventfd(client->rung ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (client->epoll < 0 || client->bell < 0 || watch(client, client->bell) < 0 ||
        watch(client, client->away ? -1 : client->socket) < 0 ||
        watch(client, client->resume != NULL ? aiod_resume_timer(client) : -1) < 0) {
        int error = errno;

        aiod_loop_destroy(client);
        return aiod_fail(-error, "no descriptors: %s", strerror(error));
    }
    return 0;
}

void aiod_loop_destroy(struct aiod_client *client)
{
    if (client->epoll >= 0) {
        close(client->epoll);
    }
    if (client->bell >= 0) {
        close(client->bell);
    }
    client->epoll = client->bell = -1;
}

void aiod_loop_watch_socket(const struct aiod_client *client)
{
    if (client->epoll >= 0) {
        watch(client, client->socket);
    }
}

void aiod_loop_leave_socket(const struct aiod_client *client)
{
    if (client->epoll >= 0) {
        epoll_ctl(client->epoll, EPOLL_CTL_DEL, client->socket, NULL);
    }
}

void aiod_loop_ring(struct aiod_client *client)
{
    client->rung = true;
    if (client->bell >= 0) {
        eventfd_write(client->bell, 1);
    }
}

void aiod_loop_pass_on(struct aiod_client *client)
{
    if (client->armed && !client->told) {
        client->told = true;
        aiod_loop_ring(client);
    }
}

void aiod_loop_pass_byte_on(struct aiod_client *client)
{
    if (client->armed) {
        client->told = true;
        aiod_loop_ring(client);
    }
}

void aiod_loop_yield_word(struct aiod_client *client)
{
    /* If the engine has taken it, its byte is on the way. One is enough: many would fill the socket. */
    if (client->armed &&
        __atomic_exchange_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED) == AIOD_RING_AWAKE) {
        client->told = true;
    }
}

void aiod_loop_take_word(struct aiod_client *client)
{
    if (client->armed && !client->told) {
        __atomic_store_n(&client->header->client_waits, AIOD_RING_WAITS_SOCKET, __ATOMIC_SEQ_CST);
    }
}

int aiod_fd(struct aiod_client *client)
{
    int error;

    if (aiod_forked(client)) {
        return client->epoll >= 0 ? client->epoll : aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    error = client->epoll >= 0 ? 0 : make(client);
    pthread_mutex_unlock(&client->lock);
    return error < 0 ? error : client->epoll;
}

static void disarm(struct aiod_client *client)
{
    client->armed = false;
    if (!client->leading) {
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
    client->armed = true;
    client->told = client->left; /* aiod_fd() is readable */
    if (!client->leading) {
        aiod_loop_take_word(client);
    }
    aiod_drain(client);
    nothing = client->done == NULL && client->ended == 0;
    if (!nothing) {
        disarm(client);
    }
    pthread_mutex_unlock(&client->lock);
    return nothing;
}

/* Have aiod_fd() unreadable; for good readable when the session has ended. */
static void silence(struct aiod_client *client)
{
    if (client->rung && client->ended == 0) {
        eventfd_t times;

        client->rung = false;
        if (client->bell >= 0) {
            eventfd_read(client->bell, &times);
        }
    }
    if (client->resume != NULL) {
        aiod_resume_disarm(client);
    }
}

void aiod_disarm(struct aiod_client *client)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    disarm(client);
    silence(client);
    client->left = !aiod_receive(client);
    if (client->away) {
        aiod_resume_tick(client);
    }
    pthread_mutex_unlock(&client->lock);
}
