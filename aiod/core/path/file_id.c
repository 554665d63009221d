#include "path/file_id.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "path/filesystem.h"

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200 /* Linux 6.5: a handle to compare, not to open by */
#endif

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u /* Linux 6.8 */
#endif

#define STX_MNT_ID 144 /* offset of statx.stx_mnt_id, which older headers lack */
#define FNV_START UINT64_C(0xcbf29ce484222325)

union file_handle_room {
    struct file_handle handle;
    unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* FNV-1a, 64 bits, going on from `hash`. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* `hash`, and the file's handle; false: there is none. */
static bool mix_handle(int fd, int flags, uint64_t *hash)
{
    union file_handle_room room = {.handle = {.handle_bytes = MAX_HANDLE_SZ}};
    int mount_id;

    if (name_to_handle_at(fd, "", &room.handle, &mount_id, AT_EMPTY_PATH | flags) < 0) {
        return false;
    }
    *hash = mix(*hash, room.bytes, offsetof(struct file_handle, f_handle) + room.handle.handle_bytes);
    return true;
}

/* `hash`, and when the file was made; false: nobody knows. */
static bool mix_birth(int fd, uint64_t *hash)
{
    struct statx found;
    int64_t birth[2];

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &found) < 0 || (found.stx_mask & STATX_BTIME) == 0) {
        return false;
    }
    birth[0] = found.stx_btime.tv_sec;
    birth[1] = found.stx_btime.tv_nsec;
    *hash = mix(*hash, birth, sizeof(birth));
    return true;
}

/* `hash`, and the mount, whose number is never given to another; false: before Linux 6.8. */
static bool mix_mount(int fd, uint64_t *hash)
{
    struct statx found;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &found) < 0 || (found.stx_mask & STATX_MNT_ID_UNIQUE) == 0) {
        return false;
    }
    *hash = mix(*hash, (const char *)&found + STX_MNT_ID, sizeof(uint64_t));
    return true;
}

static bool mix_all(int fd, uint64_t *hash)
{
    bool known;

    if (aiod_is_on_fuse(fd)) { /* a handle has numbers that the server has made up, beginning anew with each mount */
        return mix_birth(fd, hash) || (mix_mount(fd, hash) && mix_handle(fd, 0, hash));
    }
    if (mix_handle(fd, 0, hash)) {
        return true;
    }
    known = mix_birth(fd, hash);
    return mix_handle(fd, AT_HANDLE_FID, hash) || known;
}

uint64_t aiod_file_generation(int fd)
{
    uint64_t hash = FNV_START;
    bool known = mix_all(fd, &hash);

    return !known ? 0 : hash != 0 ? hash : 1;
}
