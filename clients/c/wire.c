/*
 * wire.c - the ring's socket with time limits, whatever signals come.
 *
 * By poll() and calls that do not block. SO_RCVTIMEO and SO_SNDTIMEO would do for who has no signals: with them a call is
 * not restarted even with SA_RESTART, and each attempt begins its time anew.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"

uint64_t aiod_deadline(uint64_t timeout_ns)
{
    uint64_t now = aiod_clock_ns();

    return timeout_ns < AIOD_NEVER - now ? now + timeout_ns : AIOD_NEVER;
}

/* For poll(): never less than there is. */
static int milliseconds_until(uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t left_ms = deadline_ns > now ? (deadline_ns - now + 999999) / 1000000 : 0;

    return deadline_ns == AIOD_NEVER ? -1 : left_ms < INT32_MAX ? (int)left_ms : INT32_MAX;
}

int aiod_poll(int socket, short events, uint64_t deadline_ns)
{
    struct pollfd fd = {.fd = socket, .events = events};

    for (;;) {
        int ready = poll(&fd, 1, milliseconds_until(deadline_ns));

        if (ready > 0) {
            return 0;
        }
        if (ready == 0 || aiod_clock_ns() >= deadline_ns) {
            return -ETIMEDOUT;
        }
    }
}

/* connect() waits where the backlog is full, and for as long as SO_SNDTIMEO says; poll() would not tell. */
static void limit_connect(int fd, uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t left_us = deadline_ns > now ? (deadline_ns - now + 999) / 1000 : 1;
    struct timeval timeout = {.tv_sec = (time_t)(left_us / 1000000), .tv_usec = (suseconds_t)(left_us % 1000000)};

    if (deadline_ns != AIOD_NEVER) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    }
}

/* A signal that interrupts connect() to a unix socket leaves it as it was: it is called again. */
static int connect_by(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
{
    for (;;) {
        limit_connect(fd, deadline_ns);
        if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
            return 0;
        }
        if (errno != EINTR) {
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        }
        if (aiod_clock_ns() >= deadline_ns) {
            return -ETIMEDOUT;
        }
    }
}

int aiod_dial(const char *path, uint64_t deadline_ns)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int error;
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        return aiod_fail(-ENAMETOOLONG, "%s is longer than a socket's path may be", path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return aiod_fail(-errno, "no socket: %s", strerror(errno));
    }
    error = connect_by(fd, &address, deadline_ns);
    if (error < 0) {
        close(fd);
        if (error == -EACCES) {
            return aiod_fail(
                error,
                "the aiod at %s is not for this user (%s): become a member of the group of its directory, or "
                "set AIOD_ENDPOINT",
                path, strerror(-error));
        }
        return aiod_fail(error, "no aiod at %s (%s): start aiod, or set AIOD_ENDPOINT", path, strerror(-error));
    }
    return fd;
}

pid_t aiod_peer(int socket)
{
    struct ucred who = {0};
    socklen_t size = sizeof(who);

    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 ? who.pid : 0;
}

int aiod_send_now(int socket, const void *message, size_t length)
{
    ssize_t sent;

    do {
        sent = send(socket, message, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : 0;
}

int aiod_send(int socket, const void *message, size_t length, uint64_t deadline_ns)
{
    int error;

    while ((error = aiod_send_now(socket, message, length)) == -EAGAIN) {
        if (aiod_poll(socket, POLLOUT, deadline_ns) < 0) {
            return -ETIMEDOUT;
        }
    }
    return error;
}

ssize_t aiod_receive_now(int socket, struct msghdr *message, int flags)
{
    ssize_t got;

    do {
        got = recvmsg(socket, message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t aiod_receive_by(int socket, struct msghdr *message, uint64_t deadline_ns)
{
    ssize_t got;

    while ((got = aiod_receive_now(socket, message, 0)) == -EAGAIN) {
        if (aiod_poll(socket, POLLIN, deadline_ns) < 0) {
            return -ETIMEDOUT;
        }
    }
    return got;
}
