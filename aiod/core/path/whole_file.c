/* whole_file.c - open, stat, read and close; or create, write, sync and rename. */
#include "path/whole_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/query_ops.h"
#include "ops/worker_io.h"
#include "path/cached_path.h"
#include "path/confined.h"
#include "path/directory_ops.h"
#include "util/os.h"

#define TEMPORARY_NAMES_MAX 8 /* more than this in use already is not accidental */

static const struct aiod_alignment no_alignment = {.memory = 1, .offset = 1};

/* ---- stat -------------------------------------------------------------------------------------------------------- */

static void put_stat(char *room, const struct aiod_stat *stat)
{
    memcpy(room, stat, sizeof(*stat));
}

/* Note the device of the file, which has this stat, if it is local. */
static void learn_device(struct aiod_whole_file *file, int fd, const struct aiod_stat *stat)
{
    if (stat->device != file->local_device && aiod_is_local(fd)) {
        file->local_device = stat->device;
    }
}

static int64_t stat_opened(struct aiod_whole_file *file, int fd, char *room)
{
    struct aiod_stat stat;
    int64_t error = aiod_query_stat(fd, &no_alignment, &stat);

    if (error < 0) {
        return error;
    }
    learn_device(file, fd, &stat);
    put_stat(room, &stat);
    return sizeof(stat);
}

int64_t aiod_whole_file_stat(struct aiod_whole_file *file, char *room, uint64_t length)
{
    int root_fd = length < sizeof(struct aiod_stat) ? -EINVAL : aiod_open_root(file->root, O_DIRECTORY);
    int64_t result;
    int fd;

    if (root_fd < 0) {
        return root_fd;
    }
    fd = aiod_open_beneath(root_fd, *file->path != '\0' ? file->path : ".", O_PATH, 0, !file->no_links);
    close(root_fd);
    if (fd < 0) {
        return fd;
    }
    result = stat_opened(file, fd, room);
    close(fd);
    return result;
}

int64_t aiod_whole_file_stat_nowait(const struct aiod_whole_file *file, char *room, uint64_t length,
                                    struct aiod_spent *spent)
{
    int fd = length < sizeof(struct aiod_stat) || file->local_device == 0
                 ? -EAGAIN
                 : aiod_cached_open(file->root, file->path, file->no_links);
    struct aiod_stat stat;
    int error;

    if (fd < 0) {
        return fd;
    }
    aiod_spent_add(spent, fd);
    error = aiod_cached_stat(fd, file->local_device, &stat);
    if (error < 0) {
        return error;
    }
    put_stat(room, &stat);
    return sizeof(stat);
}

/* ---- read -------------------------------------------------------------------------------------------------------- */

static int64_t read_opened(struct aiod_whole_file *file, int fd, char *room, uint64_t length)
{
    struct aiod_stat stat;
    int64_t result = aiod_query_stat(fd, &no_alignment, &stat);
    uint64_t most = length - sizeof(stat);

    if (result < 0) {
        return result;
    }
    if (!S_ISREG(stat.mode)) {
        return -EINVAL; /* an export that is a block device */
    }
    learn_device(file, fd, &stat);
    put_stat(room, &stat);
    if (stat.size > most) {
        return -EFBIG;
    }
    result = aiod_io_read(fd, room + sizeof(stat), stat.size > 0 ? stat.size : most, 0, 0);
    if (result < 0) {
        return result;
    }
    /* without a size, there may be more than the room holds */
    return stat.size == 0 && result > 0 && (uint64_t)result == most ? -EFBIG : result + (int64_t)sizeof(stat);
}

int64_t aiod_whole_file_read(struct aiod_whole_file *file, char *room, uint64_t length)
{
    int64_t result = length < sizeof(struct aiod_stat)
                         ? -EINVAL
                         : aiod_confined_open_reading(file->root, file->path, file->no_links ? AIOD_OPEN_NO_LINKS : 0);
    int fd = (int)result;

    if (result < 0) {
        return result;
    }
    result = read_opened(file, fd, room, length);
    close(fd);
    return result;
}

static int64_t read_cached(int path_fd, char *data, uint64_t bytes, bool *never, struct aiod_spent *spent)
{
    int fd = aiod_cached_reopen(path_fd);
    uint64_t have;

    if (fd < 0) {
        return fd;
    }
    aiod_spent_add(spent, fd);
    have = aiod_io_read_nowait(fd, data, bytes, 0, never);
    return have == bytes ? (int64_t)bytes : -EAGAIN;
}

/* Of a local file the size is true, also if it is 0. */
static int64_t read_on_device(int path_fd, const struct aiod_stat *stat, char *room, uint64_t length,
                              uint64_t bytes_max, bool *never, struct aiod_spent *spent)
{
    int64_t result = 0;

    if (!S_ISREG(stat->mode)) {
        return -EAGAIN;
    }
    put_stat(room, stat);
    if (stat->size > length - sizeof(*stat)) {
        return -EFBIG;
    }
    if (stat->size > 0) {
        result =
            stat->size <= bytes_max ? read_cached(path_fd, room + sizeof(*stat), stat->size, never, spent) : -EAGAIN;
    }
    return result < 0 ? result : result + (int64_t)sizeof(*stat);
}

int64_t aiod_whole_file_read_nowait(const struct aiod_whole_file *file, char *room, uint64_t length, uint64_t bytes_max,
                                    bool *never, struct aiod_spent *spent)
{
    int fd = length < sizeof(struct aiod_stat) || file->local_device == 0
                 ? -EAGAIN
                 : aiod_cached_open(file->root, file->path, file->no_links);
    struct aiod_stat stat;
    int64_t result;

    if (fd < 0) {
        return fd;
    }
    aiod_spent_add(spent, fd);
    result = aiod_cached_stat(fd, file->local_device, &stat);
    return result < 0 ? result : read_on_device(fd, &stat, room, length, bytes_max, never, spent);
}

/* ---- write ------------------------------------------------------------------------------------------------------- */

struct temporary {
    int directory_fd;
    int fd;
    char name[32];
};

static int create_temporary(struct temporary *temporary, const struct aiod_creation *creation)
{
    uint64_t number = aiod_now_ns();

    for (int tries = 0; tries < TEMPORARY_NAMES_MAX; tries++) {
        (void)!getrandom(&number, sizeof(number), GRND_NONBLOCK);
        snprintf(temporary->name, sizeof(temporary->name), ".aiod-%016llx", (unsigned long long)number++);
        temporary->fd = openat(temporary->directory_fd, temporary->name,
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, creation->mode & 0777);
        if (temporary->fd >= 0) {
            return 0;
        }
        if (errno != EEXIST) {
            return -errno;
        }
    }
    return -EEXIST;
}

static int fill_temporary(const struct temporary *temporary, const struct aiod_whole_file *file, void *data,
                          uint64_t length)
{
    struct iovec piece = {.iov_base = data, .iov_len = length};
    uint64_t written = 0;
    int64_t result = aiod_confined_set_owner_and_mode(temporary->fd, file->creation);

    if (result == 0 && length > 0) {
        result = aiod_io_write(temporary->fd, &piece, 1, 0, 0, &written);
    }
    if (result >= 0 && file->durable) {
        result = aiod_io_flush(temporary->fd);
    }
    return result < 0 ? (int)result : 0;
}

/* Without a replacement: where the file system cannot rename so, a second link does the same. */
static int name_exclusively(const struct temporary *temporary, const char *name)
{
    int fd = temporary->directory_fd;

    if (aiod_os->renameat2(fd, temporary->name, fd, name, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno != EINVAL) {
        return -errno;
    }
    if (linkat(fd, temporary->name, fd, name, 0) < 0) {
        return -errno;
    }
    return unlinkat(fd, temporary->name, 0) < 0 ? -errno : 0;
}

static int name_temporary(const struct temporary *temporary, const char *name, bool exclusive)
{
    int fd = temporary->directory_fd;

    if (exclusive) {
        return name_exclusively(temporary, name);
    }
    return aiod_os->renameat2(fd, temporary->name, fd, name, 0) < 0 ? -errno : 0;
}

static int sync_directory(int path_fd)
{
    int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error;

    if (fd < 0) {
        return -errno;
    }
    do {
        error = aiod_os->fsync(fd) < 0 ? -errno : 0;
    } while (error == -EINTR);
    close(fd);
    return error;
}

static int write_in_directory(const struct aiod_whole_file *file, const struct aiod_target *target, void *data,
                              uint64_t length)
{
    struct temporary temporary = {.directory_fd = target->directory_fd};
    int error = create_temporary(&temporary, file->creation);

    if (error < 0) {
        return error;
    }
    error = fill_temporary(&temporary, file, data, length);
    if (close(temporary.fd) < 0 && errno != EINTR && error == 0) {
        error = -errno; /* NFS and FUSE report failed writes here */
    }
    if (error == 0) {
        error = name_temporary(&temporary, target->name, file->exclusive);
    }
    if (error < 0) {
        unlinkat(target->directory_fd, temporary.name, 0);
        return error;
    }
    return file->durable ? sync_directory(target->directory_fd) : 0;
}

int64_t aiod_whole_file_write(const struct aiod_whole_file *file, void *data, uint64_t length)
{
    int root_fd = aiod_open_root(file->root, O_DIRECTORY);
    struct aiod_target target;
    int error;

    if (root_fd < 0) {
        return root_fd;
    }
    error = aiod_target_find(&target, root_fd, file->path, !file->no_links);
    close(root_fd);
    if (error < 0) {
        return error;
    }
    error = write_in_directory(file, &target, data, length);
    close(target.directory_fd);
    return error < 0 ? error : (int64_t)length;
}
