/* ioctls.c - the list of allowed ioctls, and the call. */
#include "ops/ioctls.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

bool aiod_ioctl_allowed(const struct aiod_ioctls *allowed, uint64_t number, uint64_t bytes)
{
    for (size_t i = 0; i < allowed->count; i++) {
        if (allowed->items[i].number == number && allowed->items[i].bytes == bytes) {
            return true;
        }
    }
    return false;
}

int64_t aiod_io_ioctl(int fd, uint32_t number, uint32_t bytes, char *result)
{
    char *inout = result + AIOD_IOCTL_VALUE_BYTES;
    int64_t value;

    do {
        value = ioctl(fd, number, bytes > 0 ? inout : NULL);
    } while (value < 0 && errno == EINTR);
    if (value < 0) {
        return -errno;
    }
    memcpy(result, &value, sizeof(value));
    return (int64_t)AIOD_IOCTL_VALUE_BYTES + bytes;
}
