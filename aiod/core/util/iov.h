/*
 * iov.h - consuming an array of struct iovec from the front, for short transfers and copies.
 *
 * No state is shared: any thread may use its own aiod_iov.
 */
#ifndef AIOD_IOV_H
#define AIOD_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The rest of an iovec array. Consuming it changes the array's entries, not the bytes that they point to. */
struct aiod_iov {
    struct iovec *entries;
    size_t count;
};

/* The number of bytes in all entries. */
uint64_t aiod_iov_bytes(const struct aiod_iov *iov);

/* Drop the first `bytes` bytes, of which there are at least as many, and the empty entries behind them. */
void aiod_iov_consume(struct aiod_iov *iov, uint64_t bytes);

/* Copy the first `bytes` bytes to `data`, and drop them. */
void aiod_iov_gather(struct aiod_iov *iov, char *data, uint64_t bytes);

#endif
