#include "session/operations.h"

#include <errno.h>

enum access {
    ANY,
    READING,
    WRITING,   /* at any offset: not by an append handle */
    APPENDING, /* at the end: by any that may write */
};

/* Which fields of the record an operation uses; the others must be 0. */
enum {
    OFFSET = 1,
    LENGTH = 2,
    RANGE = OFFSET | LENGTH,
};

struct operation {
    enum access access;
    unsigned fields;
    unsigned flags; /* enum aiod_op_flag */
    bool charged;
    bool payload;
    bool bounded; /* by AIOD_RANGE_BYTES_MAX */
};

static const struct operation operations[AIOD_WIRE_OPS] = {
    [AIOD_READ] = {.access = READING, .fields = RANGE, .charged = true},
    [AIOD_WRITE] = {.access = WRITING, .fields = RANGE, .flags = AIOD_FUA, .charged = true, .payload = true},
    [AIOD_FLUSH] = {.access = ANY},
    [AIOD_SIZE] = {.access = ANY},
    [AIOD_DISCARD] = {.access = WRITING, .fields = RANGE},
    [AIOD_WRITE_ZEROES] = {.access = WRITING, .fields = RANGE, .flags = AIOD_FUA | AIOD_UNMAP, .bounded = true},
    [AIOD_TRUNCATE] = {.access = WRITING, .fields = LENGTH},
    [AIOD_ALLOCATE] = {.access = WRITING, .fields = RANGE, .flags = AIOD_KEEP_SIZE},
    [AIOD_EXTENTS] = {.access = READING, .fields = RANGE},
    [AIOD_COPY_RANGE] = {.access = WRITING, .fields = RANGE, .bounded = true},
    [AIOD_PREFETCH] = {.access = READING, .fields = RANGE},
    [AIOD_STAT] = {.access = ANY},
    [AIOD_IOCTL] = {.access = ANY, .fields = RANGE, .charged = true, .payload = true},
    [AIOD_APPEND] = {.access = APPENDING, .fields = LENGTH, .charged = true, .payload = true},
};

bool aiod_op_known(unsigned op)
{
    return op >= AIOD_READ && op < AIOD_WIRE_OPS;
}

bool aiod_op_charged(unsigned op)
{
    return aiod_op_known(op) && operations[op].charged;
}

bool aiod_op_has_payload(unsigned op)
{
    return aiod_op_known(op) && operations[op].payload;
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
    switch (op) {
    case AIOD_READ:
    case AIOD_WRITE:
    case AIOD_APPEND:
    case AIOD_WRITE_ZEROES:
    case AIOD_COPY_RANGE:
        return length;
    default:
        return 0;
    }
}

uint64_t aiod_op_moved_bytes(unsigned op, uint64_t length, int64_t result)
{
    if (result < 0) {
        return 0;
    }
    switch (op) {
    case AIOD_READ:
    case AIOD_WRITE:
    case AIOD_COPY_RANGE:
        return (uint64_t)result;
    case AIOD_APPEND: /* whose result is an offset */
        return length;
    default:
        return 0;
    }
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

static bool access_is_right(enum access access, const struct aiod_handle_use *use)
{
    switch (access) {
    case READING:
        return use->readable;
    case WRITING:
        return use->writable && !use->append;
    case APPENDING:
        return use->writable;
    default:
        return true;
    }
}

static bool length_is_right(const struct aiod_submission *record, uint64_t request_bytes_max)
{
    const struct operation *operation = &operations[record->op];

    return (!operation->charged || record->length <= request_bytes_max) &&
           (!operation->bounded || record->length <= AIOD_RANGE_BYTES_MAX);
}

/* Whether what it may make of the file is small enough. An append's end is not known yet: the worker looks (io.c). */
static bool size_is_right(const struct aiod_submission *record, uint64_t size_max)
{
    switch (record->op) {
    case AIOD_WRITE:
    case AIOD_WRITE_ZEROES:
    case AIOD_TRUNCATE: /* whose offset is 0 */
    case AIOD_ALLOCATE:
    case AIOD_COPY_RANGE:
        return size_max == 0 || record->length == 0 || record->offset + record->length <= size_max;
    default:
        return true;
    }
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
    if (handle == NULL) {
        return refuse(reason, AIOD_REASON_NO_HANDLE, EBADF);
    }
    if (!access_is_right(operations[record->op].access, &handle->use)) {
        return refuse(reason, AIOD_REASON_NO_ACCESS, EBADF);
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
    bool joins = op == AIOD_FLUSH && !aiod_write_loss_unreported(&handle->file->write_loss, &handle->loss_reader);

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
    return source->use.readable ? 0 : refuse(reason, AIOD_REASON_NO_ACCESS, EBADF);
}
