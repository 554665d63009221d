/*
 * wire.h - the ring's socket (wire.c). Functions return 0, or a count, or a negative errno; -ETIMEDOUT: not done
 * before `deadline_ns`. aiod_socket_connect() and aiod_fail_refused() also keep a message.
 */
#ifndef LIBAIOD_WIRE_H
#define LIBAIOD_WIRE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "aiod_ring.h"

struct msghdr;

/* A message of the engine's. A message of one byte (AIOD_RING_WAITS_SOCKET) is none of these. */
union aiod_answer {
    uint32_t type;
    struct {
        struct aiod_ring_attached attached;
        struct aiod_ring_session session;
    };
    struct aiod_ring_reply reply;
    char bytes[sizeof(struct aiod_ring_reply) + AIOD_RING_ERROR_MESSAGE_MAX];
};

/* Wait until `socket` has one of the poll() `events`. */
int aiod_poll(int socket, short events, uint64_t deadline_ns);

/* Returns a socket that is connected to `path`. */
int aiod_socket_connect(const char *path, uint64_t deadline_ns);

/* The process at the other end; 0: unknown. */
pid_t aiod_socket_peer(int socket);

/* Send one message. aiod_send_now() does not wait: -EAGAIN. */
int aiod_send(int socket, const void *message, size_t length, uint64_t deadline_ns);
int aiod_send_now(int socket, const void *message, size_t length);

/* Receive one message; returns its length; 0: the connection has ended. aiod_receive_now() does not wait: -EAGAIN. */
ssize_t aiod_receive_by(int socket, struct msghdr *message, uint64_t deadline_ns);
ssize_t aiod_receive_now(int socket, struct msghdr *message, int flags);

/* Returns the errno of a refusal of `length` bytes, and keeps the engine's text; -EPROTO: the answer is no refusal. */
int aiod_fail_refused(const union aiod_answer *answer, size_t length);

#endif
