/*
 * ring_files.h - opening and closing files by the ring, instead of a message each (ring_files.c). The client's lock is
 * not held.
 */
#ifndef LIBAIOD_RING_FILES_H
#define LIBAIOD_RING_FILES_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;

/* Open a file. True: *result is the handle, or -errno with its message. False: it has to be opened by message. */
bool aiod_ring_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode, int64_t *result);

/* Close a file. False: it has to be closed by message. */
bool aiod_ring_close(struct aiod_client *client, uint32_t handle, int64_t *result);

/*
 * A session has few handles for names. aiod_ring_names_give() gives the caller the one that the library has for
 * `export`; 0: it has none. aiod_ring_names_borrow() lets the library use the caller's until aiod_ring_names_forget().
 */
uint32_t aiod_ring_names_give(struct aiod_client *client, const char *export);
void aiod_ring_names_borrow(struct aiod_client *client, const char *export, uint32_t handle);
void aiod_ring_names_forget(struct aiod_client *client, uint32_t handle);

void aiod_ring_files_destroy(struct aiod_client *client);

#endif
