/*
 * files.c - opening and closing files: by the ring where that is possible, else by message.
 */
#include <errno.h>
#include <string.h>

#include "client.h"
#include "error.h"
#include "file_calls.h"
#include "forks.h"
#include "ring_files.h"

/* The library may have had the caller's handle for some time. */
static int64_t open_names(struct aiod_client *client, const char *export)
{
    int64_t handle = aiod_ring_names_give(client, export);

    if (handle == 0) {
        handle = aiod_open_by_message(client, export, AIOD_OPEN_NAMES, 0);
        if (handle > 0) {
            aiod_ring_names_borrow(client, export, (uint32_t)handle);
        }
    }
    return handle;
}

int64_t aiod_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode)
{
    size_t length = strlen(path);
    int64_t result;

    if (length > AIOD_RING_PATH_MAX) {
        return aiod_fail(-ENAMETOOLONG, "the path has %zu bytes; at most %u are allowed", length, AIOD_RING_PATH_MAX);
    }
    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    if (flags == AIOD_OPEN_NAMES) {
        return open_names(client, path);
    }
    return aiod_ring_open(client, path, flags, mode, &result) ? result
                                                              : aiod_open_by_message(client, path, flags, mode);
}

int aiod_close(struct aiod_client *client, uint32_t handle)
{
    int64_t result;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    if (aiod_ring_close(client, handle, &result)) {
        return (int)result;
    }
    aiod_ring_names_forget(client, handle);
    return aiod_close_by_message(client, handle);
}
