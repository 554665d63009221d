/*
 * records.h - the protocol's fixed-size records (docs/protocol.md), as a SUBMIT and a COMPLETE contain them.
 *
 * Little endian, as all hosts that aiod runs on. Records are copied out with memcpy(), because a message gives no
 * alignment.
 */
#ifndef AIOD_RECORDS_H
#define AIOD_RECORDS_H

#include <assert.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire's records are little endian: this host needs conversions that nobody has written yet"
#endif

enum aiod_op {
#define AIOD_OPERATION(number, NAME, name, access, fields, flags, properties) AIOD_##NAME = (number),
#include "operations.def"
    AIOD_WIRE_OPS, /* one more than the last operation of the protocol */
    /* Not in the protocol; counted in the same statistics. */
    AIOD_OPEN = AIOD_WIRE_OPS,
    AIOD_CLOSE,
    AIOD_LOCK,
    AIOD_UNLOCK,
    AIOD_OPS, /* one more than the last operation */
};

/* Flags of a submission. */
enum aiod_op_flag {
    AIOD_FUA = 1,
    AIOD_UNMAP = 2,
    AIOD_KEEP_SIZE = 4,
    AIOD_EXCLUSIVE = 8,
    AIOD_FAST = 16,
    AIOD_REPEAT = 0x8000, /* sent again to a new engine; may have been executed before */
};

#define AIOD_EXTENTS_MAX 1024u
#define AIOD_RANGE_BYTES_MAX (UINT64_C(1) << 30) /* limit for WRITE_ZEROES and COPY_RANGE */

struct aiod_submission {
    uint64_t cookie;
    uint16_t op;
    uint16_t flags;
    uint32_t handle;
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes */
    uint32_t deadline_ms;
    uint32_t frame;
    uint32_t frame_offset; /* bytes */
    /* COPY_RANGE: `frame` is the source's handle, and these two fields are the halves of its offset */
    uint32_t reserved;
};

struct aiod_completion {
    uint64_t cookie;
    int64_t result; /* bytes, or -errno */
    uint32_t frame;
    uint32_t frame_offset; /* bytes */
    uint32_t written;      /* bytes known to be written by a request that failed */
    uint32_t reason;       /* enum aiod_reason of a request that failed */
};

/* The payload of a STAT reply. */
struct aiod_stat {
    uint64_t size;      /* bytes */
    uint64_t allocated; /* bytes */
    uint64_t device;
    uint64_t inode;
    int64_t atime_ns; /* since 1970 */
    int64_t mtime_ns;
    int64_t ctime_ns;
    uint32_t mode;
    uint32_t links;
    uint32_t uid;
    uint32_t gid;
    uint32_t block_size; /* bytes; offsets and lengths should be multiples of it */
    uint32_t io_size;    /* bytes; the preferred size of a transfer */
};

/* One extent in an EXTENTS reply. */
struct aiod_extent {
    uint64_t length; /* bytes */
    uint64_t flags;  /* AIOD_EXTENT_HOLE */
};

#define AIOD_EXTENT_HOLE 1u

static_assert(sizeof(struct aiod_submission) == 48, "docs/protocol.md");
static_assert(sizeof(struct aiod_completion) == 32, "docs/protocol.md");
static_assert(sizeof(struct aiod_stat) == 80, "docs/operations.md");
static_assert(sizeof(struct aiod_extent) == 16, "docs/operations.md");

#endif
