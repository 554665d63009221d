/*
 * file_calls.h - OPEN and CLOSE by message, and the rule of repetition (file_calls.c). The client's lock is not held,
 * unless a function says otherwise.
 */
#ifndef LIBAIOD_FILE_CALLS_H
#define LIBAIOD_FILE_CALLS_H

#include <stdint.h>

#include "calls.h"

/*
 * Is a call to be repeated? If so, return when an engine is connected; *result is the errno of the end if there is
 * none. The client's lock is held on entry and return, not meanwhile.
 */
bool aiod_files_repeat(struct aiod_client *client, enum aiod_call_state state, int64_t *result);

/* Returns a handle, or -errno with its message. `path` has AIOD_RING_PATH_MAX bytes at most. */
int64_t aiod_open_by_message(struct aiod_client *client, const char *path, unsigned flags, unsigned mode);

/* 0, or -errno with its message. */
int aiod_close_by_message(struct aiod_client *client, uint32_t handle);

/*
 * The same without waiting for the answer, which may take as long as the handle's requests, or a free worker. While no
 * engine is connected the handle stays open.
 */
void aiod_discard_by_message(struct aiod_client *client, uint32_t handle);

#endif
