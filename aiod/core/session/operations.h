/*
 * operations.h - validates the record of an operation, and the handle that it uses (docs/operations.md). Thread-safe.
 */
#ifndef AIOD_OPERATIONS_H
#define AIOD_OPERATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/request.h"
#include "protocol/records.h"
#include "session/session.h"

/* Is it an operation of the protocol? */
bool aiod_op_known(unsigned op);

/* Does its length count against the credit, and is it limited by request_bytes_max? */
bool aiod_op_charged(unsigned op);

/* Does a request with a length above 0 carry a payload? */
bool aiod_op_has_payload(unsigned op);

/* Does a path come with it? */
bool aiod_op_has_path(unsigned op);

/* Is it refused by message? */
bool aiod_op_by_ring_only(unsigned op);

/* Can a ring carry the operation? And does it use a buffer in the ring's area? */
bool aiod_op_by_ring(unsigned op);
bool aiod_op_uses_area(unsigned op);

/*
 * May the operation be executed twice, because it changes nothing or has the same effect again? False for unknown ones.
 */
bool aiod_op_may_repeat(unsigned op);

/* Does the operation change a file or a name? False for unknown ones. */
bool aiod_op_changes(unsigned op);

/* The maximum payload of a completion, for a request of `length` bytes; 0: none. */
uint64_t aiod_op_result_bytes(unsigned op, uint64_t length);

/* The number of bytes that a request with this result has moved. */
uint64_t aiod_op_moved_bytes(unsigned op, uint64_t length, int64_t result);

/*
 * May `record` be executed on the session's `handle`? 0, or an errno (positive) and its `*reason`. Includes the check
 * of lengths against `request_bytes_max`; excludes the source of a COPY_RANGE (aiod_op_check_source()).
 */
int aiod_op_check(const struct aiod_submission *record, const struct aiod_handle *handle, uint64_t request_bytes_max,
                  enum aiod_reason *reason);

/*
 * aiod_request.group of a flush, which one flush can serve together. NULL: not a flush, or a flush that has a loss to
 * report.
 */
const void *aiod_flush_group(unsigned op, const struct aiod_handle *handle);

/* The source offset of a COPY_RANGE. */
uint64_t aiod_op_source_offset(const struct aiod_submission *record);

/* The number of bytes that the request moves or creates, as a cost for the disk. */
uint64_t aiod_op_cost(unsigned op, uint64_t length);

/* Like aiod_op_check() for the source handle of a COPY_RANGE; NULL: there is no such handle. */
int aiod_op_check_source(const struct aiod_submission *record, const struct aiod_handle *source,
                         enum aiod_reason *reason);

#endif
