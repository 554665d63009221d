/*
 * name_request.h - a NAME by ring: parses what its client has written, and writes the answer (aiod_ring.h says the form).
 *
 * The export's rules are those of the engine's Python part (engine/name_verbs.py), which gives a NAMES handle the verbs that
 * its export allows. What is refused here is refused by message, too, which says why in a sentence.
 */
#ifndef AIOD_NAME_REQUEST_H
#define AIOD_NAME_REQUEST_H

#include <stdint.h>

#include "path/directory_ops.h"
#include "pool/request.h"
#include "session/session.h"

/* The most bytes of a request: both paths, and the value of an attribute. */
#define AIOD_NAME_REQUEST_BYTES_MAX (65536u + 4096u)

/*
 * Make the operation of the request that lies in `bytes`, which nobody else writes to; its answer has room for
 * `room_bytes`. 0, or an errno (positive) and its `*reason`.
 */
int aiod_name_request_parse(const char *bytes, uint32_t byte_count, uint64_t room_bytes, const struct aiod_names *names,
                            struct aiod_directory_op **parsed, enum aiod_reason *reason);

/* Carry it out, and write the answer to `room`. The bytes of the answer, or -errno. Blocks: for workers. */
int64_t aiod_name_request_run(struct aiod_directory_op *directory_op, char *room, enum aiod_reason *reason);

#endif
