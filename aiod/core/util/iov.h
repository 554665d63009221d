/*
 * iov.h - walking an array of struct iovec from its front.
 */
#ifndef AIOD_IOV_H
#define AIOD_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What is left of an array. The entries that it points to are changed while it is consumed; the bytes are not. */
struct aiod_iov {
    struct iovec *entries;
    size_t count;
};

/* Bytes in all. */
uint64_t aiod_iov_bytes(const struct aiod_iov *iov);

/* Take `bytes` off the front, of which there are as many; empty entries go with them. */
void aiod_iov_consume(struct aiod_iov *iov, uint64_t bytes);

/* Copy `bytes` off the front to `data`. */
void aiod_iov_gather(struct aiod_iov *iov, char *data, uint64_t bytes);

#endif
