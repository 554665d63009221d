/*
 * ioctls.h - the ioctls that an export allows, each with the one size that its argument has.
 *
 * Nothing is known of what they do: an argument with a pointer in it would let a client write anywhere in the engine's memory,
 * so the configuration must not list such.
 */
#ifndef AIOD_IOCTLS_H
#define AIOD_IOCTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AIOD_IOCTL_VALUE_BYTES 8u /* the call's value stands before its argument in a completion's payload */

struct aiod_ioctl {
    uint32_t number;
    uint32_t bytes; /* of the argument */
};

struct aiod_ioctls {
    const struct aiod_ioctl *items;
    size_t count;
};

bool aiod_ioctl_allowed(const struct aiod_ioctls *allowed, uint64_t number, uint64_t bytes);

/*
 * Carry it out. `result` has room for the call's value, and behind it the `bytes` of the argument, which the call may change.
 * Returns the bytes in `result`, or -errno. Blocks: for workers.
 */
int64_t aiod_io_ioctl(int fd, uint32_t number, uint32_t bytes, char *result);

#endif
