/*
 * loop.c - an event loop that sleeps on aiod_fd() beside threads that wait and call.
 *
 * All of them share one `client_waits` and one socket. The rule: while a thread leads, `client_waits` is the
 * leader's; otherwise it is the armed loop's. A thread that takes what the loop sleeps for, a completion to be
 * reaped or the engine's byte on the socket, rings the loop's bell.
 *
 * Rejected: another value of `client_waits` that wakes both. Engines that do not know it would wake neither.
 */
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client.h"
#include "error.h"

void aiod_loop_init(struct aiod_loop *loop)
{
    *loop = (struct aiod_loop){.epoll = -1, .bell = -1, .timer = -1};
}

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

void aiod_loop_destroy(struct aiod_loop *loop)
{
    close_if_open(&loop->epoll);
    close_if_open(&loop->bell);
    close_if_open(&loop->timer);
}

static int watch(const struct aiod_loop *loop, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};

    return fd < 0 ? 0 : epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event);
}

int aiod_loop_open(struct aiod_client *client)
{
    struct aiod_loop *loop = &client->loop;

    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    loop->bell = eventfd(loop->bell_set ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll < 0 || loop->bell < 0 || watch(loop, loop->bell) < 0 ||
        watch(loop, client->away ? -1 : client->socket) < 0 || watch(loop, loop->timer) < 0) {
        int error = errno;

        close_if_open(&loop->epoll);
        close_if_open(&loop->bell);
        return aiod_fail(-error, "cannot create the event loop's descriptors: %s", strerror(error));
    }
    return 0;
}

/* ---- the timer and the socket ------------------------------------------------------------------------------------ */

int aiod_loop_create_timer(struct aiod_loop *loop)
{
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return loop->timer < 0 ? aiod_fail(-errno, "cannot create a timer: %s", strerror(errno)) : 0;
}

void aiod_loop_set_timer(const struct aiod_loop *loop, uint64_t period_ns)
{
    struct itimerspec spec = {.it_value.tv_nsec = (long)period_ns, .it_interval.tv_nsec = (long)period_ns};

    timerfd_settime(loop->timer, 0, &spec, NULL);
}

void aiod_loop_watch_socket(const struct aiod_client *client)
{
    if (client->loop.epoll >= 0) {
        watch(&client->loop, client->socket);
    }
}

void aiod_loop_ignore_socket(const struct aiod_client *client)
{
    if (client->loop.epoll >= 0) {
        epoll_ctl(client->loop.epoll, EPOLL_CTL_DEL, client->socket, NULL);
    }
}

/* ---- the bell ---------------------------------------------------------------------------------------------------- */

void aiod_loop_ring(struct aiod_loop *loop)
{
    loop->bell_set = true;
    if (loop->bell >= 0) {
        eventfd_write(loop->bell, 1);
    }
}

void aiod_loop_silence(struct aiod_client *client)
{
    struct aiod_loop *loop = &client->loop;
    uint64_t count;

    if (loop->bell_set && client->ended == 0) {
        loop->bell_set = false;
        if (loop->bell >= 0) {
            (void)!read(loop->bell, &count, sizeof(count));
        }
    }
    if (loop->timer >= 0) {
        (void)!read(loop->timer, &count, sizeof(count));
    }
}

void aiod_loop_completion_taken(struct aiod_loop *loop)
{
    if (loop->armed && !loop->notified) {
        loop->notified = true;
        aiod_loop_ring(loop);
    }
}

void aiod_loop_byte_taken(struct aiod_loop *loop)
{
    if (loop->armed) {
        loop->notified = true;
        aiod_loop_ring(loop);
    }
}

/* ---- client_waits ------------------------------------------------------------------------------------------------ */

void aiod_loop_yield_client_waits(struct aiod_client *client)
{
    /* If the engine has reset the word, its byte is on the way. One byte is enough: many would fill the socket. */
    if (client->loop.armed &&
        __atomic_exchange_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED) == AIOD_RING_AWAKE) {
        client->loop.notified = true;
    }
}

void aiod_loop_take_client_waits(struct aiod_client *client)
{
    if (client->loop.armed && !client->loop.notified) {
        __atomic_store_n(&client->header->client_waits, AIOD_RING_WAITS_SOCKET, __ATOMIC_SEQ_CST);
    }
}
