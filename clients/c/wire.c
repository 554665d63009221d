/*
 * wire.c - the ring's socket: messages with deadlines, whatever signals arrive.
 *
 * Uses poll() and calls that do not block. Rejected: SO_RCVTIMEO and SO_SNDTIMEO. They do for programs without
 * signals; but with them a call is not restarted, not even with SA_RESTART, and each attempt begins its time anew.
 */
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"

/* For poll(): rounded up, so that poll() does not return before the deadline. */
static int milliseconds_until(uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t left_ms = deadline_ns > now ? (deadline_ns - now + AIOD_NS_PER_MS - 1) / AIOD_NS_PER_MS : 0;

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

/*
 * connect() waits while the listener's backlog is full, for SO_SNDTIMEO at most; poll() does not report that
 * backlog.
 */
static void limit_connect(int fd, uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t left_us = deadline_ns > now ? (deadline_ns - now + 999) / 1000 : 1;
    struct timeval timeout = {.tv_sec = (time_t)(left_us / 1000000), .tv_usec = (suseconds_t)(left_us % 1000000)};

    if (deadline_ns != AIOD_NEVER) {
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    }
}

/* A signal that interrupts connect() leaves a unix socket unconnected: call connect() again. */
static int connect_until(int fd, const struct sockaddr_un *address, uint64_t deadline_ns)
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

int aiod_socket_connect(const char *path, uint64_t deadline_ns)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int error;
    int fd;

    if (strlen(path) >= sizeof(address.sun_path)) {
        return aiod_fail(-ENAMETOOLONG, "the path of the socket is too long: %s", path);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return aiod_fail(-errno, "cannot create a socket: %s", strerror(errno));
    }
    error = connect_until(fd, &address, deadline_ns);
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

pid_t aiod_socket_peer(int socket)
{
    struct ucred peer = {0};
    socklen_t size = sizeof(peer);

    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
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

int aiod_fail_refused(const union aiod_answer *answer, size_t length)
{
    if (length < sizeof(answer->reply) || answer->reply.type != AIOD_RING_REPLY || answer->reply.result >= 0) {
        return aiod_fail(-EPROTO, "unexpected answer from the engine: its version may differ");
    }
    return aiod_fail_because(answer->reply.reason, (int)answer->reply.result, "%.*s",
                             (int)(length - sizeof(answer->reply)), answer->bytes + sizeof(answer->reply));
}
