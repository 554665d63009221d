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
    AIOD_READ = 1,
    AIOD_WRITE = 2,
    AIOD_FLUSH = 3,
    AIOD_SIZE = 4,
    /* Not on the wire; here because they are counted alike. */
    AIOD_OPEN = 5,
    AIOD_CLOSE = 6,
    AIOD_OPS, /* one more than the last */
};

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
    uint32_t reserved;
};

struct aiod_completion {
    uint64_t cookie;
    int64_t result; /* bytes, or -errno */
    uint32_t frame;
    uint32_t frame_offset; /* bytes */
    uint32_t flags;
    uint32_t reserved;
};

static_assert(sizeof(struct aiod_submission) == 48, "docs/protocol.md");
static_assert(sizeof(struct aiod_completion) == 32, "docs/protocol.md");

#endif
