/*
 * scratch.h - files and devices that end with the test.
 */
#ifndef SCRATCH_H
#define SCRATCH_H

#include <stdint.h>

#define STATUS_SKIPPED 77 /* what run.sh counts as skipped; the program's last line says why */

/* An unlinked file on a real file system, opened for reading and writing with `flags`. */
int scratch_file(int flags);

/* The same file, opened once more. */
int open_again(int fd, int flags);

/* A loop device of `bytes`, with sectors of 4096, gone with its last descriptor; -errno where there can be none. */
int scratch_device(uint64_t bytes, int flags);

/* Byte `index` of a stream that repeats itself only after a while, and is never 0. */
char pattern(uint64_t index);

/* The bytes of `fd` from `offset` on, through the page cache, are those of `wanted`. */
void check_bytes(int fd, const char *wanted, uint64_t length, uint64_t offset);

void check_size(int fd, int64_t bytes);

#endif
