/* io.c - executes a request on a worker: dispatches each operation to ops/ and path/. */
#include "session/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/copy_range.h"
#include "ops/direct.h"
#include "ops/query_ops.h"
#include "ops/range_io.h"
#include "ops/worker_io.h"
#include "path/cached_path.h"
#include "path/open_reading.h"
#include "path/whole_file.h"
#include "session/move_handle.h"
#include "session/name_request.h"
#include "session/open_request.h"
#include "session/operations.h"
#include "util/ioprio.h"
#include "util/iov.h"
#include "util/os.h"

static struct aiod_direct open_file(const struct aiod_io *io, const struct aiod_handle *handle)
{
    return (struct aiod_direct){
        .fd = handle->fd,
        .alignment = handle->use.alignment,
        .buffers = io->buffers,
        .range_locks = &handle->file->range_locks,
        .in_steps = io->task.request.shared,
        .on_fuse = handle->use.on_fuse,
    };
}

static int64_t run_read(struct aiod_io *io, const struct aiod_direct *file)
{
    if (io->iov_count > 0) {
        return io->handle->use.direct ? aiod_direct_readv(file, io->iov, io->iov_count, io->offset)
                                      : aiod_io_readv(file->fd, io->iov, io->iov_count, io->offset, 1);
    }
    if (io->handle->use.direct) {
        return aiod_direct_read(file, io->data, io->length, io->offset);
    }
    return aiod_io_read(file->fd, io->data, io->length, io->offset, io->have);
}

/*
 * Pass on the result of a request that changed the file, after marking the handle as changed for the next flush
 * (flush_writers.h).
 */
static int64_t mark_changed(struct aiod_io *io, int64_t result)
{
    aiod_flush_writer_mark_changed(&io->handle->file->flushes.writers, &io->handle->writer);
    return result;
}

/* A durable write (FUA): one that syncs itself (RWF_DSYNC), or one followed by a shared flush. */
static int64_t run_durable_write(struct aiod_io *io, const struct aiod_direct *file)
{
    struct aiod_flushes *flushes = &io->handle->file->flushes;
    struct aiod_request *request = &io->task.request;
    int64_t result;

    if (aiod_flushes_poisoned(flushes)) {
        request->reason = AIOD_REASON_POISONED;
        return -EIO;
    }
    if (aiod_flushes_begin_durable_write(flushes)) {
        result = aiod_direct_write(file, io->iov, io->iov_count, io->offset, RWF_DSYNC, &io->written);
        return aiod_flushes_end_durable_write(flushes, request, result);
    }
    result = mark_changed(io, aiod_direct_write(file, io->iov, io->iov_count, io->offset, 0, &io->written));
    return result < 0 ? result : aiod_flushes_flush(flushes, request, result);
}

void aiod_io_count_latency(const struct aiod_io *io, enum aiod_async_writes_way way)
{
    if (io->compared) {
        aiod_async_writes_ended(&io->handle->async_writes, way, aiod_now_ns() - io->task.request.queued_ns);
    }
}

static int64_t run_write(struct aiod_io *io, const struct aiod_direct *file)
{
    int64_t result;

    if ((io->flags & AIOD_FUA) != 0) {
        return run_durable_write(io, file);
    }
    aiod_buffered_writes_learn(&io->handle->writes, file->fd);
    if (io->handle->use.uring) {
        aiod_async_writes_learn(&io->handle->async_writes, file->fd);
    }
    result = mark_changed(io, aiod_direct_write(file, io->iov, io->iov_count, io->offset, 0, &io->written));
    aiod_io_count_latency(io, AIOD_ASYNC_WRITES_BY_WORKER);
    return result;
}

static int64_t run_write_zeroes(struct aiod_io *io, const struct aiod_direct *file)
{
    int64_t result = mark_changed(io, aiod_range_write_zeroes(file, io->offset, io->length, io->flags, &io->written));

    if (result < 0 || (io->flags & AIOD_FUA) == 0) {
        return result;
    }
    return aiod_flushes_flush(&io->handle->file->flushes, &io->task.request, result);
}

static int64_t run_flush(struct aiod_io *io)
{
    if (aiod_write_loss_report(&io->handle->file->write_loss, &io->handle->loss_reader)) {
        io->task.request.reason = AIOD_REASON_RESTARTED;
        return -EIO;
    }
    return aiod_flushes_flush(&io->handle->file->flushes, &io->task.request, 0);
}

/* A range lock that excludes requests that make the file too large for a moment (direct.h). */
static struct aiod_range_lock end_of_file_lock(void)
{
    return (struct aiod_range_lock){.start = AIOD_RANGE_END - 1, .end = AIOD_RANGE_END};
}

/* Append, unless the file would grow beyond its limit. */
static int64_t append_within(struct aiod_io *io, int fd)
{
    int64_t size;

    if (io->handle->use.size_max != 0) {
        size = aiod_io_size(fd);
        if (size < 0) {
            return size;
        }
        if (io->length > 0 && (uint64_t)size + io->length > io->handle->use.size_max) {
            io->task.request.reason = AIOD_REASON_TOO_LARGE;
            return -EFBIG;
        }
    }
    return aiod_io_append(fd, io->iov, io->iov_count, &io->written);
}

/* Appends to a file exclude each other, and other users of a file position. */
static int64_t run_append(struct aiod_io *io, const struct aiod_direct *file)
{
    struct aiod_range_lock end = end_of_file_lock();
    int64_t result;

    if (io->handle->use.direct) {
        return -EINVAL; /* the end of the file is not aligned in general */
    }
    aiod_buffered_writes_learn(&io->handle->writes, file->fd);
    pthread_mutex_lock(&io->handle->file->position);
    aiod_range_lock_acquire(file->range_locks, &end);
    result = append_within(io, file->fd);
    aiod_range_lock_release(file->range_locks, &end);
    pthread_mutex_unlock(&io->handle->file->position);
    return result;
}

static int64_t run_extents(struct aiod_io *io, const struct aiod_direct *file)
{
    int64_t count;

    pthread_mutex_lock(&io->handle->file->position);
    count = aiod_query_extents(file->fd, io->offset, io->length, io->data);
    pthread_mutex_unlock(&io->handle->file->position);
    return count < 0 ? count : count * (int64_t)sizeof(struct aiod_extent);
}

static int64_t run_size(const struct aiod_direct *file)
{
    struct aiod_range_lock end = end_of_file_lock();
    int64_t result;

    aiod_range_lock_acquire(file->range_locks, &end);
    result = aiod_io_size(file->fd);
    aiod_range_lock_release(file->range_locks, &end);
    return result;
}

static int64_t run_stat(struct aiod_io *io, const struct aiod_direct *file)
{
    struct aiod_range_lock end = end_of_file_lock();
    struct aiod_stat stat;
    int64_t result;

    aiod_range_lock_acquire(file->range_locks, &end);
    result = aiod_query_stat(file->fd, &file->alignment, &stat);
    aiod_range_lock_release(file->range_locks, &end);
    if (result < 0) {
        return result;
    }
    memcpy(io->data, &stat, sizeof(stat)); /* a client may choose any address */
    return (int64_t)sizeof(stat);
}

static int64_t run_copy_range(struct aiod_io *io, const struct aiod_direct *file)
{
    struct aiod_direct source = open_file(io, io->source);

    return aiod_copy_range(file, io->offset, &source, io->source_offset, io->length, &io->written);
}

/* A path that leaves the root is refused like one that the permissions do not allow. */
static int64_t explain_path(struct aiod_io *io, int64_t result)
{
    if (result == -EXDEV) {
        io->task.request.reason = AIOD_REASON_OUTSIDE;
        return -EACCES;
    }
    if (result == -EFBIG && io->op == AIOD_READ_FILE) {
        io->task.request.reason = AIOD_REASON_TOO_LONG;
    }
    return result;
}

static struct aiod_whole_file whole_file(const struct aiod_io *io)
{
    const struct aiod_names *names = &io->handle->use.names;

    return (struct aiod_whole_file){
        .root = names->root,
        .path = io->path,
        .no_links = names->no_links,
        .local_device = __atomic_load_n(&io->handle->local_device, __ATOMIC_RELAXED),
        .creation = &names->creation,
    };
}

static int64_t run_query_on_path(struct aiod_io *io)
{
    struct aiod_whole_file file = whole_file(io);
    uint64_t known = file.local_device;
    int64_t result = io->op == AIOD_READ_FILE ? aiod_whole_file_read(&file, io->data, io->length)
                                              : aiod_whole_file_stat(&file, io->data, io->length);

    if (file.local_device != known) {
        __atomic_store_n(&io->handle->local_device, file.local_device, __ATOMIC_RELAXED);
    }
    return explain_path(io, result);
}

/* A file that could not be told from another one after a crash is opened by message, which keeps its descriptor. */
static int64_t check_identity(struct aiod_io *io)
{
    if (io->opened.generation != 0) {
        return sizeof(struct aiod_ring_opened); /* which the ring writes */
    }
    close(io->opened.fd);
    if (io->opened.store_fd >= 0) {
        close(io->opened.store_fd);
    }
    io->task.request.reason = AIOD_REASON_NOT_ALLOWED;
    return -EOPNOTSUPP;
}

static int64_t run_open_reading(struct aiod_io *io)
{
    const struct aiod_names *names = &io->handle->use.names;
    unsigned flags = AIOD_OPEN_READ | (names->no_links ? AIOD_OPEN_NO_LINKS : 0);
    int error = aiod_confined_open(names->root, io->path, flags, &names->creation, &io->opened);
    struct stat status;

    if (error < 0) {
        return explain_path(io, error);
    }
    io->opened.local = fstat(io->opened.fd, &status) == 0 && S_ISREG(status.st_mode) && aiod_is_local(io->opened.fd);
    if (io->opened.local) {
        __atomic_store_n(&io->handle->local_device, io->opened.dev, __ATOMIC_RELAXED);
        /* The main loop can open it again, if the file is still open when it collects. */
        if (io->opened.store_fd >= 0) {
            close(io->opened.store_fd);
            io->opened.store_fd = -1;
        }
    }
    return check_identity(io);
}

static int64_t run_open_writable(struct aiod_io *io)
{
    int error = aiod_open_request_run(&io->handle->use.names, io->path, &io->wanted, &io->opened);

    if (error == 0 && io->opened.local) {
        __atomic_store_n(&io->handle->local_device, io->opened.dev, __ATOMIC_RELAXED);
    }
    return error < 0 ? explain_path(io, error) : (int64_t)sizeof(struct aiod_ring_opened);
}

static int64_t open_reading_nowait(struct aiod_io *io, struct aiod_spent *spent)
{
    const struct aiod_names *names = &io->handle->use.names;
    uint64_t device = __atomic_load_n(&io->handle->local_device, __ATOMIC_RELAXED);
    int error = aiod_open_reading_nowait(names->root, io->path, names->no_links, device, &io->opened, spent);

    return error < 0 ? error : check_identity(io);
}

int64_t aiod_io_on_path_nowait(struct aiod_io *io, uint64_t bytes_max, struct aiod_spent *spent)
{
    struct aiod_whole_file file = whole_file(io);

    switch (io->op) {
    case AIOD_READ_FILE:
        return explain_path(
            io, aiod_whole_file_read_nowait(&file, io->data, io->length, bytes_max, &io->handle->never_nowait, spent));
    case AIOD_STAT_NAME:
        return aiod_whole_file_stat_nowait(&file, io->data, io->length, spent);
    case AIOD_OPEN_FILE:
        return open_reading_nowait(io, spent);
    default:
        return -EAGAIN;
    }
}

static int64_t run_on_path(struct aiod_io *io)
{
    struct aiod_whole_file file = whole_file(io);

    switch (io->op) {
    case AIOD_READ_FILE:
    case AIOD_STAT_NAME:
        return run_query_on_path(io);
    case AIOD_OPEN_FILE:
        return run_open_reading(io);
    case AIOD_OPEN_WRITABLE:
        return run_open_writable(io);
    default:
        file.durable = (io->flags & AIOD_FUA) != 0;
        file.exclusive = (io->flags & AIOD_EXCLUSIVE) != 0;
        return explain_path(io, aiod_whole_file_write(&file, io->one_iov.iov_base, io->length));
    }
}

static int64_t run_ioctl(struct aiod_io *io, const struct aiod_direct *file)
{
    struct aiod_iov argument = {.entries = io->iov, .count = io->iov_count};
    char *inout = io->data + AIOD_IOCTL_VALUE_BYTES;

    aiod_iov_gather(&argument, inout, io->length);
    return aiod_io_ioctl(file->fd, (uint32_t)io->offset, (uint32_t)io->length, io->data);
}

/* Linux closes the descriptor even if close() fails: do not retry after EINTR. */
static int64_t close_descriptor(int *fd)
{
    int closed = *fd;

    *fd = -1;
    return closed >= 0 && close(closed) < 0 && errno != EINTR ? -errno : 0;
}

int64_t aiod_io_close(struct aiod_io *io)
{
    int64_t error = close_descriptor(&io->opened.fd);
    int64_t other = close_descriptor(&io->opened.flush_fd);

    return error < 0 ? error : other;
}

static int64_t run_on_file(struct aiod_io *io, const struct aiod_direct *file)
{
    switch (io->op) {
    case AIOD_READ:
        return run_read(io, file);
    case AIOD_WRITE:
        return run_write(io, file);
    case AIOD_FLUSH:
        return run_flush(io);
    case AIOD_SIZE:
        return run_size(file);
    case AIOD_DISCARD:
        return mark_changed(io, aiod_range_discard(file, io->offset, io->length));
    case AIOD_WRITE_ZEROES:
        return run_write_zeroes(io, file);
    case AIOD_TRUNCATE:
        return mark_changed(io, aiod_range_truncate(file, io->length));
    case AIOD_ALLOCATE:
        return mark_changed(io, aiod_range_allocate(file, io->offset, io->length, (io->flags & AIOD_KEEP_SIZE) != 0));
    case AIOD_EXTENTS:
        return run_extents(io, file);
    case AIOD_COPY_RANGE:
        return mark_changed(io, run_copy_range(io, file));
    case AIOD_PREFETCH:
        return aiod_query_prefetch(file->fd, io->offset, io->length);
    case AIOD_STAT:
        return run_stat(io, file);
    case AIOD_IOCTL:
        return mark_changed(io, run_ioctl(io, file));
    case AIOD_APPEND:
        return mark_changed(io, run_append(io, file));
    case AIOD_CLOSE_FILE:
        return aiod_io_close(io);
    default:
        return -EINVAL; /* refused by admission */
    }
}

/* Cut the payload off behind `bytes` bytes. Returns how many are left. The pieces remain, for they are released later. */
static uint64_t cut_payload(struct aiod_io *io, uint64_t bytes)
{
    uint64_t left = bytes;

    for (size_t i = 0; i < io->iov_count; i++) {
        io->iov[i].iov_len = io->iov[i].iov_len < left ? io->iov[i].iov_len : (size_t)left;
        left -= io->iov[i].iov_len;
    }
    return bytes - left;
}

/* Fail as an export's faults ask (faults.h): a write or append after a part of it. */
static int64_t run_with_faults(struct aiod_io *io, const struct aiod_direct *file)
{
    uint64_t after_bytes = 0;
    int error = aiod_faults_apply(&io->handle->use.faults, io->op, &after_bytes);

    if (error == 0) {
        return run_on_file(io, file);
    }
    if ((io->op == AIOD_WRITE || io->op == AIOD_APPEND) && after_bytes > 0) {
        uint64_t part = cut_payload(io, after_bytes);
        int64_t result;

        io->flags &= ~(unsigned)AIOD_FUA; /* a durable write could be parked, and end with success */
        result = run_on_file(io, file);
        if (result < 0) {
            return result;
        }
        io->written = part;
    }
    return -error;
}

/* Of a request that is not parked: else the handle may be freed already. */
static int64_t note_failure(struct aiod_io *io, int64_t result)
{
    if (io->op == AIOD_FLUSH && result == -EBADFD) {
        return result; /* a flush syncs every handle that has written: it may be another one that was given up */
    }
    aiod_handle_note_result(io->handle, result);
    if (result == -EBADFD && __atomic_load_n(&io->handle->lock_lost, __ATOMIC_ACQUIRE)) {
        io->task.request.reason = AIOD_REASON_LOCK_LOST;
        return -EIO;
    }
    return result;
}

int64_t aiod_io_run(struct aiod_request *request)
{
    struct aiod_io *io = (struct aiod_io *)request;
    const struct aiod_direct file = open_file(io, io->handle);
    int64_t result;

    if (aiod_op_changes(io->op) && aiod_session_lease_over(io->handle->session)) {
        io->task.request.reason = AIOD_REASON_CANCELLED;
        return -ECANCELED;
    }
    aiod_ioprio_set(io->handle->use.ioprio);
    if (io->path != NULL) {
        return run_on_path(io);
    }
    if (io->name != NULL) {
        return aiod_name_request_run(io->name, io->data, &io->task.request.reason);
    }
    result = io->handle->use.faults.count > 0 ? run_with_faults(io, &file) : run_on_file(io, &file);
    return result < 0 && result != AIOD_PARKED ? note_failure(io, result) : result;
}

static int64_t run_open(struct aiod_control *control)
{
    int error;

    control->opened.store_fd = -1;
    control->opened.flush_fd = -1;
    if (control->root == NULL) {
        error = aiod_confined_adopt(control->fd, control->flags, &control->opened);
    } else {
        error = aiod_confined_open(control->root, control->path, control->flags, &control->creation, &control->opened);
    }
    if (error == 0 && control->handle != NULL) {
        return aiod_handle_move(control->handle, &control->opened);
    }
    return error < 0 ? error : control->opened.fd;
}

static int64_t run_lock(const struct aiod_control *control)
{
    if (control->op == AIOD_UNLOCK) {
        return aiod_file_lock_release(control->handle->fd, control->lock.first, control->lock.last);
    }
    return control->regain != 0 ? aiod_file_lock_regain(control->handle->fd, &control->lock, control->regain)
                                : aiod_file_lock_take(control->handle->fd, &control->lock);
}

int64_t aiod_control_run(struct aiod_request *request)
{
    struct aiod_control *control = (struct aiod_control *)request;

    if (control->op == AIOD_OPEN) {
        return run_open(control);
    }
    if (control->op == AIOD_NAME) {
        return aiod_directory_op_run(control->directory_op);
    }
    if (control->op == AIOD_LOCK || control->op == AIOD_UNLOCK) {
        int64_t result = run_lock(control);

        aiod_handle_note_result(control->handle, result);
        return result;
    }
    if (control->op == AIOD_FLUSH) {
        return aiod_flushes_flush(&control->handle->file->flushes, request, 0);
    }
    if (control->fd < 0) {
        return 0;
    }
    /* Linux closes the descriptor even if close() fails: do not retry after EINTR. */
    return close(control->fd) < 0 && errno != EINTR ? -errno : 0;
}

void aiod_io_release_path(struct aiod_io *io)
{
    free(io->path);
    io->path = NULL;
    aiod_directory_op_destroy(io->name);
    io->name = NULL;
}

void aiod_payload_put(struct aiod_payload *payload)
{
    if (--payload->refs == 0) {
        payload->release(payload);
    }
}

void aiod_io_release(struct aiod_message_io *message)
{
    for (size_t i = 0; i < message->io.iov_count; i++) {
        aiod_payload_put(message->payloads[i]);
    }
    if (message->io.iov_count > 1) {
        free(message->io.iov);
    }
    aiod_buffer_put(message->buffer);
}
