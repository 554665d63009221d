/*
 * files.h - calls that are repeated at the next engine (files.c). The client's lock is held on entry and return, not
 * meanwhile.
 */
#ifndef LIBAIOD_FILES_H
#define LIBAIOD_FILES_H

#include "calls.h"

/*
 * Is the call to be repeated? If so, return when an engine is connected; *result is the errno of the end if there is
 * none.
 */
bool aiod_files_repeat(struct aiod_client *client, enum aiod_call_state state, int64_t *result);

#endif
