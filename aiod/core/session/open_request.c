/* open_request.c - the flags of an open, and the open itself. */
#include "session/open_request.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "path/cached_path.h"
#include "util/utf8.h"

#define FLAGS                                                                                                          \
    (AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE | AIOD_OPEN_APPEND)
#define PERMISSIONS 0777u

static bool flags_are_right(const struct aiod_ring_open_file *wanted)
{
    return (wanted->flags & ~(unsigned)FLAGS) == 0 && (wanted->flags & AIOD_OPEN_WRITE) != 0 &&
           ((wanted->flags & AIOD_OPEN_EXCLUSIVE) == 0 || (wanted->flags & AIOD_OPEN_CREATE) != 0) &&
           (wanted->mode & ~PERMISSIONS) == 0;
}

int aiod_open_request_parse(char *bytes, uint32_t byte_count, const struct aiod_handle_use *names,
                            struct aiod_ring_open_file *wanted, enum aiod_reason *reason)
{
    uint32_t path_bytes;

    *reason = AIOD_REASON_BAD_ENTRY;
    if (byte_count < sizeof(*wanted)) {
        return EINVAL;
    }
    path_bytes = byte_count - (uint32_t)sizeof(*wanted);
    memcpy(wanted, bytes, sizeof(*wanted));
    memmove(bytes, bytes + sizeof(*wanted), path_bytes + 1);
    if (!flags_are_right(wanted) || path_bytes >= AIOD_RING_PATH_MAX || !aiod_utf8_valid(bytes, path_bytes)) {
        return EINVAL;
    }
    if (!names->writable) {
        *reason = AIOD_REASON_NOT_ALLOWED;
        return EPERM;
    }
    *reason = AIOD_REASON_BY_KERNEL;
    return 0;
}

int aiod_open_request_run(const struct aiod_names *names, const char *path, const struct aiod_ring_open_file *wanted,
                          struct aiod_opened *opened)
{
    struct aiod_creation creation = names->creation;
    unsigned flags = wanted->flags | (names->no_links ? AIOD_OPEN_NO_LINKS : 0u);
    struct stat status;
    int error;

    creation.mode = creation.exact ? creation.mode : wanted->mode;
    error = aiod_confined_open(names->root, path, flags, &creation, opened);
    if (error < 0) {
        return error;
    }
    opened->local = fstat(opened->fd, &status) == 0 && S_ISREG(status.st_mode) && aiod_is_local(opened->fd);
    return 0;
}
