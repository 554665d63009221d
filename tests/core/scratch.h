/* scratch.h - files and devices that disappear with the test. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stdint.h>

#define STATUS_SKIPPED 77 /* run.sh counts this exit status as skipped; the last line of output gives the reason */

/* An unlinked file on a real file system, opened for reading and writing with `flags` added. */
int scratch_file(int flags);

/* The same file, opened once more. */
int open_again(int fd, int flags);

/*
 * A loop device of `bytes` bytes with sectors of 4096 bytes, which disappears with its last descriptor; -errno if that
 * is not possible.
 */
int scratch_device(uint64_t bytes, int flags);

/* Remove a directory and all that is in it. */
void scratch_remove_tree(const char *path);

/* Byte `index` of a stream with a long period; never 0. */
char pattern(uint64_t index);

/* Check that the bytes of `fd` from `offset`, read through the page cache, equal `wanted`. */
void check_bytes(int fd, const char *wanted, uint64_t length, uint64_t offset);

void check_size(int fd, int64_t bytes);

#endif
