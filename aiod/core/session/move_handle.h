/*
 * move_handle.h - an open file moves to the mount that has taken the place of a dead one.
 *
 * When the server of a FUSE mount has ended, every request on the mount fails with ENOTCONN. A new mount at the same path
 * does not help open files, because their open file descriptions belong to the dead one. So the file is opened again by
 * its name and, if the server says that it is the same file (file_id.h), the new description replaces the old one behind
 * the descriptor's number, which requests and rings go on to use.
 *
 * What was acknowledged and not flushed may be lost with the old server. The next flush of each handle of the file says
 * so (write_loss.h). A failed flush is a matter of the dead mount: the file is no longer poisoned.
 */
#ifndef AIOD_MOVE_HANDLE_H
#define AIOD_MOVE_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "path/confined_open.h"
#include "session/session.h"

/* The flags with which the handle's file is opened again. */
unsigned aiod_handle_open_flags(const struct aiod_handle *handle);

/*
 * Move the handle to `opened`, the file that has its name now, and close the descriptors of `opened` but for its store_fd.
 * 1: done; 0: the mount is the same, nothing was done. -ESTALE: it is another file, or the server does not say. On 0 and
 * failure all descriptors of `opened` are closed. Blocks. Any thread, while the handle has a request in flight.
 */
int aiod_handle_move(struct aiod_handle *handle, struct aiod_opened *opened);

/* Note the result of a request of the handle: does it say that the mount is dead? Any thread. */
void aiod_handle_note_result(struct aiod_handle *handle, int64_t result);

/* Has a request of the handle, or a flush of its file, said so? Any thread. */
bool aiod_handle_mount_is_lost(const struct aiod_handle *handle);

#endif
