/* The checks of operations: which record is valid, and which handle may execute it. */
#include "check.h"

#include <errno.h>

#include "op_properties.h"
#include "session/operations.h"

enum {
    REQUEST_BYTES = 65536,
};

static const struct aiod_ioctl listed[] = {{.number = 77, .bytes = 8}, {.number = 78, .bytes = 0}};

static const struct aiod_handle nothing = {.use = {.readable = false}};
static const struct aiod_handle reading = {.use = {.readable = true}};
static const struct aiod_handle writing = {.use = {.writable = true}};
static const struct aiod_handle appending = {.use = {.writable = true, .append = true}};
static const struct aiod_handle naming = {.use = {.writable = true, .names = {.root = "/"}}};
static const struct aiod_handle naming_unwritable = {.use = {.names = {.root = "/"}}};
static const struct aiod_handle revoked = {.use = {.names = {.root = "/"}}, .revoked = true};
static const struct aiod_handle controlling = {.use = {.ioctls = {listed, 2}}};

static enum aiod_reason reason;

/* protocol/operations.def, as a table for the tests. */
enum {
    NOTHING,
    LENGTH,
    RANGE,
};

#define ANY &nothing, NULL
#define READING &reading, &writing
#define WRITING &writing, &appending
#define APPENDING &appending, &reading
#define NAMES &naming, &writing

static const struct defined {
    const struct aiod_handle *right;
    const struct aiod_handle *wrong; /* NULL: every handle is right */
    int fields;
    unsigned flags;
    unsigned properties;
} defined_operations[AIOD_WIRE_OPS] = {
#define AIOD_OPERATION(number, NAME, name, access, ...) [number] = {access, __VA_ARGS__},
#include "operations.def"
};

static struct aiod_submission record_of(unsigned op)
{
    int fields = op < AIOD_WIRE_OPS ? defined_operations[op].fields : RANGE;

    return (struct aiod_submission){
        .op = (uint16_t)op,
        .offset = op == AIOD_IOCTL  ? 77
                  : fields == RANGE ? 4096
                                    : 0,
        .length = op == AIOD_IOCTL    ? 8
                  : fields != NOTHING ? 512
                                      : 0,
    };
}

static int check(const struct aiod_submission *record, const struct aiod_handle *handle)
{
    return aiod_op_check(record, handle, REQUEST_BYTES, &reason);
}

static bool is_refused(const struct aiod_submission *record, const struct aiod_handle *handle, int error,
                       enum aiod_reason why)
{
    return check(record, handle) == error && reason == why;
}

static void each_operation_needs_its_access(void)
{
    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        const struct defined *operation = &defined_operations[op];
        const struct aiod_handle *right = op == AIOD_IOCTL ? &controlling : operation->right;
        struct aiod_submission record = record_of(op);

        CHECK(check(&record, right) == 0);
        CHECK(is_refused(&record, NULL, EBADF, AIOD_REASON_NO_HANDLE));
        CHECK(operation->wrong == NULL || is_refused(&record, operation->wrong, EBADF, AIOD_REASON_NO_ACCESS));
    }
}

static void unknown_flags_are_refused(void)
{
    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        for (unsigned bit = 0; bit < 16; bit++) {
            struct aiod_submission record = record_of(op);
            unsigned flag = 1u << bit;

            record.flags = (uint16_t)flag;
            CHECK((check(&record, NULL) == EINVAL) == ((defined_operations[op].flags & flag) == 0));
        }
    }
}

static void only_repeatable_operations_are_repeated(void)
{
    CHECK(aiod_op_may_repeat(AIOD_READ) && aiod_op_may_repeat(AIOD_FLUSH)); /* these change nothing */
    CHECK(aiod_op_may_repeat(AIOD_WRITE) && aiod_op_may_repeat(AIOD_DISCARD));
    CHECK(!aiod_op_may_repeat(AIOD_APPEND) && !aiod_op_may_repeat(AIOD_TRUNCATE) && !aiod_op_may_repeat(AIOD_IOCTL));
    CHECK(!aiod_op_may_repeat(0) && !aiod_op_may_repeat(AIOD_WIRE_OPS) && !aiod_op_may_repeat(99));
}

static void ring_operations_are_marked(void)
{
    CHECK(aiod_op_by_ring(AIOD_READ) && aiod_op_uses_area(AIOD_READ));
    CHECK(aiod_op_by_ring(AIOD_APPEND) && aiod_op_uses_area(AIOD_APPEND));
    CHECK(aiod_op_by_ring(AIOD_DISCARD) && !aiod_op_uses_area(AIOD_DISCARD));
    CHECK(aiod_op_by_ring(AIOD_STAT) && aiod_op_uses_area(AIOD_STAT));
    CHECK(!aiod_op_by_ring(AIOD_IOCTL) && !aiod_op_uses_area(AIOD_IOCTL) && !aiod_op_by_ring(99));
}

static void fields_out_of_range_are_refused(void)
{
    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        struct aiod_submission record = record_of(op);

        record.reserved = 1;
        CHECK(op == AIOD_COPY_RANGE || is_refused(&record, NULL, EINVAL, AIOD_REASON_BAD_ENTRY));
        record = record_of(op);
        record.offset = UINT64_C(1) << 63;
        CHECK(is_refused(&record, NULL, EINVAL, AIOD_REASON_BAD_ENTRY));
        record.offset = 1;
        record.length = INT64_MAX;
        CHECK(is_refused(&record, NULL, EINVAL, AIOD_REASON_BAD_ENTRY));
    }
    for (unsigned op = AIOD_WIRE_OPS; op < AIOD_OPS + 2; op++) {
        struct aiod_submission record = record_of(op);

        CHECK(is_refused(&record, &reading, EINVAL, AIOD_REASON_BAD_ENTRY));
    }
    CHECK(is_refused(&(struct aiod_submission){.op = 0}, &reading, EINVAL, AIOD_REASON_BAD_ENTRY));
    CHECK(
        is_refused(&(struct aiod_submission){.op = AIOD_FLUSH, .length = 1}, &reading, EINVAL, AIOD_REASON_BAD_ENTRY));
    CHECK(
        is_refused(&(struct aiod_submission){.op = AIOD_APPEND, .offset = 1}, &writing, EINVAL, AIOD_REASON_BAD_ENTRY));
    CHECK(is_refused(&(struct aiod_submission){.op = AIOD_ALLOCATE}, &writing, EINVAL, AIOD_REASON_BAD_ENTRY));
}

static void lengths_are_limited(void)
{
    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        bool bounded = (defined_operations[op].properties & OP_BOUNDED) != 0;
        uint64_t most = aiod_op_charged(op) ? REQUEST_BYTES : bounded ? AIOD_RANGE_BYTES_MAX : 0;
        struct aiod_submission record = record_of(op);

        if (most == 0 || op == AIOD_IOCTL) {
            continue;
        }
        record.length = most;
        CHECK(check(&record, defined_operations[op].right) == 0);
        record.length = most + 1;
        CHECK(is_refused(&record, defined_operations[op].right, EMSGSIZE, AIOD_REASON_TOO_LONG));
    }
}

static void only_listed_ioctls_are_allowed(void)
{
    struct aiod_submission record = record_of(AIOD_IOCTL);

    CHECK(check(&record, &controlling) == 0);
    record.length = 0;
    CHECK(is_refused(&record, &controlling, EPERM, AIOD_REASON_NO_IOCTL));
    record.offset = 78;
    CHECK(check(&record, &controlling) == 0);
    CHECK(is_refused(&record, &reading, EPERM, AIOD_REASON_NO_IOCTL));
    record.offset = UINT64_C(1) << 32 | 78; /* the kernel would truncate it to 78 */
    CHECK(is_refused(&record, &controlling, EINVAL, AIOD_REASON_BAD_ENTRY));
}

/* No byte beyond the maximum size; operations that do not enlarge the file are not limited. */
static void writes_beyond_size_max_are_refused(void)
{
    static const struct aiod_handle limited = {.use = {.readable = true, .writable = true, .size_max = 8192}};
    static const enum aiod_op growing[] = {AIOD_WRITE, AIOD_WRITE_ZEROES, AIOD_ALLOCATE, AIOD_COPY_RANGE};
    struct aiod_submission record;

    for (size_t i = 0; i < sizeof(growing) / sizeof(growing[0]); i++) {
        record = record_of(growing[i]);
        record.offset = 8000;
        record.length = 192;
        CHECK(check(&record, &limited) == 0);
        record.length = 193;
        CHECK(is_refused(&record, &limited, EFBIG, AIOD_REASON_TOO_LARGE));
    }
    record = record_of(AIOD_TRUNCATE);
    record.length = 8192;
    CHECK(check(&record, &limited) == 0);
    record.length = 8193;
    CHECK(is_refused(&record, &limited, EFBIG, AIOD_REASON_TOO_LARGE));
    record = record_of(AIOD_READ);
    record.offset = 1 << 20;
    record.length = 512;
    CHECK(check(&record, &limited) == 0);
}

static void a_names_handle_is_for_paths_only(void)
{
    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        struct aiod_submission record = record_of(op);
        /* What these may change is looked at later. */
        bool checked_later = op == AIOD_NAME || op == AIOD_OPEN_WRITABLE;
        bool changes = (defined_operations[op].properties & OP_CHANGES) != 0 && !checked_later;

        if (!aiod_op_has_path(op)) {
            CHECK(is_refused(&record, &naming, EBADF, AIOD_REASON_NO_ACCESS));
            continue;
        }
        CHECK(aiod_op_by_ring(op) && aiod_op_uses_area(op));
        CHECK(check(&record, &naming_unwritable) == (changes ? EBADF : 0));
        CHECK(is_refused(&record, &revoked, EBADF, AIOD_REASON_NO_HANDLE));
    }
    CHECK(aiod_op_moved_bytes(AIOD_READ_FILE, 4096, 85) == 5 && aiod_op_moved_bytes(AIOD_STAT_NAME, 80, 80) == 0);
}

static void the_source_of_a_copy_is_checked(void)
{
    struct aiod_submission record = record_of(AIOD_COPY_RANGE);

    record.frame_offset = 7;
    record.reserved = 1;
    CHECK(aiod_op_source_offset(&record) == (UINT64_C(1) << 32) + 7);
    CHECK(aiod_op_check_source(&record, &reading, &reason) == 0);
    CHECK(aiod_op_check_source(&record, &writing, &reason) == EBADF && reason == AIOD_REASON_NO_ACCESS);
    CHECK(aiod_op_check_source(&record, NULL, &reason) == EBADF && reason == AIOD_REASON_NO_HANDLE);
    record.reserved = UINT32_MAX;
    CHECK(aiod_op_check_source(&record, &reading, &reason) == EINVAL && reason == AIOD_REASON_BAD_ENTRY);
    record.reserved = INT32_MAX;
    record.frame_offset = UINT32_MAX;
    CHECK(aiod_op_check_source(&record, &reading, &reason) == EINVAL && reason == AIOD_REASON_BAD_ENTRY);
}

/* A flush makes durable what was acknowledged before the lock was lost. */
static void a_lost_lock_fences_all_but_flushes(void)
{
    static const struct aiod_handle fenced = {.use = {.readable = true, .writable = true}, .lock_lost = true};

    for (unsigned op = AIOD_READ; op < AIOD_WIRE_OPS; op++) {
        struct aiod_submission record = record_of(op);

        if (op == AIOD_FLUSH || op == AIOD_CLOSE_FILE) {
            CHECK(check(&record, &fenced) == 0);
        } else if (!aiod_op_has_path(op)) {
            CHECK(is_refused(&record, &fenced, EIO, AIOD_REASON_LOCK_LOST));
        }
    }
}

int main(void)
{
    each_operation_needs_its_access();
    unknown_flags_are_refused();
    only_repeatable_operations_are_repeated();
    ring_operations_are_marked();
    fields_out_of_range_are_refused();
    lengths_are_limited();
    only_listed_ioctls_are_allowed();
    writes_beyond_size_max_are_refused();
    a_names_handle_is_for_paths_only();
    a_lost_lock_fences_all_but_flushes();
    the_source_of_a_copy_is_checked();
    return 0;
}
