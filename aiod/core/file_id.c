#include "file_id.h"

#include <fcntl.h>
#include <stddef.h>

uint64_t aiod_file_generation(int fd)
{
    union {
        struct file_handle handle;
        unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } found = {.handle = {.handle_bytes = MAX_HANDLE_SZ}};
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    size_t end;
    int mount_id;

    if (name_to_handle_at(fd, "", &found.handle, &mount_id, AT_EMPTY_PATH) < 0) {
        return 0;
    }
    end = offsetof(struct file_handle, f_handle) + found.handle.handle_bytes;
    for (size_t i = 0; i < end; i++) {
        hash = (hash ^ found.bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}
