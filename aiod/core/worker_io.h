/*
 * worker_io.h - the only place that does preadv2, pwritev2 and fdatasync; takes no locks.
 *
 * The contract of all: EINTR is retried. A read goes on until it has `length` bytes or meets the end of the file, and
 * returns the bytes there are. A write goes on until it is complete. The first error is returned as -errno, whatever had
 * been transferred before it.
 */
#ifndef AIOD_WORKER_IO_H
#define AIOD_WORKER_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read up to `length` bytes at `offset`, of which the first `have` are there already. Bytes in all, or -errno. */
int64_t aiod_io_read(int fd, char *data, uint64_t length, uint64_t offset, uint64_t have);

/*
 * Try a read without ever blocking (RWF_NOWAIT): what the page cache holds. Returns the bytes got, 0 when none (also at
 * the end of the file, and where the file system cannot say): less than `length` means nothing about the file's end.
 */
uint64_t aiod_io_read_nowait(int fd, char *data, uint64_t length, uint64_t offset);

/* Write `length` bytes at `offset`. `length`, or -errno. */
int64_t aiod_io_write(int fd, const char *data, uint64_t length, uint64_t offset);

/* fdatasync. 0, or -errno. */
int64_t aiod_io_flush(int fd);

/* Bytes of a regular file or a block device, or -errno. */
int64_t aiod_io_size(int fd);

#endif
