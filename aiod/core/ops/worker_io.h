/*
 * worker_io.h - the only place that does preadv2, pwritev2 and fdatasync; takes no locks.
 *
 * The contract of all: EINTR is retried. A read goes on until it has `length` bytes or meets the end of the file, and
 * returns the bytes there are. A write goes on until it is complete. The first error is returned as -errno; what a
 * write had carried before it is known to be written, and told.
 */
#ifndef AIOD_WORKER_IO_H
#define AIOD_WORKER_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Read up to `length` bytes at `offset`, of which the first `have` are there already. Bytes in all, or -errno. */
int64_t aiod_io_read(int fd, char *data, uint64_t length, uint64_t offset, uint64_t have);

/*
 * The same where only whole blocks of `block` bytes may be read: memory, `length` and `offset` are aligned. What ends
 * within a block ends the file, and is not continued.
 */
int64_t aiod_io_read_blocks(int fd, char *data, uint64_t length, uint64_t offset, uint32_t block);

/*
 * Try a read without ever blocking (RWF_NOWAIT): what the page cache holds. Returns the bytes got, 0 when none (also at
 * the end of the file, and where the file system cannot say): less than `length` means nothing about the file's end.
 * *never becomes true, atomically, where the file does not know such reads (tmpfs, FUSE): there is no need to try again.
 */
uint64_t aiod_io_read_nowait(int fd, char *data, uint64_t length, uint64_t offset, bool *never);

/*
 * Write the `count` parts of `iov` (which is consumed) at `offset`, with `flags` of pwritev2 (RWF_DSYNC). Bytes in
 * all, or -errno; `*written` is what was carried in either case.
 */
int64_t aiod_io_write(int fd, struct iovec *iov, size_t count, uint64_t offset, int flags, uint64_t *written);

/*
 * Append the parts of `iov` (which is consumed), in one piece. The offset of the first byte (the size of the file when
 * there are no bytes), or -errno; -EINVAL for a device, -EIO when somebody else's bytes came between two parts of it: `*written` counts those
 * before. Uses the file position: the caller lets nothing else use that, nor append to the file, meanwhile.
 */
int64_t aiod_io_append(int fd, struct iovec *iov, size_t count, uint64_t *written);

/* ftruncate. 0, or -errno. */
int64_t aiod_io_truncate(int fd, uint64_t size);

/* fdatasync. 0, or -errno. */
int64_t aiod_io_flush(int fd);

/* Bytes of a regular file or a block device, or -errno. */
int64_t aiod_io_size(int fd);

#endif
