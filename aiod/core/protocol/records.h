/*
 * records.h - the wire's fixed-size records (docs/protocol.md), as they lie in a SUBMIT and a COMPLETE.
 *
 * Little endian, as are all hosts that aiod runs on; copied out with memcpy, since a message gives no alignment.
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
    AIOD_WIRE_OPS, /* one more than the last on the wire */
    /* Not on the wire; here because they are counted alike. */
    AIOD_OPEN = AIOD_WIRE_OPS,
    AIOD_CLOSE,
    AIOD_NAME,
    AIOD_OPS, /* one more than the last */
};

/* Bits of a submission's flags. */
enum aiod_op_flag {
    AIOD_FUA = 1,
    AIOD_UNMAP = 2,
    AIOD_KEEP_SIZE = 4,
    AIOD_REPEAT = 0x8000, /* sent again to a new engine: perhaps it has been done */
};

#define AIOD_EXTENTS_MAX 1024u
#define AIOD_RANGE_BYTES_MAX (UINT64_C(1) << 30) /* of a WRITE_ZEROES or COPY_RANGE */

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
    uint32_t reserved;     /* COPY_RANGE: `frame` is the source's handle, these two are halves of its offset */
};

struct aiod_completion {
    uint64_t cookie;
    int64_t result; /* bytes, or -errno */
    uint32_t frame;
    uint32_t frame_offset; /* bytes */
    uint32_t written;      /* bytes known to be done by one that failed */
    uint32_t reason;       /* of one that failed: enum aiod_reason */
};

/* Payload of a STAT's completion. */
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
    uint32_t block_size; /* bytes: what offsets and lengths should be multiples of */
    uint32_t io_size;    /* bytes: preferred */
};

/* One of the payload of an EXTENTS' completion. */
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
