/*
 * ioctls.h - the ioctls that an export allows, each with the size of its argument.
 *
 * The daemon does not know the meaning of an ioctl. An argument that contains a pointer would let a client write
 * anywhere in the engine's memory, so the configuration must not list such ioctls.
 */
#ifndef AIOD_IOCTLS_H
#define AIOD_IOCTLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AIOD_IOCTL_VALUE_BYTES 8u /* a completion's payload starts with the return value, followed by the argument */

struct aiod_ioctl {
    uint32_t number;
    uint32_t bytes; /* size of the argument */
};

struct aiod_ioctls {
    const struct aiod_ioctl *items;
    size_t count;
};

bool aiod_ioctl_allowed(const struct aiod_ioctls *allowed, uint64_t number, uint64_t bytes);

/*
 * Call the ioctl. `result` has room for the return value and, behind it, holds the argument of `bytes` bytes, which the
 * call may change. The number of bytes in `result`, or -errno. Blocks: for workers.
 */
int64_t aiod_io_ioctl(int fd, uint32_t number, uint32_t bytes, char *result);

#endif
