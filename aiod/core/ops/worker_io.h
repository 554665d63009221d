/*
 * worker_io.h - complete transfers: the only place that calls preadv2(), pwritev2() and fdatasync(). Takes no locks.
 *
 * The contract of all functions: EINTR is retried. A read continues until it has `length` bytes or reaches the end of
 * the file, and returns the number of bytes. A write continues until it is complete. The first error is returned as
 * -errno, and the number of bytes written before it is reported. Blocking unless it says otherwise: for workers.
 * Thread-safe.
 */
#ifndef AIOD_WORKER_IO_H
#define AIOD_WORKER_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/*
 * Read up to `length` bytes at `offset`; the first `have` of them were read before. The total number of bytes, or
 * -errno.
 */
int64_t aiod_io_read(int fd, char *data, uint64_t length, uint64_t offset, uint64_t have);

/*
 * The same for a file that allows only reads of whole blocks of `block` bytes; memory, `length` and `offset` are
 * aligned. A read that ends within a block reached the end of the file, and is not continued.
 */
int64_t aiod_io_read_blocks(int fd, char *data, uint64_t length, uint64_t offset, uint32_t block);

/*
 * Read into the `count` parts of `iov`, which are consumed, as aiod_io_read_blocks() does (`block` 1: no whole blocks are
 * needed). The number of bytes, or -errno.
 */
int64_t aiod_io_readv(int fd, struct iovec *iov, size_t count, uint64_t offset, uint32_t block);

/*
 * Read from the page cache without blocking (RWF_NOWAIT). Any thread. The number of bytes; 0 if there are none, also at
 * the end of the file and if the file system cannot tell. A short read therefore says nothing about the end of the
 * file. Sets *never, atomically, if the file does not support such reads (tmpfs, FUSE).
 */
uint64_t aiod_io_read_nowait(int fd, char *data, uint64_t length, uint64_t offset, bool *never);

/* The same into the `count` parts of `iov`, which stay. */
uint64_t aiod_io_readv_nowait(int fd, const struct iovec *iov, size_t count, uint64_t offset, bool *never);

/*
 * Write the `count` parts of `iov`, which are consumed, at `offset`, with the flags of pwritev2() (RWF_DSYNC). The
 * number of bytes, or -errno; `*written` bytes were written in both cases.
 */
int64_t aiod_io_write(int fd, struct iovec *iov, size_t count, uint64_t offset, int flags, uint64_t *written);

/*
 * Append the parts of `iov`, which are consumed, in one piece. The offset of the first byte (the file's size if there
 * are no bytes), or -errno. -EINVAL: a device. -EIO: bytes of another process came between two parts; the first
 * `*written` bytes were appended. The caller must hold aiod_file.position, because this moves the file position.
 */
int64_t aiod_io_append(int fd, struct iovec *iov, size_t count, uint64_t *written);

/* ftruncate. 0, or -errno. */
int64_t aiod_io_truncate(int fd, uint64_t size);

/* fdatasync. 0, or -errno. */
int64_t aiod_io_flush(int fd);

/* The size of a regular file or block device in bytes, or -errno. */
int64_t aiod_io_size(int fd);

#endif
