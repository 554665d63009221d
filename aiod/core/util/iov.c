/* iov.c - consuming an iovec array from the front. */
#include "util/iov.h"

#include <string.h>

uint64_t aiod_iov_bytes(const struct aiod_iov *iov)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < iov->count; i++) {
        bytes += iov->entries[i].iov_len;
    }
    return bytes;
}

void aiod_iov_consume(struct aiod_iov *iov, uint64_t bytes)
{
    while (iov->count > 0 && iov->entries->iov_len <= bytes) {
        bytes -= iov->entries->iov_len;
        iov->entries++;
        iov->count--;
    }
    if (bytes > 0) {
        iov->entries->iov_base = (char *)iov->entries->iov_base + bytes;
        iov->entries->iov_len -= bytes;
    }
}

void aiod_iov_gather(struct aiod_iov *iov, char *data, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t part = iov->entries->iov_len < bytes ? iov->entries->iov_len : bytes;

        if (part > 0) {
            memcpy(data, iov->entries->iov_base, part);
        }
        aiod_iov_consume(iov, part);
        data += part;
        bytes -= part;
    }
}
