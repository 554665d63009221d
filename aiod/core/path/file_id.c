/* file_id.c - hashes the identity of a file: its handle, birth time and mount. */
#include "path/file_id.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "path/filesystem.h"

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200 /* Linux 6.5: a file handle for comparisons only */
#endif

#ifndef CEPH_SUPER_MAGIC
#define CEPH_SUPER_MAGIC 0x00c36400
#endif

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u /* Linux 6.8 */
#endif

#define STX_MNT_ID 144 /* offset of statx.stx_mnt_id, which older headers do not define */
#define FNV_START UINT64_C(0xcbf29ce484222325)

union file_handle_room {
    struct file_handle handle;
    unsigned char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
};

/* Continue the 64-bit FNV-1a hash. */
static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;

    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Add the file handle to the hash. False: the file system has none. */
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

/* Add the birth time to the hash. False: unknown. */
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

/* Add the unique id of the mount, which is never reused. False: before Linux 6.8. */
static bool mix_mount(int fd, uint64_t *hash)
{
    struct statx found;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &found) < 0 || (found.stx_mask & STATX_MNT_ID_UNIQUE) == 0) {
        return false;
    }
    *hash = mix(*hash, (const char *)&found + STX_MNT_ID, sizeof(uint64_t));
    return true;
}

/* Add the GFID to the hash, the number of a file of GlusterFS. False: another file system. */
static bool mix_gfid(int fd, uint64_t *hash)
{
    char gfid[16];

    if (fgetxattr(fd, "glusterfs.gfid", gfid, sizeof(gfid)) != sizeof(gfid)) {
        return false;
    }
    *hash = mix(*hash, gfid, sizeof(gfid));
    return true;
}

/* The numbers in a FUSE file handle are made up by the server, and start again with each mount. */
static bool mix_on_fuse(int fd, uint64_t *hash, bool *by_server)
{
    *by_server = mix_birth(fd, hash) || mix_gfid(fd, hash);
    return *by_server || (mix_mount(fd, hash) && mix_handle(fd, 0, hash));
}

/* Clusters of CephFS count their files alike: add the id of the cluster, which is the same on all hosts. */
static void mix_cluster(int fd, uint64_t *hash)
{
    struct statfs found;

    if (fstatfs(fd, &found) == 0 && (unsigned long)found.f_type == CEPH_SUPER_MAGIC) {
        *hash = mix(*hash, &found.f_fsid, sizeof(found.f_fsid));
    }
}

/* On a file system that neither FUSE nor another host serves. */
static bool mix_local(int fd, uint64_t *hash)
{
    bool known;

    if (mix_handle(fd, 0, hash)) {
        return true;
    }
    known = mix_birth(fd, hash);
    return mix_handle(fd, AT_HANDLE_FID, hash) || known;
}

static bool mix_all(int fd, uint64_t *hash, bool *by_server)
{
    if (aiod_is_on_fuse(fd)) {
        return mix_on_fuse(fd, hash, by_server);
    }
    *by_server = aiod_is_shared(fd);
    if (*by_server) {
        mix_cluster(fd, hash);
    }
    return mix_local(fd, hash);
}

uint64_t aiod_local_file_generation(int fd)
{
    uint64_t hash = FNV_START;

    if (!mix_local(fd, &hash)) {
        return 0;
    }
    return hash != 0 ? hash : 1;
}

uint64_t aiod_file_generation(int fd, uint64_t *dev)
{
    uint64_t hash = FNV_START;
    bool by_server = false;

    if (!mix_all(fd, &hash, &by_server)) {
        return 0;
    }
    hash = hash != 0 ? hash : 1;
    *dev = by_server ? hash : *dev;
    return hash;
}
