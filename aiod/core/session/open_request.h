/*
 * open_request.h - an OPEN_WRITABLE by ring: checks the flags by the rules of the message OPEN (engine/admission.py), and
 * opens the file.
 *
 * What is refused here is refused by message, too, which says why in a sentence.
 */
#ifndef AIOD_OPEN_REQUEST_H
#define AIOD_OPEN_REQUEST_H

#include <stdint.h>

#include "path/confined_open.h"
#include "pool/request.h"
#include "session/session.h"

/*
 * The record and the path of a request, of which `bytes` is a copy with a final zero; the path is moved to its beginning. 0,
 * or an errno (positive) and its `*reason`.
 */
int aiod_open_request_parse(char *bytes, uint32_t byte_count, const struct aiod_handle_use *names,
                            struct aiod_ring_open_file *wanted, enum aiod_reason *reason);

/* Open the file. 0, or -errno as aiod_confined_open(). Blocks: for workers. */
int aiod_open_request_run(const struct aiod_names *names, const char *path, const struct aiod_ring_open_file *wanted,
                          struct aiod_opened *opened);

#endif
