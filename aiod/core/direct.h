/*
 * direct.h - reads and writes of any offset, length and memory, on a file that may want all three aligned (O_DIRECT).
 *
 * What is aligned goes straight through. The rest is copied through an aligned bounce buffer, in steps of at most
 * AIOD_DIRECT_STEP_BYTES; a write of part of a block reads that block, changes and writes it whole. On a file that wants
 * no alignment everything goes straight: so this is also the way of a handle that goes through the page cache.
 *
 * A write whose last block reaches past the end of a regular file makes it too large for a moment, and sets the size right
 * afterwards: nothing of the engine that enters the file's ranges (ranges.h) sees that. A process killed at that
 * moment leaves up to a block of zeroes at the end.
 */
#ifndef AIOD_DIRECT_H
#define AIOD_DIRECT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "buffers.h"
#include "ranges.h"

#define AIOD_DIRECT_STEP_BYTES (UINT64_C(256) << 10)

/* In bytes, powers of two; 1 and 1: none wanted. */
struct aiod_alignment {
    uint32_t memory; /* at most AIOD_BUFFER_ALIGNMENT */
    uint32_t offset; /* of offset and length; at most AIOD_DIRECT_STEP_BYTES */
};

/*
 * An open file and what belongs to it. Constant; any number of threads.
 */
struct aiod_direct {
    int fd; /* with O_DIRECT it has to be readable too: what is written to part of a block reads the block */
    struct aiod_alignment alignment;
    struct aiod_buffers *buffers;
    struct aiod_ranges *ranges; /* of the file */
};

/*
 * What `fd`, opened with O_DIRECT and not used by anybody else yet, wants: what statx or the device says, else what reads
 * that are tried show; where they show nothing (no data, or not readable), AIOD_BUFFER_ALIGNMENT. 0; -EINVAL: the file
 * cannot do O_DIRECT, or wants more than can be had here; -ENOMEM.
 */
int aiod_alignment_find(int fd, struct aiod_alignment *alignment);

/* Read as aiod_io_read() does. Enters the file's ranges. Bytes, fewer only at the end of the file, or -errno. */
int64_t aiod_direct_read(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);

/* Write as aiod_io_write() does. Enters the file's ranges. */
int64_t aiod_direct_write(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset, int flags,
                          uint64_t *written);

/*
 * What a change of `length` bytes at `offset` enters that may turn into any number of writes to them: the bytes, shared; where
 * the file wants alignment, from the first block on to AIOD_RANGE_END, exclusive.
 */
struct aiod_range aiod_direct_range(const struct aiod_direct *file, uint64_t offset, uint64_t length);

/* The same as the two above for who has entered already: a range as aiod_direct_range() says, or its like to read. */
int64_t aiod_direct_read_inside(const struct aiod_direct *file, char *data, uint64_t length, uint64_t offset);
int64_t aiod_direct_write_inside(const struct aiod_direct *file, struct iovec *iov, size_t count, uint64_t offset,
                                 int flags, uint64_t *written);

#endif
