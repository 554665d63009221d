/* notices.c - packs and sends the messages. */
#include "ops/notices.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define TIMEOUT_MS 1000 /* the supervisor may be stopped */
#define NUMBER_BYTES 9

static uint8_t *put_number(uint8_t *at, uint64_t number)
{
    *at++ = 0xcf; /* msgpack: uint 64, big endian */
    for (int shift = 56; shift >= 0; shift -= 8) {
        *at++ = (uint8_t)(number >> shift);
    }
    return at;
}

static bool send_to(int socket, const struct msghdr *message)
{
    struct pollfd writable = {.fd = socket, .events = POLLOUT};

    while (sendmsg(socket, message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (errno == EAGAIN ? poll(&writable, 1, TIMEOUT_MS) == 0 : errno != EINTR) {
            return false;
        }
    }
    return true;
}

static struct iovec piece(const void *bytes, size_t count)
{
    return (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = count};
}

void aiod_notice_poisoned(int socket, uint64_t dev, uint64_t ino)
{
    static const char head[] = "\x93\xa8poisoned";
    uint8_t numbers[2 * NUMBER_BYTES];
    struct iovec pieces[] = {piece(head, sizeof(head) - 1), piece(numbers, sizeof(numbers))};

    put_number(put_number(numbers, dev), ino);
    send_to(socket, &(struct msghdr){.msg_iov = pieces, .msg_iovlen = 2});
}

bool aiod_notice_keep(int socket, const struct aiod_keeping *keeping, const struct aiod_kept *kept)
{
    static const char head[] = "\x94\xa4keep";
    uint8_t handle[NUMBER_BYTES];
    uint8_t rest[3 * NUMBER_BYTES];
    struct iovec pieces[] = {piece(head, sizeof(head) - 1), piece(keeping->token, keeping->token_bytes),
                             piece(handle, sizeof(handle)), piece(keeping->record, keeping->record_bytes),
                             piece(rest, sizeof(rest))};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))}};

    put_number(handle, kept->handle);
    put_number(put_number(put_number(rest, kept->flags), kept->dev), kept->ino);
    memcpy(CMSG_DATA(&control.header), &kept->fd, sizeof(int));
    return send_to(socket, &(struct msghdr){.msg_iov = pieces,
                                            .msg_iovlen = sizeof(pieces) / sizeof(pieces[0]),
                                            .msg_control = control.bytes,
                                            .msg_controllen = sizeof(control.bytes)});
}

void aiod_notice_drop(int socket, const struct aiod_keeping *keeping, uint32_t handle)
{
    static const char head[] = "\x93\xa4"
                               "drop";
    uint8_t number[NUMBER_BYTES];
    struct iovec pieces[] = {piece(head, sizeof(head) - 1), piece(keeping->token, keeping->token_bytes),
                             piece(number, sizeof(number))};

    put_number(number, handle);
    send_to(socket, &(struct msghdr){.msg_iov = pieces, .msg_iovlen = 3});
}
