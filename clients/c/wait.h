/*
 * wait.h - waiting for room (wait.c). The client's lock is not held.
 */
#ifndef LIBAIOD_WAIT_H
#define LIBAIOD_WAIT_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;

/* How many slots and buffers were released so far. */
uint64_t aiod_room_count(const struct aiod_client *client);

/* Wait until that count is not `seen`. 0, -ETIMEDOUT; or -ENOBUFS: only the caller itself can release any. */
int aiod_wait_for_room(struct aiod_client *client, uint64_t seen, uint64_t deadline_ns);

/*
 * Wait until the requests on the handle that are in flight now are done, until `deadline_ns` at most. Are they? The
 * client's lock is held on entry and return, not meanwhile.
 */
bool aiod_wait_for_handle(struct aiod_client *client, uint32_t handle, uint64_t deadline_ns);

#endif
