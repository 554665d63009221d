/* ring_opens.c - handles of a ring that the main loop does not know yet (collect.h). */
#include "ring/ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/os.h"

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

void aiod_ring_opens_lend(struct aiod_ring *ring, uint32_t number)
{
    pthread_mutex_lock(&ring->lock);
    ring->opens.numbers[ring->opens.number_count++] = number;
    pthread_mutex_unlock(&ring->lock);
}

bool aiod_ring_opens_ran_out(struct aiod_ring *ring)
{
    bool ran_out;

    pthread_mutex_lock(&ring->lock);
    ran_out = ring->opens.ran_out;
    ring->opens.ran_out = false;
    pthread_mutex_unlock(&ring->lock);
    return ran_out;
}

bool aiod_ring_opens_take_back(struct aiod_ring *ring, uint32_t *number)
{
    bool taken;

    pthread_mutex_lock(&ring->lock);
    taken = ring->opens.number_count > 0;
    if (taken) {
        *number = ring->opens.numbers[--ring->opens.number_count];
    }
    pthread_mutex_unlock(&ring->lock);
    return taken;
}

bool aiod_ring_opens_any(const struct aiod_ring *ring)
{
    return __atomic_load_n(&ring->opens.opened, __ATOMIC_SEQ_CST) != NULL ||
           __atomic_load_n(&ring->opens.closed, __ATOMIC_RELAXED) != NULL;
}

static void free_closed(struct aiod_handle *closed)
{
    while (closed != NULL) {
        struct aiod_handle *next = closed->ring_next;

        aiod_handle_destroy(closed);
        closed = next;
    }
}

/* Take the handles out of the list that were opened before this period, or all. Lock held. */
static struct aiod_handle *detach(struct aiod_ring_opens *opens, bool all)
{
    struct aiod_handle *newest_old = opens->opened;

    while (!all && newest_old != NULL && newest_old->opened_in == opens->period) {
        newest_old = newest_old->ring_next;
    }
    if (newest_old == NULL) {
        return NULL;
    }
    if (newest_old->ring_previous != NULL) {
        newest_old->ring_previous->ring_next = NULL;
    } else {
        __atomic_store_n(&opens->opened, NULL, __ATOMIC_RELAXED);
    }
    return newest_old;
}

/* Reverse the list, whose handles are registered from now on. Lock held. */
static struct aiod_handle *in_order_of_opening(struct aiod_handle *handle)
{
    struct aiod_handle *first = NULL;

    while (handle != NULL) {
        struct aiod_handle *next = handle->ring_next;

        handle->unregistered = false;
        handle->ring_next = first;
        first = handle;
        handle = next;
    }
    return first;
}

struct aiod_handle *aiod_ring_opens_collect(struct aiod_ring *ring, enum aiod_collect which)
{
    struct aiod_ring_opens *opens = &ring->opens;
    struct aiod_handle *collected;
    struct aiod_handle *closed;
    bool more;

    pthread_mutex_lock(&ring->lock);
    closed = opens->closed;
    collected = in_order_of_opening(detach(opens, which != AIOD_COLLECT_OLD));
    __atomic_store_n(&opens->closed, NULL, __ATOMIC_RELAXED);
    opens->closed_count = 0;
    opens->period += which == AIOD_COLLECT_OLD;
    opens->ended |= which == AIOD_COLLECT_LAST;
    more = opens->opened != NULL;
    pthread_mutex_unlock(&ring->lock);
    if (more) {
        aiod_collect_timer_arm(ring->collect_timer);
    }
    free_closed(closed);
    return collected;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

bool aiod_ring_opens_begin(struct aiod_ring *ring, uint32_t *number)
{
    struct aiod_ring_opens *opens = &ring->opens;

    opens->ran_out |= opens->number_count == 0;
    if (opens->number_count == 0 || opens->closed_count >= AIOD_RING_CLOSED_MAX) {
        return false;
    }
    *number = opens->numbers[--opens->number_count];
    return true;
}

static void return_number(struct aiod_ring *ring, uint32_t number)
{
    ring->opens.numbers[ring->opens.number_count++] = number;
}

static void close_opened(const struct aiod_opened *opened)
{
    close(opened->fd);
    if (opened->store_fd >= 0) {
        close(opened->store_fd);
    }
}

/* "EXPORT/PATH", or "EXPORT"; NULL if there is no memory. */
static char *name_of(const struct aiod_io *io)
{
    const char *separator = *io->path != '\0' ? "/" : "";
    char *name;

    return asprintf(&name, "%s%s%s", io->handle->use.name, separator, io->path) < 0 ? NULL : name;
}

static struct aiod_handle_use use_of(const struct aiod_io *io, const char *name)
{
    struct aiod_handle_use use = io->handle->use;

    use.readable = (io->wanted.flags & AIOD_OPEN_READ) != 0;
    use.writable = (io->wanted.flags & AIOD_OPEN_WRITE) != 0;
    use.append = (io->wanted.flags & AIOD_OPEN_APPEND) != 0;
    use.on_fuse = io->opened.on_fuse;
    use.name = name;
    use.names = (struct aiod_names){.root = NULL};
    if (use.writable) {
        use.names.keeping = io->handle->use.names.keeping;
    }
    return use;
}

/* The file of a new handle, with a reference. It takes the descriptor for flushes, or that is closed. */
static struct aiod_file *get_file(struct aiod_ring *ring, const struct aiod_io *io)
{
    const struct aiod_opened *opened = &io->opened;
    const struct aiod_file_user user = {
        .fd = opened->fd, .writable = (io->wanted.flags & AIOD_OPEN_WRITE) != 0, .on_fuse = opened->on_fuse};
    int flush_fd = opened->flush_fd;
    struct aiod_file *file = aiod_file_get(ring->files, ring->pool, opened->dev, opened->ino, &user, &flush_fd);

    if (flush_fd >= 0) {
        close(flush_fd);
    }
    return file;
}

/* A handle with a reference to its file; NULL if there is no memory. */
static struct aiod_handle *create(struct aiod_ring *ring, const struct aiod_io *io, uint32_t number)
{
    char *name = name_of(io);
    struct aiod_handle_use use = use_of(io, name);
    struct aiod_file *file = get_file(ring, io);
    struct aiod_handle *handle = NULL;
    int unused[2];

    if (name != NULL && file != NULL) {
        handle = aiod_handle_create(ring->session, io->opened.fd, file, &use, io->handle->flow, number);
    }
    if (handle == NULL && file != NULL && aiod_file_put(ring->files, file, io->opened.fd, unused) == 2) {
        close(unused[1]);
    }
    free(name);
    return handle;
}

static void describe(struct aiod_handle *handle, const struct aiod_opened *opened)
{
    handle->store_fd = opened->store_fd;
    handle->local = opened->local;
    handle->unregistered = true;
    aiod_write_loss_add_handle(&handle->file->write_loss, &handle->loss_reader, AIOD_HANDLE_NEW);
    if (handle->use.on_fuse && handle->use.writable) {
        aiod_flush_writer_add(&handle->writer, handle->fd);
    }
}

/*
 * Have the supervisor keep the descriptor that was opened for that, before the client hears of the file and writes to it. If
 * that fails, the main loop passes it on when it collects. If a flush of the file has failed, the supervisor may have
 * ignored the notice, because it knew no descriptor of the file.
 */
static void keep(const struct aiod_ring *ring, struct aiod_handle *handle, const struct aiod_io *io)
{
    const struct aiod_keeping *keeping = &handle->use.names.keeping;
    const struct aiod_kept kept = {.handle = handle->number,
                                   .flags = io->wanted.flags & (AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_APPEND),
                                   .dev = io->opened.dev,
                                   .ino = io->opened.ino,
                                   .fd = handle->store_fd};

    if (handle->store_fd < 0 || !handle->use.writable) {
        return;
    }
    handle->kept = keeping->token_bytes > 0 && aiod_notice_keep(ring->files->notice_fd, keeping, &kept);
    if (handle->kept && aiod_flushes_poisoned(&handle->file->flushes)) {
        aiod_notice_poisoned(ring->files->notice_fd, kept.dev, kept.ino);
    }
    if (handle->kept || keeping->token_bytes == 0) {
        close(handle->store_fd);
        handle->store_fd = -1;
    }
}

/* Lock held. False: the session has ended. */
static bool insert(struct aiod_ring *ring, struct aiod_handle *handle)
{
    struct aiod_ring_opens *opens = &ring->opens;

    if (opens->ended) {
        return false;
    }
    ring->handles[(handle->number & 0xffff) - 1] = handle;
    handle->opened_in = opens->period;
    handle->ring_next = opens->opened;
    if (opens->opened != NULL) {
        opens->opened->ring_previous = handle;
    }
    __atomic_store_n(&opens->opened, handle, __ATOMIC_SEQ_CST);
    return true;
}

/* The session has ended: nobody will close the file. */
static void drop(struct aiod_ring *ring, struct aiod_handle *handle)
{
    int descriptors[2];
    unsigned count = aiod_file_put(ring->files, handle->file, handle->fd, descriptors);

    while (count > 0) {
        close(descriptors[--count]);
    }
    if (handle->store_fd >= 0) {
        close(handle->store_fd);
    }
    aiod_ring_opens_drop(ring, handle);
    aiod_handle_destroy(handle);
}

static void put_record(const struct aiod_io *io, uint32_t number)
{
    const struct aiod_ring_opened record = {
        .handle = number,
        .size = io->opened.size,
        .device = io->opened.dev,
        .inode = io->opened.ino,
        .generation = io->opened.generation,
    };

    memcpy(io->data, &record, sizeof(record));
}

int64_t aiod_ring_opens_finish(struct aiod_ring_request *request, int64_t result)
{
    struct aiod_ring *ring = request->ring;
    uint32_t number = request->number;
    struct aiod_handle *handle = NULL;
    bool made = false;

    if (result >= 0) {
        handle = create(ring, &request->io, number);
        if (handle == NULL) {
            close_opened(&request->io.opened);
            result = -ENOMEM;
        } else {
            describe(handle, &request->io.opened);
            keep(ring, handle, &request->io);
            put_record(&request->io, number);
        }
    }
    pthread_mutex_lock(&ring->lock);
    if (handle != NULL) {
        made = insert(ring, handle);
    } else {
        return_number(ring, number);
    }
    pthread_mutex_unlock(&ring->lock);
    if (made) {
        aiod_collect_timer_arm(ring->collect_timer);
    } else if (handle != NULL) {
        drop(ring, handle);
        result = -ESHUTDOWN;
    }
    return result;
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

/* False: a descriptor would have to be closed that the caller must not close. */
static bool put_file(struct aiod_ring *ring, struct aiod_handle *handle, int descriptors[2])
{
    if (!handle->use.writable) {
        return aiod_file_put_reader(ring->files, handle->file, handle->fd, descriptors);
    }
    descriptors[0] = descriptors[1] = -1;
    aiod_file_put(ring->files, handle->file, handle->fd, descriptors);
    return true;
}

bool aiod_ring_opens_begin_close(struct aiod_ring *ring, struct aiod_handle *handle, int descriptors[2])
{
    struct aiod_ring_opens *opens = &ring->opens;

    if (!handle->unregistered || !handle->local || handle->store_fd >= 0 || handle->ring_inflight > 0 ||
        !put_file(ring, handle, descriptors)) {
        return false;
    }
    ring->handles[(handle->number & 0xffff) - 1] = NULL;
    if (handle->ring_next != NULL) {
        handle->ring_next->ring_previous = handle->ring_previous;
    }
    if (handle->ring_previous != NULL) {
        handle->ring_previous->ring_next = handle->ring_next;
    } else {
        __atomic_store_n(&opens->opened, handle->ring_next, __ATOMIC_RELAXED);
    }
    return true;
}

void aiod_ring_opens_drop(const struct aiod_ring *ring, const struct aiod_handle *handle)
{
    if (handle->kept) {
        aiod_notice_drop(ring->files->notice_fd, &handle->use.names.keeping, handle->number);
    }
}

void aiod_ring_opens_end_close(struct aiod_ring *ring, struct aiod_handle *handle)
{
    struct aiod_ring_opens *opens = &ring->opens;

    if (!opens->ended) {
        return_number(ring, aiod_handle_next_number(handle->number));
    }
    handle->ring_next = opens->closed;
    __atomic_store_n(&opens->closed, handle, __ATOMIC_RELAXED);
    opens->closed_count++;
}

/* ---- closing what the main loop has ------------------------------------------------------------------------------ */

bool aiod_ring_opens_passes_close(const struct aiod_handle *handle)
{
    return !handle->unregistered && handle->local && handle->ring_inflight == 0;
}

/*
 * From here on only the main loop uses the handle. It may close it, by a message, before it sees the notice: so the request
 * keeps the number, and not the handle.
 */
void aiod_ring_opens_pass_close(struct aiod_ring_request *request, struct aiod_handle *handle)
{
    request->ring->handles[(handle->number & 0xffff) - 1] = NULL;
    request->number = handle->number;
    request->flow = aiod_handle_flow(handle);
    handle->ring_inflight--;
    request->io.handle = NULL;
    request->io.task.kind = AIOD_TASK_RING_CLOSE;
    request->io.task.request.complete = NULL; /* it goes to the main loop */
}

void aiod_ring_opens_notify_close(struct aiod_ring_request *request)
{
    aiod_ring_get(request->ring);
    aiod_pool_notify(request->ring->pool, &request->io.task.request);
}

void aiod_ring_opens_answer_close(struct aiod_ring_request *request, int64_t result, enum aiod_reason reason)
{
    struct aiod_ring *ring = request->ring;
    struct aiod_timing timing = {.latency_ns = aiod_now_ns() - request->io.task.request.queued_ns};

    aiod_ring_finish(
        request, &(struct aiod_ring_completion){.cookie = request->cookie.value, .result = result, .reason = reason},
        &timing);
    aiod_ring_wake_client(ring);
    aiod_ring_put(ring);
}
