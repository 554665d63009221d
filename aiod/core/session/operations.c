/* operations.c - the checks of a record against its operation and its handle. */
#include "session/operations.h"

#include <errno.h>

#include "op_properties.h"

enum access {
    ANY,
    READING,
    WRITING,   /* at any offset: not through a handle for appends */
    APPENDING, /* at the end: through any writable handle */
    NAMES,     /* of files of an export */
};

/* The fields of the record that an operation uses; the others must be 0. */
enum {
    NOTHING = 0,
    OFFSET = 1,
    LENGTH = 2,
    RANGE = OFFSET | LENGTH,
};

struct operation {
    enum access access;
    unsigned fields;
    unsigned flags;      /* enum aiod_op_flag */
    unsigned properties; /* enum aiod_op_property */
    bool by_ring;
};

static const struct operation operations[AIOD_WIRE_OPS] = {
#define AIOD_OPERATION(number, NAME, name, ...) [number] = {__VA_ARGS__, false},
#define AIOD_RING_OPERATION(number, NAME, name, ...) [number] = {__VA_ARGS__, true},
#include "operations.def"
};

bool aiod_op_known(unsigned op)
{
    return op >= AIOD_READ && op < AIOD_WIRE_OPS;
}

static bool has(unsigned op, unsigned property)
{
    return aiod_op_known(op) && (operations[op].properties & property) != 0;
}

bool aiod_op_charged(unsigned op)
{
    return has(op, OP_CHARGED);
}

bool aiod_op_has_payload(unsigned op)
{
    return has(op, OP_PAYLOAD);
}

bool aiod_op_has_path(unsigned op)
{
    return has(op, OP_PATH);
}

bool aiod_op_by_ring_only(unsigned op)
{
    return has(op, OP_PATH | OP_RING_ONLY);
}

bool aiod_op_by_ring(unsigned op)
{
    return aiod_op_known(op) && operations[op].by_ring;
}

bool aiod_op_uses_area(unsigned op)
{
    return aiod_op_by_ring(op) && has(op, OP_PAYLOAD | OP_REPLIES);
}

bool aiod_op_may_repeat(unsigned op)
{
    return aiod_op_known(op) && (!has(op, OP_CHANGES) || has(op, OP_REPEATABLE));
}

bool aiod_op_changes(unsigned op)
{
    return has(op, OP_CHANGES);
}

uint64_t aiod_op_result_bytes(unsigned op, uint64_t length)
{
    switch (op) {
    case AIOD_READ:
        return length;
    case AIOD_EXTENTS:
        return AIOD_EXTENTS_MAX * sizeof(struct aiod_extent);
    case AIOD_STAT:
        return sizeof(struct aiod_stat);
    case AIOD_IOCTL:
        return AIOD_IOCTL_VALUE_BYTES + length;
    default:
        return 0;
    }
}

uint64_t aiod_op_cost(unsigned op, uint64_t length)
{
    return has(op, OP_COSTS) ? length : 0;
}

uint64_t aiod_op_moved_bytes(unsigned op, uint64_t length, int64_t result)
{
    if (result < 0 || !has(op, OP_MOVES)) {
        return 0;
    }
    if (op == AIOD_READ_FILE) {
        return (uint64_t)result - sizeof(struct aiod_stat);
    }
    return op == AIOD_APPEND ? length : (uint64_t)result; /* the result of an APPEND is an offset */
}

static bool form_is_right(const struct aiod_submission *record)
{
    const struct operation *operation = &operations[record->op];

    return (record->flags & ~operation->flags) == 0 && (record->op == AIOD_COPY_RANGE || record->reserved == 0) &&
           ((operation->fields & OFFSET) != 0 || record->offset == 0) &&
           ((operation->fields & LENGTH) != 0 || record->length == 0) && record->offset <= INT64_MAX &&
           record->length <= INT64_MAX - record->offset && (record->op != AIOD_IOCTL || record->offset <= UINT32_MAX) &&
           (record->op != AIOD_ALLOCATE || record->length > 0);
}

static bool access_is_right(unsigned op, const struct aiod_handle_use *use)
{
    enum access access = operations[op].access;

    if ((access == NAMES) != (use->names.root != NULL)) {
        return false;
    }
    switch (access) {
    case READING:
        return use->readable;
    case WRITING:
        return use->writable && !use->append;
    case APPENDING:
        return use->writable;
    case NAMES: /* what is wrong with these is checked later (name_request.h, open_request.h) */
        return use->writable || !has(op, OP_CHANGES) || op == AIOD_NAME || op == AIOD_OPEN_WRITABLE;
    default:
        return true;
    }
}

static bool length_is_right(const struct aiod_submission *record, uint64_t request_bytes_max)
{
    return (!has(record->op, OP_CHARGED) || record->length <= request_bytes_max) &&
           (!has(record->op, OP_BOUNDED) || record->length <= AIOD_RANGE_BYTES_MAX);
}

/*
 * Does the operation keep the file within its limit? The end of an append is unknown here: the worker checks it (io.c).
 */
static bool size_is_right(const struct aiod_submission *record, uint64_t size_max)
{
    return !has(record->op, OP_ENLARGES) || size_max == 0 || record->length == 0 ||
           record->offset + record->length <= size_max;
}

/*
 * Has a lock of the handle been lost, so that another client may have changed what the lock protected? A flush only makes
 * durable what was acknowledged before.
 */
static bool is_fenced(unsigned op, const struct aiod_handle *handle)
{
    return __atomic_load_n(&handle->lock_lost, __ATOMIC_ACQUIRE) && op != AIOD_FLUSH && op != AIOD_CLOSE_FILE;
}

static int refuse(enum aiod_reason *reason, enum aiod_reason why, int error)
{
    *reason = why;
    return error;
}

int aiod_op_check(const struct aiod_submission *record, const struct aiod_handle *handle, uint64_t request_bytes_max,
                  enum aiod_reason *reason)
{
    if (!aiod_op_known(record->op) || !form_is_right(record)) {
        return refuse(reason, AIOD_REASON_BAD_ENTRY, EINVAL);
    }
    if (handle == NULL || __atomic_load_n(&handle->revoked, __ATOMIC_RELAXED)) {
        return refuse(reason, AIOD_REASON_NO_HANDLE, EBADF);
    }
    if (!access_is_right(record->op, &handle->use)) {
        return refuse(reason, AIOD_REASON_NO_ACCESS, EBADF);
    }
    if (is_fenced(record->op, handle)) {
        return refuse(reason, AIOD_REASON_LOCK_LOST, EIO);
    }
    if (!length_is_right(record, request_bytes_max)) {
        return refuse(reason, AIOD_REASON_TOO_LONG, EMSGSIZE);
    }
    if (record->op == AIOD_IOCTL && !aiod_ioctl_allowed(&handle->use.ioctls, record->offset, record->length)) {
        return refuse(reason, AIOD_REASON_NO_IOCTL, EPERM);
    }
    if (!size_is_right(record, handle->use.size_max)) {
        return refuse(reason, AIOD_REASON_TOO_LARGE, EFBIG);
    }
    return 0;
}

const void *aiod_flush_group(unsigned op, const struct aiod_handle *handle)
{
    bool joins = has(op, OP_GROUPED) && !aiod_write_loss_unreported(&handle->file->write_loss, &handle->loss_reader);

    return joins ? &handle->file->flushes : NULL;
}

uint64_t aiod_op_source_offset(const struct aiod_submission *record)
{
    return (uint64_t)record->reserved << 32 | record->frame_offset;
}

int aiod_op_check_source(const struct aiod_submission *record, const struct aiod_handle *source,
                         enum aiod_reason *reason)
{
    uint64_t offset = aiod_op_source_offset(record);

    if (offset > INT64_MAX || record->length > INT64_MAX - offset) {
        return refuse(reason, AIOD_REASON_BAD_ENTRY, EINVAL);
    }
    if (source == NULL) {
        return refuse(reason, AIOD_REASON_NO_HANDLE, EBADF);
    }
    if (!source->use.readable) {
        return refuse(reason, AIOD_REASON_NO_ACCESS, EBADF);
    }
    return is_fenced(record->op, source) ? refuse(reason, AIOD_REASON_LOCK_LOST, EIO) : 0;
}
