/* messages.c - receives and sends messages of the vhost-user protocol (messages.h). */
#include "vhost/messages.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEADER_BYTES sizeof(struct aiod_vhost_header)

/* Aligned room for the descriptors of a message. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(AIOD_VHOST_FDS_MAX * sizeof(int))];
};

/* False: there are too many; those are closed. */
static bool keep(struct aiod_vhost_message *message, const int *fds, size_t count)
{
    bool room = count <= AIOD_VHOST_FDS_MAX - message->fd_count;

    for (size_t i = 0; i < count; i++) {
        if (room) {
            message->fds[message->fd_count++] = fds[i];
        } else {
            close(fds[i]);
        }
    }
    return room;
}

static bool take_descriptors(struct aiod_vhost_message *message, struct msghdr *received)
{
    bool right = (received->msg_flags & MSG_CTRUNC) == 0;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(received); part != NULL; part = CMSG_NXTHDR(received, part)) {
        int fds[AIOD_VHOST_FDS_MAX];
        size_t bytes = part->cmsg_len - CMSG_LEN(0);

        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS && bytes <= sizeof(fds)) {
            memcpy(fds, CMSG_DATA(part), bytes);
            right = keep(message, fds, bytes / sizeof(fds[0])) && right;
        }
    }
    return right;
}

static char *at(struct aiod_vhost_message *message, size_t have)
{
    return have < HEADER_BYTES ? (char *)&message->header + have : (char *)message->payload.bytes + have - HEADER_BYTES;
}

static const char *check_header(const struct aiod_vhost_header *header)
{
    if ((header->flags & AIOD_VHOST_VERSION_MASK) != AIOD_VHOST_VERSION || (header->flags & AIOD_VHOST_REPLY) != 0) {
        return "a message has a wrong version or flags";
    }
    return header->bytes > AIOD_VHOST_PAYLOAD_BYTES_MAX ? "a message is too long" : NULL;
}

enum aiod_vhost_received aiod_vhost_receive(struct aiod_vhost_receiver *receiver, int socket, const char **why)
{
    struct aiod_vhost_message *message = &receiver->message;

    for (;;) {
        size_t whole = receiver->have < HEADER_BYTES ? HEADER_BYTES : HEADER_BYTES + message->header.bytes;
        struct iovec part = {.iov_base = at(message, receiver->have), .iov_len = whole - receiver->have};
        union control control;
        struct msghdr received = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
        ssize_t got = recvmsg(socket, &received, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return AIOD_VHOST_NOTHING;
        }
        if (got <= 0) {
            return AIOD_VHOST_ENDED;
        }
        if (!take_descriptors(message, &received)) {
            *why = "a message has too many descriptors";
            return AIOD_VHOST_WRONG;
        }
        receiver->have += (size_t)got;
        if (receiver->have == HEADER_BYTES) {
            *why = check_header(&message->header);
            if (*why != NULL) {
                return AIOD_VHOST_WRONG;
            }
        }
        if (receiver->have >= HEADER_BYTES && receiver->have == HEADER_BYTES + message->header.bytes) {
            return AIOD_VHOST_MESSAGE;
        }
    }
}

void aiod_vhost_receiver_reset(struct aiod_vhost_receiver *receiver)
{
    for (unsigned i = 0; i < receiver->message.fd_count; i++) {
        if (receiver->message.fds[i] >= 0) {
            close(receiver->message.fds[i]);
        }
    }
    memset(receiver, 0, sizeof(*receiver));
}

int aiod_vhost_send(int socket, uint32_t kind, uint32_t flags, const void *payload, size_t bytes, int fd)
{
    struct aiod_vhost_header header = {.kind = kind, .flags = AIOD_VHOST_VERSION | flags, .bytes = (uint32_t)bytes};
    struct iovec parts[2] = {{.iov_base = &header, .iov_len = sizeof(header)},
                             {.iov_base = (void *)(uintptr_t)payload, .iov_len = bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    union control control = {0};
    ssize_t put;

    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(fd));
        control.header =
            (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd))};
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    do {
        put = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (put < 0 && errno == EINTR);
    if (put < 0) {
        return -errno;
    }
    return put == (ssize_t)(sizeof(header) + bytes) ? 0 : -EAGAIN;
}
