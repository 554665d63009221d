/*
 * buffers.h - buffers that the library gets and releases itself (buffers.c).
 */
#ifndef LIBAIOD_BUFFERS_H
#define LIBAIOD_BUFFERS_H

#include <stdint.h>

struct aiod_client;

/* Release a buffer. The client's lock is held. */
void aiod_release_buffer(struct aiod_client *client, void *buffer);

/*
 * A blocking call's own buffer, counted as borrowed: the call releases it soon. The client's lock is not held.
 * aiod_borrow_buffer() returns NULL if no block of `bytes` is free; a NULL buffer is ignored.
 */
void *aiod_borrow_buffer(struct aiod_client *client, uint64_t bytes);
void aiod_return_buffer(struct aiod_client *client, void *buffer);

/* The request that uses the borrowed buffer owns it from now on. */
void aiod_disown_buffer(struct aiod_client *client, const void *buffer);

#endif
