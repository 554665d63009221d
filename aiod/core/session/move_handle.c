/* move_handle.c - dup3() over the descriptors of a handle and its file. */
#include "session/move_handle.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/*
 * The id of the descriptor's mount; -1: unknown. From /proc, since statx() may ask the server, which hangs or is dead.
 * Ids of ended mounts are used again only when no open file belongs to them.
 */
static int mount_of(int fd)
{
    char name[48];
    char line[64];
    int mount = -1;
    FILE *info;

    snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
    info = fopen(name, "re");
    if (info == NULL) {
        return -1;
    }
    while (mount < 0 && fgets(line, sizeof(line), info) != NULL) {
        if (sscanf(line, "mnt_id: %d", &mount) != 1) {
            mount = -1;
        }
    }
    fclose(info);
    return mount;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static int end(struct aiod_opened *opened, int result)
{
    close_if_open(&opened->fd);
    close_if_open(&opened->flush_fd);
    if (result <= 0) {
        close_if_open(&opened->store_fd);
    }
    return result;
}

/* Only the server's own identity of a file is valid for both mounts (file_id.h). */
static bool is_same(const struct aiod_file *file, const struct aiod_opened *opened)
{
    return opened->generation != 0 && opened->generation == opened->dev && opened->dev == file->dev &&
           opened->ino == file->ino;
}

/* Several handles of the file may move at once: each replaces the descriptor for flushes, until it has moved. */
static int move_flushes(struct aiod_flushes *flushes, const struct aiod_opened *opened, int mount, bool given_up)
{
    int from = opened->flush_fd >= 0 ? opened->flush_fd : opened->fd;

    return (given_up || mount_of(flushes->fd) != mount) && dup3(from, flushes->fd, O_CLOEXEC) < 0 ? -errno : 0;
}

unsigned aiod_handle_open_flags(const struct aiod_handle *handle)
{
    return (handle->use.readable ? AIOD_OPEN_READ : 0u) | (handle->use.writable ? AIOD_OPEN_WRITE : 0u) |
           (handle->use.direct ? AIOD_OPEN_DIRECT : 0u);
}

int aiod_handle_move(struct aiod_handle *handle, struct aiod_opened *opened)
{
    struct aiod_file *file = handle->file;
    int mount = mount_of(opened->fd);
    bool given_up = __atomic_exchange_n(&handle->given_up, false, __ATOMIC_RELAXED);
    int error;

    __atomic_store_n(&handle->mount_lost, false, __ATOMIC_RELAXED);
    if (mount == mount_of(handle->fd) && !given_up) {
        __atomic_store_n(&file->flushes.mount_lost, false, __ATOMIC_RELAXED);
        return end(opened, 0);
    }
    if (!is_same(file, opened)) {
        return end(opened, -ESTALE);
    }
    if (__atomic_load_n(&handle->holds_locks, __ATOMIC_RELAXED)) { /* its locks go with the description */
        __atomic_store_n(&handle->lock_lost, true, __ATOMIC_RELEASE);
    }
    if (dup3(opened->fd, handle->fd, O_CLOEXEC) < 0) {
        return end(opened, -errno);
    }
    error = move_flushes(&file->flushes, opened, mount, given_up);
    if (aiod_flushes_forget(&file->flushes, &handle->writer)) {
        aiod_write_loss_add(&file->write_loss);
    }
    return end(opened, error < 0 ? error : 1);
}

enum aiod_handle_loss aiod_handle_loss(const struct aiod_handle *handle)
{
    if (__atomic_load_n(&handle->mount_lost, __ATOMIC_RELAXED) ||
        __atomic_load_n(&handle->file->flushes.mount_lost, __ATOMIC_RELAXED)) {
        return AIOD_HANDLE_MOUNT_LOST;
    }
    return __atomic_load_n(&handle->given_up, __ATOMIC_RELAXED) ? AIOD_HANDLE_GIVEN_UP : AIOD_HANDLE_WELL;
}

/* Fenced at once: without strict-locks the server takes requests of the open file again when it is reached again. */
static void note_given_up(struct aiod_handle *handle)
{
    if (__atomic_load_n(&handle->holds_locks, __ATOMIC_RELAXED)) {
        __atomic_store_n(&handle->lock_lost, true, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&handle->given_up, true, __ATOMIC_RELAXED);
}

void aiod_handle_note_result(struct aiod_handle *handle, int64_t result)
{
    if (!handle->use.on_fuse) {
        return;
    }
    if (result == -ENOTCONN || result == -ECONNABORTED) {
        __atomic_store_n(&handle->mount_lost, true, __ATOMIC_RELAXED);
    } else if (result == -EBADFD) {
        note_given_up(handle);
    }
}
