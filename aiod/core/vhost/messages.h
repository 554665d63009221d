/*
 * messages.h - messages of the vhost-user protocol on a stream socket, which does not block.
 *
 * A message may come in pieces. Its length and the number of its descriptors are limited; descriptors that were received are
 * owned by the message, and closed with it.
 *
 * Main loop's thread only.
 */
#ifndef AIOD_VHOST_MESSAGES_H
#define AIOD_VHOST_MESSAGES_H

#include <stddef.h>

#include "vhost/protocol.h"

struct aiod_vhost_receiver {
    struct aiod_vhost_message message;
    size_t have; /* bytes of header and payload */
};

enum aiod_vhost_received {
    AIOD_VHOST_NOTHING, /* yet */
    AIOD_VHOST_MESSAGE, /* whole; aiod_vhost_receiver_reset() must follow */
    AIOD_VHOST_ENDED,   /* the VMM has closed the connection */
    AIOD_VHOST_WRONG,   /* `why` says which rule the VMM broke */
};

enum aiod_vhost_received aiod_vhost_receive(struct aiod_vhost_receiver *receiver, int socket, const char **why);

/* Drop the message, and close the descriptors that are still its own. */
void aiod_vhost_receiver_reset(struct aiod_vhost_receiver *receiver);

/*
 * Send a message with a payload of `bytes` bytes, and a descriptor (-1: none). 0, -EAGAIN: the other end does not read, or another
 * -errno: it has gone.
 */
int aiod_vhost_send(int socket, uint32_t kind, uint32_t flags, const void *payload, size_t bytes, int fd);

#endif
