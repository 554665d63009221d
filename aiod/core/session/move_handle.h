/*
 * move_handle.h - an open file moves to the mount that has taken the place of a dead one.
 *
 * When the server of a FUSE mount has ended, every request on the mount fails with ENOTCONN. A new mount at the same path
 * does not help open files, because their open file descriptions belong to the dead one. So the file is opened again by
 * its name and, if the server says that it is the same file (file_id.h), the new description replaces the old one behind
 * the descriptor's number, which requests and rings go on to use.
 *
 * A server may also give up one open file of a mount that lives: every request on it fails with EBADFD. GlusterFS does so
 * (client.strict-locks) when a storage host has dropped the file's locks, because the mount could not be reached for too
 * long. The file is opened again in the same way; its locks are lost from the first such error on.
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
 * 1: done; 0: the mount is the same and has not given the file up, nothing was done. -ESTALE: it is another file, or the server does not say. On 0 and
 * failure all descriptors of `opened` are closed. Blocks. Any thread, while the handle has a request in flight.
 */
int aiod_handle_move(struct aiod_handle *handle, struct aiod_opened *opened);

enum aiod_handle_loss {
    AIOD_HANDLE_WELL,
    AIOD_HANDLE_GIVEN_UP,   /* by the server, while its mount lives */
    AIOD_HANDLE_MOUNT_LOST, /* the mount is dead */
};

/* Note the result of a request of the handle: does it tell of a loss? Any thread. */
void aiod_handle_note_result(struct aiod_handle *handle, int64_t result);

/* What has a request of the handle, or a flush of its file, said? Any thread. */
enum aiod_handle_loss aiod_handle_loss(const struct aiod_handle *handle);

#endif
