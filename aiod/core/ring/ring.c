/* ring.c - a ring's creation and end, its handles, and its completions. */
#include "ring/ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "session/operations.h"
#include "session/trace.h"
#include "util/os.h"
#include "util/probes.h"

/* ---- creation ---------------------------------------------------------------------------------------------------- */

static void add_request_slots(struct aiod_ring *ring)
{
    for (uint32_t i = ring->entries; i-- > 0;) {
        ring->requests[i].ring = ring;
        ring->requests[i].next_free = ring->free;
        ring->free = &ring->requests[i];
    }
}

void aiod_ring_add_handles(struct aiod_ring *ring)
{
    const struct aiod_session *session = ring->session;

    for (uint32_t i = 0; i < session->slot_count; i++) {
        struct aiod_handle *handle = session->slots[i].handle;

        if (handle != NULL && !handle->closing) {
            aiod_ring_add_handle(ring, handle);
        }
    }
}

static void close_descriptors(struct aiod_ring *ring)
{
    if (ring->polled.doorbell_fd >= 0) {
        close(ring->polled.doorbell_fd);
    }
    if (ring->wake_fd >= 0) {
        close(ring->wake_fd);
    }
}

/* The clients must not know the factor: they could otherwise build long chains of cookies. */
static uint64_t random_factor(void)
{
    uint64_t factor = 0;

    /* the kernel's random generator is not seeded yet, at boot */
    if (getrandom(&factor, sizeof(factor), GRND_NONBLOCK) != sizeof(factor)) {
        factor = aiod_now_ns() * UINT64_C(0x9e3779b97f4a7c15);
    }
    return factor;
}

/* The client's pid; 0 if it is unknown, also for a client in another pid namespace. */
static pid_t client_pid_of(int socket)
{
    struct ucred peer = {.pid = 0};
    socklen_t length = sizeof(peer);

    return socket >= 0 && getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

/*
 * Acquire what can fail and takes no time. wake_fd is duplicated, because the caller may close it while the memory is
 * allocated.
 */
static int acquire(struct aiod_ring *ring, const struct aiod_ring_config *config)
{
    int error = aiod_cookies_init(&ring->cookies, ring->entries, random_factor());

    ring->handles = calloc(ring->handles_max, sizeof(struct aiod_handle *));
    ring->polled.doorbell_fd = aiod_eventfd_create();
    ring->wake_fd = config->wake_fd < 0 ? -1 : fcntl(config->wake_fd, F_DUPFD_CLOEXEC, 0);
    if (ring->wake_fd < 0 && config->wake_fd >= 0) {
        return -errno;
    }
    if (ring->polled.doorbell_fd < 0) {
        return ring->polled.doorbell_fd;
    }
    return ring->handles == NULL ? -ENOMEM : error;
}

/* Runs on the maker's thread. `allocation_error` is the result. */
static void allocate_memory(struct aiod_ring_job *job)
{
    struct aiod_ring *ring = (struct aiod_ring *)(void *)((char *)job - offsetof(struct aiod_ring, allocate_job));

    ring->allocation_error = aiod_ring_memory_create(&ring->memory, ring->entries, ring->area_bytes);
    ring->allocated = ring->allocation_error == 0;
    if (ring->allocated) {
        add_request_slots(ring);
    }
    aiod_pool_notify(ring->pool, &ring->allocated_notice.request);
}

/* Runs on the maker's thread or, after that has stopped, on the thread that drops the last reference. */
static void free_memory(struct aiod_ring_job *job)
{
    struct aiod_ring *ring = (struct aiod_ring *)(void *)((char *)job - offsetof(struct aiod_ring, free_job));

    aiod_ring_memory_destroy(&ring->memory);
    ring->allocated = false;
    aiod_pool_notify(ring->pool, &ring->freed_notice.request);
}

static void get(struct aiod_polled *polled)
{
    aiod_ring_get((struct aiod_ring *)polled);
}

static void put(struct aiod_polled *polled)
{
    aiod_ring_put((struct aiod_ring *)polled);
}

static unsigned take(struct aiod_polled *polled)
{
    return aiod_ring_take((struct aiod_ring *)polled);
}

static void wake_client(struct aiod_polled *polled)
{
    aiod_ring_wake_client((struct aiod_ring *)polled);
}

static bool seems_idle(const struct aiod_polled *polled)
{
    return __atomic_load_n(&((const struct aiod_ring *)polled)->inflight, __ATOMIC_RELAXED) == 0;
}

static uint32_t taken(const struct aiod_polled *polled)
{
    return __atomic_load_n(&((const struct aiod_ring *)polled)->sq_head, __ATOMIC_RELAXED);
}

static const struct aiod_polled_operations operations = {
    .get = get,
    .put = put,
    .take = take,
    .wake_client = wake_client,
    .has_entries = aiod_ring_has_entries,
    .set_sleeping = aiod_ring_set_sleeping,
    .seems_idle = seems_idle,
    .taken = taken,
};

int aiod_ring_create(struct aiod_ring **result, const struct aiod_ring_config *config)
{
    struct aiod_ring *ring = calloc(1, sizeof(*ring) + config->entries * sizeof(ring->requests[0]));
    int error;

    if (ring == NULL) {
        return -ENOMEM;
    }
    ring->polled.operations = &operations;
    ring->session = config->session;
    ring->pool = config->pool;
    ring->maker = config->maker;
    ring->buffers = config->buffers;
    ring->files = config->files;
    ring->collect_timer = config->collect_timer;
    ring->draining = config->draining;
    ring->inline_read_max = config->inline_read_max;
    ring->request_bytes_max = config->session->limits.request_bytes_max;
    ring->handles_max = config->session->limits.handles_max;
    ring->entries = config->entries;
    ring->area_bytes = config->area_bytes;
    ring->memory.bytes = aiod_ring_memory_bytes(config->entries, config->area_bytes);
    ring->polled.client_pid = client_pid_of(config->wake_fd);
    ring->allocate_job.run = allocate_memory;
    ring->free_job.run = free_memory;
    ring->allocated_notice.kind = AIOD_TASK_RING_ALLOCATED;
    ring->broken_notice.kind = AIOD_TASK_RING_BROKEN;
    ring->freed_notice.kind = AIOD_TASK_RING_FREED;
    error = acquire(ring, config);
    if (error < 0) {
        close_descriptors(ring);
        aiod_cookies_destroy(&ring->cookies);
        free(ring->handles);
        free(ring);
        return error;
    }
    atomic_init(&ring->refs, 1);
    aiod_mutex_init(&ring->lock);
    pthread_mutex_init(&ring->taking, NULL);
    aiod_session_ref(ring->session);
    *result = ring;
    return 0;
}

int aiod_ring_allocate(struct aiod_ring *ring)
{
    return aiod_ring_maker_submit(ring->maker, &ring->allocate_job);
}

/* ---- end --------------------------------------------------------------------------------------------------------- */

void aiod_ring_get(struct aiod_ring *ring)
{
    atomic_fetch_add_explicit(&ring->refs, 1, memory_order_relaxed);
}

void aiod_ring_put(struct aiod_ring *ring)
{
    if (atomic_fetch_sub_explicit(&ring->refs, 1, memory_order_acq_rel) == 1) {
        aiod_ring_maker_finish(ring->maker, &ring->free_job);
    }
}

void aiod_ring_set_shutdown_notice(struct aiod_ring *ring, uint32_t notice)
{
    __atomic_store_n(&ring->memory.header->shutdown_notice, notice, __ATOMIC_RELEASE);
}

void aiod_ring_end(struct aiod_ring *ring)
{
    uint32_t in_use = aiod_ring_inflight(ring) > 0 ? ring->entries : 0;

    atomic_store_explicit(&ring->ended, true, memory_order_release);
    /* A request that another thread is queueing now is executed, and its completion is not delivered. */
    for (uint32_t i = 0; i < in_use; i++) {
        aiod_pool_cancel(ring->pool, &ring->requests[i].io.task.request);
    }
    aiod_ring_put(ring);
}

/* The flows that the ring's requests count in: a ring that could not be attached has none. */
static struct aiod_session_flow *first_flow(const struct aiod_ring *ring)
{
    return ring->attached ? ring->session->flows : NULL;
}

/* Keep the counts of a ring that ends. */
static void end_stats(struct aiod_ring *ring, struct aiod_stats *stats)
{
    struct aiod_session *session = ring->session;

    for (struct aiod_session_flow *flow = first_flow(ring); flow != NULL; flow = flow->next) {
        aiod_stats_add(flow->exported != NULL ? &flow->exported->stats : stats, &flow->ring_stats);
        aiod_stats_add(&session->stats, &flow->ring_stats);
        aiod_stats_destroy(&flow->ring_stats);
    }
    aiod_stats_add(stats, &ring->stats);
    aiod_stats_add(&session->stats, &ring->stats);
    aiod_stats_destroy(&ring->stats);
}

void aiod_ring_free(struct aiod_ring *ring, struct aiod_stats *stats)
{
    aiod_ring_opens_collect(ring, AIOD_COLLECT_LAST); /* frees those that were closed last: no other is left */
    end_stats(ring, stats);
    aiod_session_unref(ring->session);
    pthread_mutex_destroy(&ring->lock);
    pthread_mutex_destroy(&ring->taking);
    close_descriptors(ring);
    aiod_cookies_destroy(&ring->cookies);
    free(ring->handles);
    free(ring);
}

struct aiod_ring *aiod_ring_of_allocated(struct aiod_task *notice)
{
    return (struct aiod_ring *)(void *)((char *)notice - offsetof(struct aiod_ring, allocated_notice));
}

struct aiod_ring *aiod_ring_of_broken(struct aiod_task *notice)
{
    return (struct aiod_ring *)(void *)((char *)notice - offsetof(struct aiod_ring, broken_notice));
}

struct aiod_ring *aiod_ring_of_freed(struct aiod_task *notice)
{
    return (struct aiod_ring *)(void *)((char *)notice - offsetof(struct aiod_ring, freed_notice));
}

void aiod_ring_break(struct aiod_ring *ring, const char *why)
{
    if (atomic_exchange_explicit(&ring->ended, true, memory_order_acq_rel)) {
        return;
    }
    ring->broken = why;
    aiod_ring_get(ring);
    aiod_pool_notify(ring->pool, &ring->broken_notice.request);
}

bool aiod_ring_is_lost(struct aiod_ring *ring)
{
    if (!aiod_memory_guard_page_lost(&ring->memory.guard)) {
        return false;
    }
    aiod_ring_break(ring, "a page of its ring's memory was gone, and there was no memory to replace it");
    return true;
}

/* ---- handles ----------------------------------------------------------------------------------------------------- */

void aiod_ring_add_handle(struct aiod_ring *ring, struct aiod_handle *handle)
{
    pthread_mutex_lock(&ring->lock);
    ring->handles[(handle->number & 0xffff) - 1] = handle;
    pthread_mutex_unlock(&ring->lock);
}

bool aiod_ring_forget_handle(struct aiod_ring *ring, struct aiod_handle *handle)
{
    bool unused;

    pthread_mutex_lock(&ring->lock);
    ring->handles[(handle->number & 0xffff) - 1] = NULL;
    unused = handle->ring_inflight == 0;
    handle->ring_closing = true;
    pthread_mutex_unlock(&ring->lock);
    return unused;
}

/* Lock held. True: the main loop waits for the handle to become idle. */
static bool release_handle(struct aiod_handle *handle)
{
    return handle != NULL && --handle->ring_inflight == 0 && handle->ring_closing;
}

static void notify_handle_idle(struct aiod_ring *ring, struct aiod_handle *handle)
{
    handle->ring_idle.kind = AIOD_TASK_HANDLE_IDLE;
    aiod_pool_notify(ring->pool, &handle->ring_idle.request);
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

void aiod_ring_publish(struct aiod_ring *ring, const struct aiod_ring_completion *end)
{
    struct aiod_ring_cqe *cqe = &ring->memory.cqes[ring->cq_tail & (ring->memory.entries - 1)];

    *cqe = (struct aiod_ring_cqe){
        .cookie = end->cookie,
        .result = end->result,
        .written = (uint32_t)end->written, /* requests that report it are shorter than 4 GiB */
        .reason = (uint32_t)end->reason,
    };
    ring->cq_tail++;
    __atomic_store_n(&ring->memory.header->cq_tail, ring->cq_tail, __ATOMIC_SEQ_CST);
}

void aiod_ring_wake_client(struct aiod_ring *ring)
{
    struct aiod_ring_header *header = ring->memory.header;

    if (__atomic_load_n(&header->client_waits, __ATOMIC_SEQ_CST) == AIOD_RING_AWAKE) {
        return;
    }
    switch (__atomic_exchange_n(&header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED)) {
    case AIOD_RING_AWAKE: /* another thread has woken the client */
        return;
    case AIOD_RING_WAITS_SOCKET:
        /* If the socket is full, it contains enough to wake the client. */
        (void)!send(ring->wake_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        break;
    default:
        syscall(SYS_futex, &header->client_waits, FUTEX_WAKE, 1, NULL, NULL, 0);
        break;
    }
}

static bool has_unseen(struct aiod_ring *ring)
{
    uint32_t tail;

    pthread_mutex_lock(&ring->lock);
    tail = ring->cq_tail;
    pthread_mutex_unlock(&ring->lock);
    return tail != __atomic_load_n(&ring->memory.header->cq_head, __ATOMIC_ACQUIRE);
}

/* Until aiod_ring_end(), which has set `ended`, the memory is there. */
void aiod_ring_wake_unseen(struct aiod_ring *ring)
{
    if (ring->attached && !atomic_load_explicit(&ring->ended, memory_order_acquire) && has_unseen(ring)) {
        aiod_ring_wake_client(ring);
    }
}

uint32_t aiod_ring_add_inflight(struct aiod_ring *ring, uint32_t change)
{
    uint32_t inflight = ring->inflight + change;

    __atomic_store_n(&ring->inflight, inflight, __ATOMIC_RELAXED);
    return inflight;
}

void aiod_ring_finish(struct aiod_ring_request *request, const struct aiod_ring_completion *end,
                      const struct aiod_timing *timing)
{
    struct aiod_ring *ring = request->ring;
    struct aiod_handle *handle = request->io.handle;
    struct aiod_handle *source = request->io.source;
    struct aiod_session_flow *flow = handle != NULL ? aiod_handle_flow(handle) : request->flow;
    enum aiod_op op = request->io.op;
    uint64_t bytes = aiod_op_moved_bytes(op, request->io.length, end->result);
    struct aiod_ring_completion reported = *end;
    bool handle_idle;
    bool source_idle;
    bool drained;

    if (end->reason == AIOD_REASON_CANCELLED && atomic_load_explicit(&ring->ended, memory_order_acquire)) {
        /* cancelled by aiod_ring_end(), not by the client, which may repeat the request in the next engine */
        reported.result = -ESHUTDOWN;
        reported.reason = AIOD_REASON_STOPPING;
    }
    aiod_trace_done(&request->io.task.request, timing, ring->session->client, end->cookie, op, bytes,
                    reported.result < 0 ? (int)-reported.result : 0);
    AIOD_PROBE6(request_done, &request->io.task.request, ring->session->client, end->cookie, (int)op, bytes,
                reported.result < 0 ? (int)-reported.result : 0);
    aiod_io_release_path(&request->io);
    pthread_mutex_lock(&ring->lock);
    aiod_ring_publish(ring, &reported);
    aiod_stats_record(&flow->ring_stats, AIOD_BY_RING, op, bytes, reported.result < 0 ? (int)-reported.result : 0,
                      timing);
    handle_idle = release_handle(handle);
    source_idle = release_handle(source);
    ring->bytes_inflight -= aiod_op_charged(op) ? request->io.length : 0;
    aiod_cookies_remove(&request->cookie);
    if (op == AIOD_CLOSE_FILE && handle != NULL) {
        aiod_ring_opens_end_close(ring, handle);
    }
    request->next_free = ring->free;
    ring->free = request;
    drained = aiod_ring_add_inflight(ring, -1u) == 0 && __atomic_load_n(ring->draining, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&ring->lock);

    /* checked here as well, because another thread may be taking entries and may have checked before */
    aiod_ring_is_lost(ring);
    if (handle_idle) {
        notify_handle_idle(ring, handle);
    }
    if (source_idle) {
        notify_handle_idle(ring, source);
    }
    if (drained) {
        aiod_eventfd_ring(aiod_pool_completion_fd(ring->pool));
    }
}

uint32_t aiod_ring_inflight(struct aiod_ring *ring)
{
    uint32_t inflight;

    pthread_mutex_lock(&ring->lock);
    inflight = ring->inflight;
    pthread_mutex_unlock(&ring->lock);
    return inflight;
}

uint64_t aiod_ring_bytes_inflight(struct aiod_ring *ring)
{
    uint64_t bytes;

    pthread_mutex_lock(&ring->lock);
    bytes = ring->bytes_inflight;
    pthread_mutex_unlock(&ring->lock);
    return bytes;
}

void aiod_ring_add_stats(struct aiod_ring *ring, struct aiod_stats *stats)
{
    pthread_mutex_lock(&ring->lock);
    aiod_stats_add(stats, &ring->stats);
    for (struct aiod_session_flow *flow = first_flow(ring); flow != NULL; flow = flow->next) {
        aiod_stats_add(stats, &flow->ring_stats);
    }
    pthread_mutex_unlock(&ring->lock);
}

void aiod_ring_show_stats(struct aiod_ring *ring, struct aiod_stats *stats)
{
    pthread_mutex_lock(&ring->lock);
    aiod_stats_add(stats, &ring->stats);
    for (struct aiod_session_flow *flow = first_flow(ring); flow != NULL; flow = flow->next) {
        aiod_stats_add(flow->exported != NULL ? &flow->exported->shown : stats, &flow->ring_stats);
    }
    pthread_mutex_unlock(&ring->lock);
}
