/*
 * operations.h - the form of each operation's record, and what a handle must allow: one table (docs/operations.md).
 */
#ifndef AIOD_OPERATIONS_H
#define AIOD_OPERATIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/records.h"
#include "pool/request.h"
#include "session/session.h"

/* Is it an operation of the wire? */
bool aiod_op_known(unsigned op);

/* Do its `length` bytes count against the credit, and are they bounded by request_bytes_max? */
bool aiod_op_charged(unsigned op);

/* Does a request of it bring a payload along, if its length is not 0? */
bool aiod_op_has_payload(unsigned op);

/* Does a ring carry it? And has it a buffer in the ring's area then? */
bool aiod_op_by_ring(unsigned op);
bool aiod_op_uses_area(unsigned op);

/* May it be executed twice: it changes nothing, or does the same again? An unknown operation may not. */
bool aiod_op_may_repeat(unsigned op);

/* Bytes of payload that a completion of it may have, `length` being the request's; 0: it has none. */
uint64_t aiod_op_result_bytes(unsigned op, uint64_t length);

/* Bytes that a request of it has moved, which ended with `result`. */
uint64_t aiod_op_moved_bytes(unsigned op, uint64_t length, int64_t result);

/*
 * May the session's `handle` carry `record` out? 0, or the errno (positive) with its `*reason`. Lengths against
 * `request_bytes_max` included; the source of a COPY_RANGE not (aiod_op_check_source).
 */
int aiod_op_check(const struct aiod_submission *record, const struct aiod_handle *handle, uint64_t request_bytes_max,
                  enum aiod_reason *reason);

/* aiod_request.group: those that one flush serves; NULL: none, as it is no flush, or has something of its own to be told. */
const void *aiod_flush_group(unsigned op, const struct aiod_handle *handle);

/* The offset in the source of a COPY_RANGE. */
uint64_t aiod_op_source_offset(const struct aiod_submission *record);

/* The bytes that it moves or makes, as the disk sees it. */
uint64_t aiod_op_cost(unsigned op, uint64_t length);

/* As aiod_op_check, of a COPY_RANGE's source (NULL: there is no such handle). */
int aiod_op_check_source(const struct aiod_submission *record, const struct aiod_handle *source,
                         enum aiod_reason *reason);

#endif
