/* queue.c - takes requests from a virtqueue, and publishes their results (queue.h). */
#include "vhost/queue.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/worker_io.h"
#include "pool/request_list.h"
#include "ring/client_wakes.h"
#include "session/io_prepare.h"
#include "session/operations.h"
#include "session/trace.h"
#include "util/os.h"
#include "util/probes.h"

#define BATCH 64u                      /* entries taken before it is another queue's turn */
#define BATCH_BYTES_MAX (256u * 1024u) /* of inline reads */

/* Entries taken in one call. */
struct batch {
    struct aiod_vhost_queue *queue;
    const struct aiod_virtqueue *virtqueue;
    uint64_t now_ns;
    uint64_t inline_bytes;
    bool published;
    struct aiod_request_list queued; /* for the pool */
};

/* ---- the guest breaks a rule ------------------------------------------------------------------------------------- */

static void break_queue(struct aiod_vhost_queue *queue, const char *why)
{
    const char *none = NULL;

    if (atomic_compare_exchange_strong(&queue->broken, &none, why)) {
        aiod_eventfd_ring(queue->backend->notice_fd);
    }
}

/* Add `change` to the requests in flight, and return their number. Lock held. */
static uint32_t change_inflight(struct aiod_vhost_queue *queue, uint32_t change)
{
    uint32_t inflight = queue->inflight + change;

    __atomic_store_n(&queue->inflight, inflight, __ATOMIC_RELAXED);
    return inflight;
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void notify_guest(struct aiod_vhost_queue *queue)
{
    bool call = false;

    pthread_mutex_lock(&queue->lock);
    if (queue->virtqueue != NULL && queue->signalled != queue->used) {
        call = aiod_virtqueue_wants_call(queue->virtqueue, queue->signalled, queue->used);
        queue->signalled = queue->used;
    }
    pthread_mutex_unlock(&queue->lock);
    if (call) {
        aiod_notifier_signal(&queue->call);
    }
}

/* Lock held. */
static void publish(struct aiod_vhost_queue *queue, uint16_t head, uint32_t written)
{
    aiod_virtqueue_use(queue->virtqueue, queue->used, head, written);
    aiod_inflight_publishing(queue->notes, head);
    queue->used++;
    aiod_virtqueue_publish(queue->virtqueue, queue->used);
    aiod_inflight_published(queue->notes, head, queue->used);
}

/* Lock held. */
static void note_failure(struct aiod_vhost_queue *queue, const struct aiod_io *io, int error)
{
    if (queue->failures++ == 0) {
        queue->failure =
            (struct aiod_vhost_failure){.op = io->op, .error = error, .offset = io->offset, .length = io->length};
    }
}

/* The end of a request, in whatever way. */
struct ending {
    enum aiod_blk_status status;
    uint32_t written;
    bool counted; /* it was an operation of the file, with this result and these durations */
    int64_t result;
    const struct aiod_timing *timing;
};

/* Lock held. */
static void count(struct aiod_vhost_queue *queue, const struct aiod_io *io, const struct ending *ending, uint64_t bytes)
{
    int error = ending->result < 0 ? (int)-ending->result : 0;

    aiod_stats_record(&queue->stats, AIOD_BY_VHOST, io->op, bytes, error, ending->timing);
    if (ending->status == AIOD_BLK_FAILED) {
        note_failure(queue, io, error);
    }
}

/*
 * End a request: its slot is free before the guest sees its used entry, and can use its head again. Lock not held; a
 * notification of the guest follows.
 */
static void finish(struct aiod_vhost_request *request, const struct ending *ending)
{
    struct aiod_vhost_queue *queue = request->queue;
    struct aiod_memory_table *table = request->table;
    uint16_t head = (uint16_t)(request - queue->requests);
    uint64_t bytes = ending->counted ? aiod_op_moved_bytes(request->io.op, request->io.length, ending->result) : 0;
    bool drained;
    bool failed;

    if (ending->counted) {
        const char *client = queue->backend->handle->session->client;
        int error = ending->result < 0 ? (int)-ending->result : 0;

        aiod_trace_done(&request->io.task.request, ending->timing, client, head, request->io.op, bytes, error);
        AIOD_PROBE6(request_done, &request->io.task.request, client, head, (int)request->io.op, bytes, error);
    }
    aiod_chain_release(&request->chain);
    pthread_mutex_lock(&queue->lock);
    if (ending->counted) {
        count(queue, &request->io, ending, bytes);
    }
    request->used = false;
    if (queue->virtqueue != NULL) {
        *request->status = (char)ending->status;
        publish(queue, head, ending->written);
    }
    failed = queue->failures == 1 && ending->status == AIOD_BLK_FAILED;
    drained = change_inflight(queue, -1u) == 0;
    pthread_mutex_unlock(&queue->lock);

    aiod_memory_table_put(table);
    if (failed || (drained && atomic_load(&queue->shown) == NULL)) {
        aiod_eventfd_ring(queue->backend->notice_fd);
    }
    if (drained && __atomic_load_n(queue->backend->draining, __ATOMIC_RELAXED)) {
        aiod_eventfd_ring(aiod_pool_completion_fd(queue->backend->pool));
    }
}

static enum aiod_blk_status status_of(const struct aiod_io *io, int64_t result)
{
    if (result == -EOPNOTSUPP) {
        return AIOD_BLK_UNSUPPORTED;
    }
    /* a short read: the file has become shorter than the device */
    return result < 0 || (io->op == AIOD_READ && (uint64_t)result < io->length) ? AIOD_BLK_FAILED : AIOD_BLK_OK;
}

/*
 * The engine stops, or the VMM has gone, and the request was not carried out: the guest gets no answer, and the next engine
 * finds the request in the area of those in flight.
 */
static void drop(struct aiod_vhost_request *request)
{
    struct aiod_vhost_queue *queue = request->queue;
    struct aiod_memory_table *table = request->table;
    bool drained;

    aiod_chain_release(&request->chain);
    pthread_mutex_lock(&queue->lock);
    request->used = false;
    drained = change_inflight(queue, -1u) == 0;
    pthread_mutex_unlock(&queue->lock);
    aiod_memory_table_put(table);
    if (drained) {
        aiod_eventfd_ring(queue->backend->notice_fd);
        aiod_eventfd_ring(aiod_pool_completion_fd(queue->backend->pool));
    }
}

static unsigned take(struct aiod_polled *polled);

/* Called by the thread that ends the request (aiod_request.complete). It takes new entries as well, as that of a ring. */
static void complete(struct aiod_request *done)
{
    struct aiod_vhost_request *request = (struct aiod_vhost_request *)done;
    struct aiod_vhost_queue *queue = request->queue;
    struct aiod_timing timing = aiod_timing_of(done);
    bool startable = done->uring != NULL;
    enum aiod_blk_status status = status_of(&request->io, done->result);

    if (done->reason == AIOD_REASON_CANCELLED) {
        drop(request);
        return;
    }
    finish(request, &(struct ending){.status = status,
                                     .written = status == AIOD_BLK_OK ? request->written : 1,
                                     .counted = true,
                                     .result = done->result,
                                     .timing = &timing});
    if (aiod_client_wakes_note(&queue->polled)) {
        return;
    }
    notify_guest(queue);
    if (!startable) {
        take(&queue->polled);
    }
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

/* The request was carried out here. */
static void finish_inline(struct batch *batch, struct aiod_vhost_request *request, int64_t result)
{
    enum aiod_blk_status status = status_of(&request->io, result);
    uint64_t started_ns = batch->now_ns;
    struct aiod_timing timing;

    batch->now_ns = aiod_now_ns();
    timing = aiod_timing_inline(started_ns, batch->now_ns);
    finish(request, &(struct ending){.status = status,
                                     .written = status == AIOD_BLK_OK ? request->written : 1,
                                     .counted = true,
                                     .result = result,
                                     .timing = &timing});
    batch->published = true;
}

/* Read from the page cache (RWF_NOWAIT). False: a worker has to. */
static bool execute_inline(struct batch *batch, struct aiod_vhost_request *request,
                           const struct aiod_submission *record)
{
    struct aiod_io *io = &request->io;
    uint64_t got;

    if (!aiod_io_may_read_inline(record, io->handle, batch->queue->backend->inline_read_max)) {
        return false;
    }
    if (io->data != NULL) {
        io->have = got =
            aiod_io_read_nowait(io->handle->fd, io->data, io->length, io->offset, &io->handle->never_nowait);
    } else {
        got = aiod_io_readv_nowait(io->handle->fd, io->iov, io->iov_count, io->offset, &io->handle->never_nowait);
    }
    batch->inline_bytes += got;
    if (got < io->length) {
        return false; /* says nothing about the end of the file: a worker reads the rest */
    }
    finish_inline(batch, request, (int64_t)got);
    return true;
}

static void submit_io(struct batch *batch, struct aiod_vhost_request *request, const struct aiod_blk_request *wanted)
{
    const struct aiod_vhost_backend *backend = batch->queue->backend;
    bool one_read = wanted->record.op == AIOD_READ && wanted->data_count == 1;

    aiod_io_prepare(&request->io, &(struct aiod_io_description){
                                      .record = &wanted->record,
                                      .handle = backend->handle,
                                      .buffers = backend->buffers,
                                      .arrived_ns = batch->now_ns,
                                      .complete = complete,
                                      .data = one_read ? wanted->data->iov_base : NULL,
                                      .piece_count = one_read ? 0 : wanted->data_count,
                                      .piece = wanted->data_count > 0 ? *wanted->data : (struct iovec){0},
                                      .pieces = wanted->data,
                                  });
    if (!execute_inline(batch, request, &wanted->record)) {
        aiod_request_list_append(&batch->queued, &request->io.task.request);
        AIOD_PROBE5(request_submit, &request->io.task.request, backend->handle->session->client, wanted->record.cookie,
                    (int)request->io.op, request->io.length);
    }
}

/* The export does not allow the operation. */
static void refuse(struct batch *batch, struct aiod_vhost_request *request, const struct aiod_submission *record,
                   int error)
{
    struct aiod_timing timing = {0};

    request->io.op = (enum aiod_op)record->op;
    request->io.offset = record->offset;
    request->io.length = record->length;
    request->io.task.request.done_ns = batch->now_ns;
    finish(request, &(struct ending){
                        .status = AIOD_BLK_FAILED, .written = 1, .counted = true, .result = -error, .timing = &timing});
    batch->published = true;
}

/* Get the slot of a head. NULL: the request with that head is in flight. */
static struct aiod_vhost_request *begin(struct aiod_vhost_queue *queue, uint16_t head)
{
    struct aiod_vhost_request *request = &queue->requests[head];
    bool free;

    pthread_mutex_lock(&queue->lock);
    free = !request->used;
    if (free) {
        request->used = true;
        change_inflight(queue, 1);
    }
    pthread_mutex_unlock(&queue->lock);
    return free ? request : NULL;
}

/* False: the guest broke a rule. */
static bool admit(struct batch *batch, uint16_t head)
{
    struct aiod_vhost_queue *queue = batch->queue;
    const struct aiod_vhost_backend *backend = queue->backend;
    struct aiod_vhost_request *request = head < batch->virtqueue->size ? begin(queue, head) : NULL;
    enum aiod_reason reason = AIOD_REASON_BY_KERNEL;
    struct aiod_blk_request wanted;
    const char *why;
    int error;

    if (request == NULL) {
        break_queue(queue, head < batch->virtqueue->size ? "a descriptor was made available twice"
                                                         : "an available entry has a number that is out of range");
        return false;
    }
    request->table = aiod_memory_table_get(batch->virtqueue->table);
    why = aiod_virtqueue_collect(batch->virtqueue, head, &request->chain);
    if (why == NULL) {
        why = aiod_blk_understand(&backend->blk, &request->chain, queue->through, &wanted);
    }
    if (why != NULL) {
        break_queue(queue, why);
        drop(request);
        return false;
    }
    aiod_inflight_take(queue->notes, head, queue->counter++);
    request->status = wanted.status;
    request->written = wanted.written;
    if (wanted.ended) {
        finish(request, &(struct ending){.status = wanted.result, .written = wanted.written});
        batch->published = true;
        return true;
    }
    wanted.record.handle = backend->handle->number;
    wanted.record.cookie = head;
    error = aiod_op_check(&wanted.record, backend->handle, UINT64_MAX, &reason);
    if (error != 0) {
        refuse(batch, request, &wanted.record, error);
    } else {
        submit_io(batch, request, &wanted);
    }
    return true;
}

static bool batch_has_room(const struct batch *batch, unsigned taken)
{
    return taken < BATCH && batch->inline_bytes < BATCH_BYTES_MAX;
}

/* Those that a former engine has left. */
static unsigned take_left(struct batch *batch)
{
    struct aiod_vhost_queue *queue = batch->queue;
    unsigned taken = 0;

    while (atomic_load_explicit(&queue->left_count, memory_order_relaxed) > 0 && batch_has_room(batch, taken)) {
        if (!admit(batch, queue->left.heads[queue->left_taken])) {
            break;
        }
        queue->left_taken++;
        atomic_fetch_sub(&queue->left_count, 1);
        taken++;
    }
    return taken;
}

static unsigned take_available(struct batch *batch, unsigned taken)
{
    struct aiod_vhost_queue *queue = batch->queue;
    uint16_t next = atomic_load_explicit(&queue->next, memory_order_relaxed);
    uint16_t count = (uint16_t)(aiod_virtqueue_available(batch->virtqueue) - next);

    if (count > batch->virtqueue->size) {
        break_queue(queue, "the index of available entries has jumped");
        return taken;
    }
    for (; count > 0 && batch_has_room(batch, taken); count--) {
        if (!admit(batch, aiod_virtqueue_head(batch->virtqueue, next))) {
            break;
        }
        taken++;
        atomic_store(&queue->next, ++next);
    }
    return taken;
}

/*
 * A worker has taken entries while the leader sleeps: the guest is to kick behind these. The leader does the same before it
 * sleeps; under the lock, so that the later one of both sees what was taken.
 */
static void ask_for_kick(struct aiod_vhost_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->virtqueue != NULL && atomic_load(&queue->sleeping)) {
        aiod_virtqueue_ask_for_kick(queue->virtqueue, atomic_load(&queue->next));
    }
    pthread_mutex_unlock(&queue->lock);
}

static bool may_take(const struct aiod_vhost_queue *queue)
{
    return !__atomic_load_n(queue->backend->draining, __ATOMIC_RELAXED) && atomic_load(&queue->broken) == NULL;
}

static unsigned take_batch(struct aiod_vhost_queue *queue)
{
    struct batch batch = {.queue = queue, .virtqueue = atomic_load(&queue->shown)};
    unsigned taken;

    if (batch.virtqueue == NULL || !may_take(queue)) {
        return 0;
    }
    batch.now_ns = aiod_now_ns();
    taken = take_left(&batch);
    if (atomic_load_explicit(&queue->left_count, memory_order_relaxed) == 0) {
        taken = take_available(&batch, taken);
    }
    atomic_fetch_add_explicit(&queue->taken, taken, memory_order_relaxed);
    if (batch.published) {
        notify_guest(queue);
    }
    aiod_request_list_submit(&batch.queued, queue->backend->pool, aiod_pool_submit_beside_main_loop);
    return taken;
}

static bool has_more(struct aiod_vhost_queue *queue)
{
    const struct aiod_virtqueue *virtqueue = atomic_load(&queue->shown);

    return virtqueue != NULL && may_take(queue) &&
           (atomic_load_explicit(&queue->left_count, memory_order_relaxed) > 0 ||
            aiod_virtqueue_available(virtqueue) != atomic_load_explicit(&queue->next, memory_order_relaxed));
}

static unsigned take(struct aiod_polled *polled)
{
    struct aiod_vhost_queue *queue = (struct aiod_vhost_queue *)polled;
    unsigned taken;

    if (pthread_mutex_trylock(&queue->taking) != 0) {
        /* seen by the thread that is taking, or by the leader, which does not sleep while there are entries */
        return 0;
    }
    taken = has_more(queue) ? take_batch(queue) : 0;
    while (taken > 0 && atomic_load(&queue->sleeping)) {
        unsigned more;

        ask_for_kick(queue);
        more = has_more(queue) ? take_batch(queue) : 0;
        if (more == 0) {
            break;
        }
        taken += more;
    }
    pthread_mutex_unlock(&queue->taking);
    return taken;
}

/* ---- the poller -------------------------------------------------------------------------------------------------- */

/* A queue lives as long as the engine's pool. */
static void no_reference(struct aiod_polled *polled)
{
    (void)polled;
}

static void wake_client(struct aiod_polled *polled)
{
    notify_guest((struct aiod_vhost_queue *)polled);
}

static bool has_entries(struct aiod_polled *polled)
{
    struct aiod_vhost_queue *queue = (struct aiod_vhost_queue *)polled;
    bool more;

    atomic_store(&queue->looking, true); /* before `shown` is read (hide()) */
    more = has_more(queue);
    atomic_store_explicit(&queue->looking, false, memory_order_release);
    return more;
}

static void set_sleeping(struct aiod_polled *polled, bool sleeping)
{
    struct aiod_vhost_queue *queue = (struct aiod_vhost_queue *)polled;

    pthread_mutex_lock(&queue->lock);
    atomic_store(&queue->sleeping, sleeping);
    if (queue->virtqueue != NULL && sleeping) {
        aiod_virtqueue_ask_for_kick(queue->virtqueue, atomic_load(&queue->next));
    } else if (queue->virtqueue != NULL) {
        aiod_virtqueue_need_no_kick(queue->virtqueue, atomic_load(&queue->next));
    }
    pthread_mutex_unlock(&queue->lock);
}

static bool seems_idle(const struct aiod_polled *polled)
{
    return __atomic_load_n(&((const struct aiod_vhost_queue *)polled)->inflight, __ATOMIC_RELAXED) == 0;
}

static uint32_t taken_of(const struct aiod_polled *polled)
{
    return atomic_load_explicit(&((const struct aiod_vhost_queue *)polled)->taken, memory_order_relaxed);
}

static const struct aiod_polled_operations operations = {
    .get = no_reference,
    .put = no_reference,
    .take = take,
    .wake_client = wake_client,
    .has_entries = has_entries,
    .set_sleeping = set_sleeping,
    .seems_idle = seems_idle,
    .taken = taken_of,
};

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

int aiod_vhost_queue_create(struct aiod_vhost_queue *queue, const struct aiod_vhost_backend *backend, unsigned number)
{
    int error;

    memset(queue, 0, sizeof(*queue));
    queue->polled = (struct aiod_polled){.operations = &operations, .doorbell_fd = -1};
    queue->backend = backend;
    queue->number = number;
    pthread_mutex_init(&queue->taking, NULL);
    pthread_mutex_init(&queue->lock, NULL);
    atomic_init(&queue->sleeping, true); /* dormant (ring/rings.h) */
    error = aiod_notifier_create(&queue->call);
    if (error == 0) {
        error = aiod_notifier_create(&queue->error);
    }
    return error < 0 ? error : aiod_poller_add(backend->poller, &queue->polled);
}

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void aiod_vhost_queue_destroy(struct aiod_vhost_queue *queue)
{
    aiod_virtqueue_destroy(queue->virtqueue);
    aiod_stats_destroy(&queue->stats);
    free(queue->requests);
    close_if_open(&queue->polled.doorbell_fd);
    aiod_notifier_destroy(&queue->call);
    aiod_notifier_destroy(&queue->error);
    pthread_mutex_destroy(&queue->taking);
    pthread_mutex_destroy(&queue->lock);
}

/* Nothing is taken any more; the virtqueue may be changed when both locks are held. */
static void hide(struct aiod_vhost_queue *queue)
{
    atomic_store(&queue->shown, NULL);
    while (atomic_load(&queue->looking)) {
        sched_yield();
    }
}

static void lock_both(struct aiod_vhost_queue *queue)
{
    pthread_mutex_lock(&queue->taking);
    pthread_mutex_lock(&queue->lock);
}

static void unlock_both(struct aiod_vhost_queue *queue)
{
    pthread_mutex_unlock(&queue->lock);
    pthread_mutex_unlock(&queue->taking);
}

/* The leader looks at the queue in its next pass. */
static void have_looked_at(struct aiod_vhost_queue *queue)
{
    aiod_poller_set_doorbell(queue->backend->poller, &queue->polled, queue->polled.doorbell_fd);
}

static int make_requests(struct aiod_vhost_queue *queue, uint16_t size)
{
    struct aiod_vhost_request *requests;

    if (size <= queue->room) {
        return 0;
    }
    requests = calloc(size, sizeof(*requests));
    if (requests == NULL) {
        return -ENOMEM;
    }
    for (uint16_t i = 0; i < size; i++) {
        requests[i].queue = queue;
    }
    free(queue->requests);
    queue->requests = requests;
    queue->room = size;
    return 0;
}

/* The guest is asked for a kick, or not: its memory may say anything. Lock held. */
static void tell_whether_to_kick(struct aiod_vhost_queue *queue)
{
    if (atomic_load(&queue->sleeping)) {
        aiod_virtqueue_ask_for_kick(queue->virtqueue, atomic_load(&queue->next));
    } else {
        aiod_virtqueue_need_no_kick(queue->virtqueue, atomic_load(&queue->next));
    }
}

int aiod_vhost_queue_start(struct aiod_vhost_queue *queue, const struct aiod_vhost_start *start)
{
    struct aiod_virtqueue *virtqueue = start->virtqueue;
    uint16_t used = aiod_virtqueue_published(virtqueue);
    int error = make_requests(queue, virtqueue->size);

    if (error < 0) {
        aiod_virtqueue_destroy(virtqueue);
        return error;
    }
    lock_both(queue);
    aiod_inflight_begin(start->notes, virtqueue->size, used, &queue->left);
    queue->left_taken = 0;
    atomic_store(&queue->left_count, queue->left.count);
    queue->resubmitted += queue->left.count;
    queue->counter = queue->left.counter;
    /* those that were left had been taken: the VMM, which does not know of them, says the used index */
    atomic_store(&queue->next, queue->left.count > 0 ? (uint16_t)(used + queue->left.count) : start->next);
    queue->through = start->through;
    queue->virtqueue = virtqueue;
    queue->notes = start->notes;
    queue->used = used;
    queue->signalled = used;
    tell_whether_to_kick(queue);
    unlock_both(queue);
    aiod_vhost_queue_enable(queue, start->enabled);
    return 0;
}

void aiod_vhost_queue_enable(struct aiod_vhost_queue *queue, bool enabled)
{
    if (!enabled) {
        hide(queue);
        lock_both(queue); /* nobody takes entries any more */
        unlock_both(queue);
    } else if (queue->virtqueue != NULL) {
        atomic_store(&queue->shown, queue->virtqueue);
        have_looked_at(queue);
    }
}

void aiod_vhost_queue_move(struct aiod_vhost_queue *queue, struct aiod_virtqueue *virtqueue)
{
    bool shown = atomic_load(&queue->shown) != NULL;
    struct aiod_virtqueue *former = queue->virtqueue;

    hide(queue);
    lock_both(queue);
    queue->virtqueue = virtqueue;
    tell_whether_to_kick(queue);
    unlock_both(queue);
    aiod_virtqueue_destroy(former);
    if (shown) {
        aiod_vhost_queue_enable(queue, true);
    }
}

static void cancel_queued(struct aiod_vhost_queue *queue)
{
    for (uint16_t i = 0; i < queue->room; i++) {
        bool used;

        pthread_mutex_lock(&queue->lock);
        used = queue->requests[i].used;
        pthread_mutex_unlock(&queue->lock);
        if (used) {
            aiod_pool_cancel(queue->backend->pool, &queue->requests[i].io.task.request);
        }
    }
}

/* Nothing is taken and nothing is published any more; a broken queue is whole again. */
static void drop_virtqueue(struct aiod_vhost_queue *queue)
{
    struct aiod_virtqueue *former = queue->virtqueue;

    hide(queue);
    lock_both(queue);
    queue->virtqueue = NULL;
    queue->notes = NULL;
    atomic_store(&queue->broken, NULL);
    queue->broken_told = false;
    unlock_both(queue);
    aiod_virtqueue_destroy(former);
}

void aiod_vhost_queue_abandon(struct aiod_vhost_queue *queue)
{
    drop_virtqueue(queue);
    cancel_queued(queue);
    aiod_vhost_queue_set_kick(queue, -1);
    aiod_vhost_queue_set_call(queue, -1);
    aiod_vhost_queue_set_error(queue, -1);
}

uint16_t aiod_vhost_queue_stop(struct aiod_vhost_queue *queue)
{
    drop_virtqueue(queue);
    return atomic_load(&queue->next);
}

bool aiod_vhost_queue_is_running(struct aiod_vhost_queue *queue)
{
    return queue->virtqueue != NULL;
}

uint32_t aiod_vhost_queue_inflight(struct aiod_vhost_queue *queue)
{
    uint32_t inflight;

    pthread_mutex_lock(&queue->lock);
    inflight = queue->inflight;
    pthread_mutex_unlock(&queue->lock);
    return inflight;
}

int aiod_vhost_queue_set_call(struct aiod_vhost_queue *queue, int fd)
{
    int error = aiod_notifier_set(&queue->call, fd);

    if (fd >= 0 && error == 0) {
        aiod_notifier_signal(&queue->call); /* results that were published before are not missed */
    }
    return error;
}

int aiod_vhost_queue_set_kick(struct aiod_vhost_queue *queue, int fd)
{
    int former = queue->polled.doorbell_fd;
    int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int error = own < 0 && fd >= 0 ? -errno : aiod_poller_set_doorbell(queue->backend->poller, &queue->polled, own);

    if (error < 0 && own >= 0) {
        close(own);
    }
    close_if_open(&former);
    return error;
}

int aiod_vhost_queue_set_error(struct aiod_vhost_queue *queue, int fd)
{
    return aiod_notifier_set(&queue->error, fd);
}

bool aiod_vhost_queue_take_failure(struct aiod_vhost_queue *queue, struct aiod_vhost_failure *failure, uint64_t *count_)
{
    pthread_mutex_lock(&queue->lock);
    *failure = queue->failure;
    *count_ = queue->failures;
    queue->failures = 0;
    pthread_mutex_unlock(&queue->lock);
    return *count_ > 0;
}

void aiod_vhost_queue_add_stats(struct aiod_vhost_queue *queue, struct aiod_stats *stats)
{
    pthread_mutex_lock(&queue->lock);
    aiod_stats_add(stats, &queue->stats);
    pthread_mutex_unlock(&queue->lock);
}
