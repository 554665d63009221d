/*
 * ring_admission.c - validates entries of the submission queue: each entry is copied once, then checked, then executed
 * or queued.
 */
#include "ring/ring.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ops/worker_io.h"
#include "path/open_reading.h"
#include "pool/request_list.h"
#include "ring/client_wakes.h"
#include "session/io_prepare.h"
#include "session/name_request.h"
#include "session/open_request.h"
#include "session/operations.h"
#include "util/os.h"
#include "util/probes.h"
#include "util/utf8.h"

#define PATH_BYTES_MAX 4096u  /* of a path with a final zero */
#define WHOLE_FILE_READS 2u   /* a worker opens the file again: that takes as long as to copy another inline_read_max */
#define PATH_COST_BYTES 8192u /* what opening a cached path takes as long as to read */

/* Entries taken in one call. */
struct batch {
    struct aiod_ring *ring;
    uint64_t now_ns;
    uint64_t inline_bytes;
    struct aiod_request_list queued; /* for the pool */
};

static uint32_t sq_tail_of(const struct aiod_ring *ring)
{
    return __atomic_load_n(&ring->memory.header->sq_tail, __ATOMIC_SEQ_CST);
}

static bool has_entries(const struct aiod_ring *ring)
{
    return (sq_tail_of(ring) != __atomic_load_n(&ring->sq_head, __ATOMIC_RELAXED) ||
            aiod_memory_guard_page_lost(&ring->memory.guard)) &&
           !atomic_load_explicit(&ring->ended, memory_order_relaxed);
}

bool aiod_ring_has_entries(struct aiod_polled *polled)
{
    return has_entries((const struct aiod_ring *)polled);
}

void aiod_ring_set_sleeping(struct aiod_polled *polled, bool sleeping)
{
    __atomic_store_n(&((struct aiod_ring *)polled)->memory.header->engine_sleeps, sleeping, __ATOMIC_SEQ_CST);
}

/* The only access to the entry: word by word and atomic, so that the compiler cannot read a field again. */
static struct aiod_ring_sqe copy_entry(const struct aiod_ring *ring, uint32_t index)
{
    const struct aiod_ring_sqe *shared = &ring->memory.sqes[index & (ring->memory.entries - 1)];
    const uint64_t *from = (const uint64_t *)(const void *)shared;
    struct aiod_ring_sqe entry;
    uint64_t words[sizeof(entry) / sizeof(uint64_t)];

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        words[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    }
    memcpy(&entry, words, sizeof(entry));
    return entry;
}

/* Convert the entry to the record of a message. */
static struct aiod_submission record_of(const struct aiod_ring_sqe *entry)
{
    struct aiod_submission record = {
        .cookie = entry->cookie,
        .op = entry->op,
        .flags = entry->flags,
        .handle = entry->handle,
        .offset = entry->offset,
        .length = entry->length,
        .deadline_ms = entry->deadline_ms,
    };

    if (entry->op == AIOD_RING_COPY_RANGE) {
        record.frame = entry->source;
        record.frame_offset = (uint32_t)entry->source_offset;
        record.reserved = (uint32_t)(entry->source_offset >> 32);
    }
    return record;
}

/* Is the length right of what lies at the beginning of the buffer: a path, or more than that? */
static bool source_is_right(const struct aiod_ring_sqe *entry)
{
    if (entry->op == AIOD_RING_NAME) {
        return entry->source <= AIOD_NAME_REQUEST_BYTES_MAX; /* name_request.h checks more, also of the answer's room */
    }
    return entry->source <
               PATH_BYTES_MAX + (entry->op == AIOD_RING_OPEN_WRITABLE ? sizeof(struct aiod_ring_open_file) : 0) &&
           (aiod_op_has_payload(entry->op) || entry->length >= sizeof(struct aiod_stat));
}

/* Do the path and, after it or over it, the data lie in the area? */
static bool path_is_right(const struct aiod_ring *ring, const struct aiod_ring_sqe *entry)
{
    uint64_t bytes = aiod_op_has_payload(entry->op) ? entry->source + entry->length : entry->length;

    bytes = bytes > entry->source ? bytes : entry->source;
    return source_is_right(entry) && entry->source_offset == 0 &&
           ((aiod_op_charged(entry->op) && entry->length > ring->request_bytes_max) || /* refused later, by its errno */
            (entry->buffer <= ring->memory.area_bytes && bytes <= ring->memory.area_bytes - entry->buffer));
}

/* Is the operation ring-capable and its buffer in bounds? */
static bool form_is_right(const struct aiod_ring *ring, const struct aiod_ring_sqe *entry)
{
    uint64_t bytes = aiod_op_has_payload(entry->op) ? entry->length : aiod_op_result_bytes(entry->op, entry->length);

    if (aiod_op_has_path(entry->op)) {
        return entry->reserved == 0 && path_is_right(ring, entry);
    }
    if (!aiod_op_by_ring(entry->op) || entry->reserved != 0 ||
        (entry->op != AIOD_RING_COPY_RANGE && (entry->source != 0 || entry->source_offset != 0))) {
        return false;
    }
    if (!aiod_op_uses_area(entry->op)) {
        return entry->buffer == 0;
    }
    return (aiod_op_charged(entry->op) && entry->length > ring->request_bytes_max) || /* refused later, by its errno */
           (entry->buffer <= ring->memory.area_bytes && bytes <= ring->memory.area_bytes - entry->buffer);
}

/* ---- lock held --------------------------------------------------------------------------------------------------- */

/* Is there room for the completion? Re-read the client's cq_head only when the cached value leaves no room. */
static bool within_credit(struct aiod_ring *ring)
{
    if (ring->inflight + (ring->cq_tail - ring->cq_head) < ring->memory.entries) {
        return true;
    }
    ring->cq_head = __atomic_load_n(&ring->memory.header->cq_head, __ATOMIC_ACQUIRE);
    return ring->cq_tail - ring->cq_head <= ring->memory.entries &&
           ring->inflight + (ring->cq_tail - ring->cq_head) < ring->memory.entries;
}

static struct aiod_handle *find_handle(const struct aiod_ring *ring, uint32_t number)
{
    uint32_t index = (number & 0xffff) - 1;
    struct aiod_handle *handle = index < ring->handles_max ? ring->handles[index] : NULL;

    return handle != NULL && handle->number == number ? handle : NULL;
}

/* Check the entry, and look up its handles. 0, or an errno. */
static int check(struct aiod_ring *ring, const struct aiod_ring_sqe *entry, const struct aiod_submission *record,
                 struct aiod_handle **handle, struct aiod_handle **source, enum aiod_reason *reason)
{
    int error;

    if (__atomic_load_n(ring->draining, __ATOMIC_RELAXED)) {
        *reason = AIOD_REASON_STOPPING;
        return ESHUTDOWN;
    }
    if (!form_is_right(ring, entry)) {
        *reason = AIOD_REASON_BAD_ENTRY;
        return EINVAL;
    }
    *handle = find_handle(ring, entry->handle);
    error = aiod_op_check(record, *handle, ring->request_bytes_max, reason);
    if (error == 0 && entry->op == AIOD_RING_COPY_RANGE) {
        *source = find_handle(ring, entry->source);
        error = aiod_op_check_source(record, *source, reason);
    }
    return error;
}

/* What a request that opens or closes a file has got before it begins. */
struct begun {
    uint32_t number;    /* of the handle that an open makes */
    int descriptors[2]; /* that a CLOSE_FILE closes */
    bool passed;        /* a CLOSE_FILE that the main loop carries out */
};

/* Begin to open or to close a file. 0, or an errno. */
static int begin(struct aiod_ring *ring, const struct aiod_ring_sqe *entry, struct aiod_handle *handle,
                 struct begun *begun, enum aiod_reason *reason)
{
    bool may = true;

    if (entry->op == AIOD_RING_OPEN_FILE || entry->op == AIOD_RING_OPEN_WRITABLE) {
        may = aiod_ring_opens_begin(ring, &begun->number);
    } else if (entry->op == AIOD_RING_CLOSE_FILE) {
        begun->passed = aiod_ring_opens_passes_close(handle);
        may = begun->passed || aiod_ring_opens_begin_close(ring, handle, begun->descriptors);
    }
    if (may) {
        return 0;
    }
    *reason = AIOD_REASON_LIMIT;
    return EAGAIN;
}

/* Allocate a slot. There is one, because within_credit() was true. */
static struct aiod_ring_request *allocate_request(struct aiod_ring *ring, const struct aiod_ring_sqe *entry,
                                                  struct aiod_handle *handle, struct aiod_handle *source)
{
    struct aiod_ring_request *request = ring->free;

    ring->free = request->next_free;
    aiod_ring_add_inflight(ring, 1);
    ring->bytes_inflight += aiod_op_charged(entry->op) ? entry->length : 0;
    handle->ring_inflight++;
    if (source != NULL) {
        source->ring_inflight++;
    }
    request->cookie.value = entry->cookie;
    return request;
}

static void refuse(struct aiod_ring *ring, const struct aiod_ring_sqe *entry, int error, enum aiod_reason reason)
{
    if (aiod_op_known(entry->op)) {
        const struct aiod_handle *handle = find_handle(ring, entry->handle);

        aiod_stats_refuse(handle != NULL ? &aiod_handle_flow(handle)->ring_stats : &ring->stats, AIOD_BY_RING,
                          (enum aiod_op)entry->op, error);
    }
    aiod_ring_publish(ring,
                      &(struct aiod_ring_completion){.cookie = entry->cookie, .result = -error, .reason = reason});
}

/* ---- lock not held ----------------------------------------------------------------------------------------------- */

/* The result of a request that has run, or was not run since it was cancelled or late. */
static int64_t finish_open_or_close(struct aiod_ring_request *request, int64_t result)
{
    if (request->io.op == AIOD_OPEN_FILE || request->io.op == AIOD_OPEN_WRITABLE) {
        return aiod_ring_opens_finish(request, result);
    }
    if (request->io.op == AIOD_CLOSE_FILE) {
        aiod_io_close(&request->io); /* it was not run: the handle is gone already */
        aiod_ring_opens_drop(request->ring, request->io.handle);
    }
    return result;
}

/*
 * Is the client woken together with other completions of this thread? If the next write of a lane hangs, the main loop looks
 * after the client.
 */
static bool wakes_later(struct aiod_ring *ring, bool more_follow)
{
    bool later = more_follow ? aiod_client_wakes_defer(&ring->polled) : aiod_client_wakes_note(&ring->polled);

    if (later && more_follow) {
        aiod_collect_timer_arm(ring->collect_timer);
    }
    return later;
}

/*
 * Called by the thread that ends the request (aiod_request.complete). It takes new entries as well: it is awake, and
 * the client may have submitted more. After a request that could have been started it leaves them to the polling workers,
 * which start such requests (pool/uring.h): a worker would pass them to workers.
 */
static void complete(struct aiod_request *done)
{
    struct aiod_ring_request *request = (struct aiod_ring_request *)done;
    struct aiod_ring *ring = request->ring;
    struct aiod_timing timing = aiod_timing_of(done);
    bool startable = done->uring != NULL;
    bool more_follow = done->more_follow;
    int64_t result = finish_open_or_close(request, done->result);

    aiod_ring_finish(request,
                     &(struct aiod_ring_completion){.cookie = request->cookie.value,
                                                    .result = result,
                                                    .written = result < 0 ? request->io.written : 0,
                                                    .reason = done->reason},
                     &timing);
    if (wakes_later(ring, more_follow)) {
        return;
    }
    aiod_ring_wake_client(ring);
    if (!startable) {
        aiod_ring_take(ring);
    }
    aiod_ring_put(ring);
}

/* What a request brings along at the beginning of its buffer; NULL: nothing. */
struct on_path {
    char *path;
    struct aiod_directory_op *name;
    struct aiod_ring_open_file wanted;
};

static void fill(struct aiod_ring_request *request, const struct aiod_ring_sqe *entry,
                 const struct aiod_submission *record, struct aiod_handle *handle, struct aiod_handle *source,
                 const struct on_path *on_path, uint64_t now_ns)
{
    struct aiod_ring *ring = request->ring;
    char *data = ring->memory.area + entry->buffer +
                 (aiod_op_has_path(record->op) && aiod_op_has_payload(record->op) ? entry->source : 0);

    aiod_io_prepare(&request->io, &(struct aiod_io_description){
                                      .record = record,
                                      .handle = handle,
                                      .source = source,
                                      .buffers = ring->buffers,
                                      .arrived_ns = now_ns,
                                      .complete = complete,
                                      .path = on_path->path,
                                      .name = on_path->name,
                                      .wanted = on_path->wanted,
                                      .data = data,
                                      .piece_count = aiod_op_has_payload(record->op) && record->length > 0,
                                      .piece = {.iov_base = data, .iov_len = record->length},
                                  });
}

/* The request was executed here, and its `spent` descriptors (NULL: none) are closed when its client can have the answer. */
static void finish_inline(struct batch *batch, struct aiod_ring_request *request, int64_t result,
                          struct aiod_spent *spent)
{
    uint64_t started_ns = batch->now_ns;
    struct aiod_timing timing;

    result = finish_open_or_close(request, result);
    batch->now_ns = aiod_now_ns();
    timing = aiod_timing_inline(started_ns, batch->now_ns);

    aiod_ring_finish(request,
                     &(struct aiod_ring_completion){
                         .cookie = request->cookie.value, .result = result, .reason = request->io.task.request.reason},
                     &timing);
    if (spent != NULL) {
        aiod_spent_close(spent); /* before a client that sleeps is woken: it may want to unmount the file system */
    }
    aiod_ring_wake_client(batch->ring);
}

/* Carry it out here if its path and its file are cached. False: a worker has to. */
static bool execute_on_path(struct batch *batch, struct aiod_ring_request *request)
{
    struct aiod_spent spent = {.count = 0};
    int64_t result = -EAGAIN;

    if (batch->ring->inline_read_max > 0 && aiod_handle_reads_inline(request->io.handle)) {
        result = aiod_io_on_path_nowait(&request->io, WHOLE_FILE_READS * batch->ring->inline_read_max, &spent);
    }
    if (result == -EAGAIN) {
        aiod_spent_close(&spent);
        return false;
    }
    batch->inline_bytes += PATH_COST_BYTES + (result > 0 ? (uint64_t)result : 0);
    finish_inline(batch, request, result, &spent);
    return true;
}

/* Close the descriptors, of one file, here if that takes no time. False: a worker has to. */
static bool close_here(struct batch *batch, struct aiod_ring_request *request)
{
    if (request->io.handle->use.writable ||
        (request->io.opened.fd >= 0 && !aiod_closes_at_once(request->io.opened.fd))) {
        return false;
    }
    batch->inline_bytes += PATH_COST_BYTES / 2;
    finish_inline(batch, request, aiod_io_close(&request->io), NULL);
    return true;
}

/*
 * Execute the request here if it needs no I/O, or is a read from the page cache (RWF_NOWAIT). False: a worker has to.
 */
static bool execute_inline(struct batch *batch, struct aiod_ring_request *request, const struct aiod_submission *record)
{
    struct aiod_io *io = &request->io;

    if (aiod_io_is_empty(record)) {
        finish_inline(batch, request, 0, NULL);
        return true;
    }
    if (io->path != NULL) {
        return execute_on_path(batch, request);
    }
    if (io->op == AIOD_CLOSE_FILE) {
        return close_here(batch, request);
    }
    if (!aiod_io_may_read_inline(record, io->handle, batch->ring->inline_read_max)) {
        return false;
    }
    io->have = aiod_io_read_nowait(io->handle->fd, io->data, io->length, io->offset, &io->handle->never_nowait);
    batch->inline_bytes += io->have;
    if (io->have < io->length) {
        return false; /* says nothing about the end of the file: a worker reads the rest */
    }
    finish_inline(batch, request, (int64_t)io->have, NULL);
    return true;
}

/*
 * Copy the path, or what a NAME has, once; the copy is checked. 0, or a positive errno: a path by message cannot have a zero
 * byte either, and is UTF-8.
 */
static int copy_path(const struct aiod_ring *ring, const struct aiod_ring_sqe *entry, const struct aiod_handle *handle,
                     struct on_path *on_path, enum aiod_reason *reason)
{
    char *copy = malloc((size_t)entry->source + 1);
    int error = 0;

    if (copy == NULL) {
        return ENOMEM;
    }
    memcpy(copy, ring->memory.area + entry->buffer, entry->source);
    copy[entry->source] = '\0';
    if (entry->op == AIOD_RING_NAME) {
        error = aiod_name_request_parse(copy, entry->source, entry->length, &handle->use.names, &on_path->name, reason);
        free(copy);
        return error;
    }
    if (entry->op == AIOD_RING_OPEN_WRITABLE) {
        error = aiod_open_request_parse(copy, entry->source, &handle->use, &on_path->wanted, reason);
    } else if (!aiod_utf8_valid(copy, entry->source)) {
        *reason = AIOD_REASON_BAD_ENTRY;
        error = EINVAL;
    }
    if (error == 0) {
        on_path->path = copy;
    } else {
        free(copy);
    }
    return error;
}

/* An admitted request cannot be executed. */
static void finish_refused(struct batch *batch, struct aiod_ring_request *request, int error, enum aiod_reason reason)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_timing timing = {.latency_ns = now_ns - batch->now_ns};

    request->io.task.request.done_ns = now_ns;
    finish_open_or_close(request, -error);
    aiod_ring_finish(request,
                     &(struct aiod_ring_completion){
                         .cookie = request->cookie.value,
                         .result = -error,
                         .reason = reason,
                     },
                     &timing);
    aiod_ring_wake_client(batch->ring);
}

static void queue(struct batch *batch, struct aiod_ring_request *request)
{
    struct aiod_ring *ring = batch->ring;

    aiod_ring_get(ring);
    pthread_mutex_lock(&ring->lock);
    aiod_cookies_add(&ring->cookies, &request->cookie);
    pthread_mutex_unlock(&ring->lock);
    aiod_request_list_append(&batch->queued, &request->io.task.request);
    AIOD_PROBE5(request_submit, &request->io.task.request, request->ring->session->client, request->cookie.value,
                (int)request->io.op, request->io.length);
}

static void submit(struct batch *batch)
{
    aiod_request_list_submit(&batch->queued, batch->ring->pool, aiod_pool_submit_beside_main_loop);
}

static struct aiod_ring_request *find_queued(struct aiod_ring *ring, uint64_t value)
{
    struct aiod_cookie *cookie;

    pthread_mutex_lock(&ring->lock);
    cookie = aiod_cookies_find(&ring->cookies, value, NULL);
    pthread_mutex_unlock(&ring->lock);
    return cookie == NULL
               ? NULL
               : (struct aiod_ring_request *)(void *)((char *)cookie - offsetof(struct aiod_ring_request, cookie));
}

/*
 * Cancel the request whose cookie is `entry->offset` if it is still queued; of several, the last one. The request may
 * end meanwhile, but its slot is not reused: only the thread that takes allocates slots.
 */
static void cancel(struct batch *batch, const struct aiod_ring_sqe *entry)
{
    struct aiod_ring *ring = batch->ring;
    struct aiod_ring_request *request;
    int64_t cancelled = 0;

    submit(batch); /* the request may be in this batch */
    request = find_queued(ring, entry->offset);
    if (request != NULL) {
        cancelled = aiod_pool_cancel(ring->pool, &request->io.task.request);
    }
    pthread_mutex_lock(&ring->lock);
    aiod_ring_publish(ring, &(struct aiod_ring_completion){.cookie = entry->cookie, .result = cancelled});
    pthread_mutex_unlock(&ring->lock);
    aiod_ring_wake_client(ring);
}

/* False: the client exceeds its credit. */
static bool admit(struct batch *batch, const struct aiod_ring_sqe *entry)
{
    struct aiod_ring *ring = batch->ring;
    struct aiod_submission record = record_of(entry);
    struct aiod_ring_request *request = NULL;
    struct aiod_handle *handle = NULL;
    struct aiod_handle *source = NULL;
    enum aiod_reason reason = AIOD_REASON_BY_KERNEL;
    struct begun begun = {0};
    struct on_path on_path = {.wanted = {.flags = AIOD_OPEN_READ}};
    int error;

    pthread_mutex_lock(&ring->lock);
    if (!within_credit(ring)) {
        pthread_mutex_unlock(&ring->lock);
        return false;
    }
    if (entry->op == AIOD_RING_CANCEL) {
        pthread_mutex_unlock(&ring->lock);
        cancel(batch, entry);
        return true;
    }
    error = check(ring, entry, &record, &handle, &source, &reason);
    if (error == 0) {
        error = begin(ring, entry, handle, &begun, &reason);
    }
    if (error == 0) {
        request = allocate_request(ring, entry, handle, source);
        request->number = begun.number;
        if (begun.passed) {
            fill(request, entry, &record, handle, NULL, &on_path, batch->now_ns);
            aiod_ring_opens_pass_close(request, handle);
        }
    } else {
        refuse(ring, entry, error, reason);
    }
    pthread_mutex_unlock(&ring->lock);

    if (request == NULL) {
        aiod_ring_wake_client(ring);
        return true;
    }
    if (begun.passed) {
        aiod_ring_opens_notify_close(request);
        return true;
    }
    if (aiod_op_has_path(record.op)) {
        error = copy_path(ring, entry, handle, &on_path, &reason);
    }
    fill(request, entry, &record, handle, source, &on_path, batch->now_ns);
    if (record.op == AIOD_CLOSE_FILE) {
        request->io.opened.fd = begun.descriptors[0];
        request->io.opened.flush_fd = begun.descriptors[1];
        request->io.task.request.deadline_ns = 0; /* it is closed in any case */
    }
    if (error != 0) {
        finish_refused(batch, request, error, reason);
    } else if (!execute_inline(batch, request, &record)) {
        queue(batch, request);
    }
    return true;
}

/* Tell the client that submissions before `end` may be executed from now on. False: it has withdrawn them. */
static bool announce(struct aiod_ring *ring, uint32_t end)
{
    __atomic_store_n(&ring->memory.withdrawal->sq_begun, end, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&ring->memory.withdrawal->sq_withdrawn, __ATOMIC_SEQ_CST) == 0) {
        return true;
    }
    atomic_store_explicit(&ring->ended, true, memory_order_release); /* its connection ends the session */
    return false;
}

static unsigned take(struct aiod_ring *ring)
{
    struct batch batch = {.ring = ring};
    uint32_t head = ring->sq_head;
    uint32_t count = sq_tail_of(ring) - head;
    unsigned taken = 0;

    if (aiod_ring_is_lost(ring) || count == 0 || atomic_load_explicit(&ring->ended, memory_order_acquire)) {
        return 0;
    }
    if (count > ring->memory.entries) {
        aiod_ring_break(ring, "sq_tail of its ring is out of range");
        return 0;
    }
    count = count < AIOD_RING_BATCH ? count : AIOD_RING_BATCH;
    if (!announce(ring, head + count)) {
        return 0;
    }
    batch.now_ns = aiod_now_ns();
    while (taken < count && batch.inline_bytes < AIOD_RING_BATCH_BYTES_MAX) {
        struct aiod_ring_sqe entry = copy_entry(ring, head + taken);

        if (aiod_ring_is_lost(ring)) {
            break; /* the entry may not be what the client wrote */
        }
        if (!admit(&batch, &entry)) {
            aiod_ring_break(ring, "it exceeds the credit of its ring");
            break;
        }
        taken++;
        __atomic_store_n(&ring->sq_head, head + taken, __ATOMIC_RELAXED);
    }
    submit(&batch);
    aiod_ring_is_lost(ring);
    return taken;
}

unsigned aiod_ring_take(struct aiod_ring *ring)
{
    unsigned taken;

    if (!has_entries(ring) || pthread_mutex_trylock(&ring->taking) != 0) {
        /* seen by the thread that is taking, or by the leader, which does not sleep while there are entries */
        return 0;
    }
    taken = take(ring);
    pthread_mutex_unlock(&ring->taking);
    return taken;
}
