/* uring.c - the io_urings of polling workers (uring.h). */
#include "pool/uring.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "pool/pool_state.h"
#include "util/os.h"
#include "util/probes.h"

#define ENTRIES 256u   /* of one io_uring */
#define TAKEN_FIRST 4u /* completions in the first turn of several, and in the last */
#define TAKEN_MAX 64u
#define ALONE_MIN 32u /* requests in succession that came alone, before others like them are kept */
#define SETUP_FLAGS (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG)

/* The io_uring of a worker. Only that worker uses it. */
struct uring {
    struct io_uring io;
    struct aiod_uring_slot *slot;
    unsigned inflight;   /* taken, and not ended */
    unsigned in_kernel;  /* of those, how many the kernel has accepted and not completed */
    unsigned take_limit; /* completions to take in the next turn */
    unsigned alone;      /* requests in succession that came alone; at most ALONE_MIN */
    /* taken, and not yet started: linked by `next`, oldest first */
    struct aiod_request *taken;
    struct aiod_request **taken_tail;
};

/* Requests that have ended in one turn, linked by `next`. */
struct ended {
    struct aiod_request *done;
    struct aiod_request *returned; /* a worker must run them */
    unsigned count;
};

static int kept_fd = -1; /* constant after aiod_uring_keep_open() */

static _Thread_local struct uring *mine;
static _Thread_local bool tried;          /* to create it */
static _Thread_local bool left_startable; /* to workers: another one is bound */

/* ---- creation ---------------------------------------------------------------------------------------------------- */

/* A slot that no worker uses, or NULL. Lock held. */
static struct aiod_uring_slot *take_slot(struct aiod_pool *pool)
{
    for (unsigned i = 0; i < AIOD_URINGS_MAX; i++) {
        if (!pool->uring_slots[i].used) {
            pool->uring_slots[i].used = true;
            return &pool->uring_slots[i];
        }
    }
    return NULL;
}

/* An eventfd belongs to the slot, because another worker may have been woken by it and not yet looked. */
static int make_event_fd(struct aiod_pool *pool, struct aiod_uring_slot *slot)
{
    int fd = aiod_eventfd_create();
    int error = fd < 0 ? fd : pool->polling->watch(pool->polling, fd, slot);

    if (error < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    slot->event_fd = fd;
    slot->has_event_fd = true;
    return 0;
}

static int init(struct io_uring *io, int event_fd)
{
    int error = io_uring_queue_init(ENTRIES, io, SETUP_FLAGS);

    if (error < 0) {
        return error;
    }
    error = io_uring_register_eventfd(io, event_fd);
    if (error == 0 && kept_fd >= 0) {
        error = io_uring_register_files(io, &kept_fd, 1);
    }
    if (error < 0) {
        io_uring_queue_exit(io);
        return error;
    }
    io_uring_cq_eventfd_toggle(io, false);
    return 0;
}

static int create(struct uring **result, struct aiod_pool *pool, struct aiod_uring_slot *slot)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    int error = 0;

    if (uring == NULL) {
        return -ENOMEM;
    }
    if (!slot->has_event_fd) {
        error = make_event_fd(pool, slot);
    }
    if (error == 0) {
        error = init(&uring->io, slot->event_fd);
    }
    if (error < 0) {
        free(uring);
        return error;
    }
    uring->slot = slot;
    uring->taken_tail = &uring->taken;
    uring->take_limit = TAKEN_FIRST;
    *result = uring;
    return 0;
}

/* A worker tries once: without an io_uring it polls as well. */
static void try_to_create(struct aiod_pool *pool)
{
    struct aiod_uring_slot *slot;
    int error;

    tried = true;
    pthread_mutex_lock(&pool->lock);
    slot = take_slot(pool);
    pthread_mutex_unlock(&pool->lock);
    if (slot == NULL) {
        return;
    }
    error = create(&mine, pool, slot);
    if (error < 0) {
        pthread_mutex_lock(&pool->lock);
        slot->used = false;
        pool->uring_failures++;
        pthread_mutex_unlock(&pool->lock);
    }
}

void aiod_uring_exit(struct aiod_pool *pool)
{
    if (mine != NULL) {
        io_uring_queue_exit(&mine->io);
        pthread_mutex_lock(&pool->lock);
        mine->slot->used = false;
        pthread_mutex_unlock(&pool->lock);
        free(mine);
        mine = NULL;
    }
}

void aiod_uring_destroy_slots(struct aiod_pool *pool)
{
    for (unsigned i = 0; i < AIOD_URINGS_MAX; i++) {
        if (pool->uring_slots[i].has_event_fd) {
            close(pool->uring_slots[i].event_fd);
        }
    }
}

void aiod_uring_want(struct aiod_pool *pool)
{
    atomic_store_explicit(&pool->uring_wanted, true, memory_order_relaxed);
}

void aiod_uring_keep_open(int fd)
{
    kept_fd = fd;
}

int aiod_uring_probe(void)
{
    struct io_uring io;
    int event_fd = aiod_eventfd_create();
    int error = event_fd < 0 ? event_fd : init(&io, event_fd);

    if (error == 0) {
        io_uring_queue_exit(&io);
    }
    if (event_fd >= 0) {
        close(event_fd);
    }
    return error;
}

/* ---- sleeping ---------------------------------------------------------------------------------------------------- */

unsigned aiod_uring_inflight(void)
{
    return mine != NULL ? mine->inflight : 0;
}

/* The kernel has completions, and makes entries of the completion queue of them when it is asked. */
static bool has_task_work(void)
{
    return (IO_URING_READ_ONCE(*mine->io.sq.kflags) & IORING_SQ_TASKRUN) != 0;
}

static bool has_completions(void)
{
    return io_uring_cq_ready(&mine->io) > 0 || has_task_work();
}

bool aiod_uring_ready(void)
{
    return mine != NULL && mine->inflight > 0 &&
           (mine->taken != NULL || io_uring_sq_ready(&mine->io) > 0 || has_completions());
}

/* The kernel reads the flag after it has set IORING_SQ_TASKRUN: either it signals, or aiod_uring_ready() sees that. */
void aiod_uring_set_sleeping(bool sleeping)
{
    if (mine != NULL) {
        atomic_store(&mine->slot->sleeps, sleeping && mine->inflight > 0);
        io_uring_cq_eventfd_toggle(&mine->io, sleeping && mine->inflight > 0);
        atomic_thread_fence(memory_order_seq_cst);
    }
}

/*
 * The kernel wakes the thread that went to sleep last, in general the owner. The caller, which is awake, is not woken by what
 * it rings.
 */
void aiod_uring_pass_on(const void *data)
{
    const struct aiod_uring_slot *slot = data;

    if (slot != NULL && (mine == NULL || mine->slot != slot) && atomic_load(&slot->sleeps)) {
        aiod_eventfd_ring(slot->event_fd);
    }
}

/* The eventfd of another worker that is bound and sleeps, if this one has left startable requests to workers; or -1. */
static int bound_event_fd(const struct aiod_pool *pool)
{
    for (unsigned i = 0; left_startable && i < AIOD_URINGS_MAX; i++) {
        const struct aiod_uring_slot *slot = &pool->uring_slots[i];

        if (atomic_load(&slot->sleeps) && slot != mine->slot) {
            return slot->event_fd;
        }
    }
    return -1;
}

bool aiod_uring_is_elsewhere(const struct aiod_pool *pool)
{
    return bound_event_fd(pool) >= 0;
}

void aiod_uring_call_bound(const struct aiod_pool *pool)
{
    int event_fd = bound_event_fd(pool);

    if (event_fd >= 0) {
        aiod_eventfd_ring(event_fd);
    }
    left_startable = false;
}

/* ---- lock held --------------------------------------------------------------------------------------------------- */

static void append_taken(struct aiod_request *request)
{
    request->next = NULL;
    *mine->taken_tail = request;
    mine->taken_tail = &request->next;
}

static void take(struct aiod_pool *pool, struct aiod_request *request, uint64_t now_ns)
{
    aiod_pool_unlink(pool, request);
    request->shared = pool->fair_queue.shared;
    request->started_ns = request->begun_ns = pool->last_taken_ns = now_ns;
    aiod_active_requests_add_started(pool, request);
    AIOD_PROBE4(request_start, request, pool->name, now_ns - request->queued_ns, request->cookie);
    if (mine->inflight++ == 0) {
        atomic_fetch_add_explicit(&pool->bound_threads, 1, memory_order_relaxed);
    }
    append_taken(request);
}

/*
 * Is the only request one that the calling worker should keep and run? Not if there were more a short time ago: with two in
 * flight many come alone, and changing between both ways costs more than either.
 */
static bool is_to_be_kept(const struct aiod_pool *pool)
{
    bool keeps = mine->alone == ALONE_MIN;
    bool alone = mine->inflight == 0 && pool->queued == 1 && pool->active_threads == 0 && pool->polling_threads > 1 &&
                 !pool->queue_first->uring->also_alone;

    if (!alone) {
        mine->alone = 0;
    } else if (!keeps) {
        mine->alone++;
    }
    return alone && keeps;
}

void aiod_uring_take(struct aiod_pool *pool)
{
    uint64_t now_ns;

    if (mine == NULL || pool->startable == 0) {
        return;
    }
    if (!aiod_polling_may_bind(pool, mine->inflight > 0)) {
        left_startable = true;
        return;
    }
    if (is_to_be_kept(pool)) {
        return;
    }
    now_ns = aiod_now_ns();
    while (mine->inflight < ENTRIES && aiod_pool_takeable(pool, pool->active_threads + pool->waking_threads) > 0) {
        struct aiod_request *request =
            aiod_fair_queue_pick_startable(&pool->fair_queue, aiod_pool_only_fresh(pool, 1), now_ns);

        if (request == NULL) {
            break;
        }
        take(pool, request, now_ns);
    }
}

/* The ended requests are active no more; those that a worker must run are queued again. Lock held. */
static void remove_ended(struct aiod_pool *pool, struct ended *ended)
{
    for (struct aiod_request *request = ended->done; request != NULL; request = request->next) {
        aiod_active_requests_remove(pool, request);
    }
    while (ended->returned != NULL) {
        struct aiod_request *request = ended->returned;

        ended->returned = request->next;
        aiod_active_requests_remove(pool, request);
        pool->uring_returned++;
        request->uring = NULL;
        request->started_ns = 0;
        request->charged = true;
        aiod_pool_enqueue(pool, request);
    }
    mine->inflight -= ended->count;
    pool->uring_requests += ended->count;
    if (mine->inflight == 0) {
        atomic_fetch_sub_explicit(&pool->bound_threads, 1, memory_order_relaxed);
    }
}

/* ---- polling workers: lock not held ------------------------------------------------------------------------------ */

static void end(struct ended *ended, struct aiod_request *request, int64_t result)
{
    struct aiod_request **list = result == AIOD_URING_RUN ? &ended->returned : &ended->done;

    request->result = result;
    request->next = *list;
    *list = request;
    ended->count++;
}

static void start(struct ended *ended, struct aiod_request *request)
{
    struct io_uring_sqe entry = {0};
    struct io_uring_sqe *sqe;

    if (aiod_pool_deadline_passed(request, request->started_ns)) {
        request->started_ns = 0;
        request->reason = AIOD_REASON_DEADLINE;
        end(ended, request, -ETIMEDOUT);
    } else if (!request->uring->start(request, &entry)) {
        end(ended, request, AIOD_URING_RUN);
    } else {
        sqe = io_uring_get_sqe(&mine->io); /* there are as many as requests in flight */
        *sqe = entry;
        io_uring_sqe_set_data(sqe, request);
    }
}

/*
 * Entries that the kernel does not accept, because it has no memory for example, stay in the queue for the next turn. False:
 * it has accepted none.
 */
static bool submit(void)
{
    int count = aiod_os->uring_submit(&mine->io);

    if (count <= 0) {
        sched_yield();
        return false;
    }
    mine->in_kernel += (unsigned)count;
    return true;
}

/* Are as many prepared as the disk has? See start_taken(). */
static bool submits_early(void)
{
    unsigned prepared = io_uring_sq_ready(&mine->io);

    return prepared > 0 && prepared + io_uring_cq_ready(&mine->io) >= mine->in_kernel;
}

/*
 * Start what was taken. The kernel passes requests of one system call to the disk when it has prepared all of them. So
 * that an idle disk has work soon, the first request gets a system call of its own, the next one too, and each further
 * call has twice as many.
 */
static bool start_taken(struct ended *ended)
{
    struct aiod_request *request = mine->taken;
    bool any = false;
    bool accepts = true;

    mine->taken = NULL;
    mine->taken_tail = &mine->taken;
    while (request != NULL) {
        struct aiod_request *next = request->next;

        start(ended, request);
        request = next;
        if (accepts && submits_early()) {
            accepts = submit();
            any = true;
        }
    }
    if (accepts && io_uring_sq_ready(&mine->io) > 0) {
        submit();
        any = true;
    }
    return any;
}

/*
 * Take some completions. They may have come all at once, and the disk may be idle: so the clients get the first ones
 * before the others are looked at, and the leader looks for their answers in between.
 */
static bool take_completions(struct ended *ended)
{
    struct io_uring_cqe *cqes[TAKEN_MAX];
    unsigned count;

    if (io_uring_cq_ready(&mine->io) < mine->take_limit && has_task_work()) {
        io_uring_get_events(&mine->io);
    }
    count = io_uring_peek_batch_cqe(&mine->io, cqes, mine->take_limit);
    if (count < mine->take_limit) {
        mine->take_limit = TAKEN_FIRST;
    } else if (mine->take_limit < TAKEN_MAX) {
        mine->take_limit *= 2;
    }
    mine->in_kernel -= count;
    for (unsigned i = 0; i < count; i++) {
        struct aiod_request *request = io_uring_cqe_get_data(cqes[i]);
        int64_t result = request->uring->ended(request, aiod_os->uring_result(cqes[i]->res));

        if (result == AIOD_URING_AGAIN) {
            append_taken(request);
        } else {
            end(ended, request, result);
        }
    }
    io_uring_cq_advance(&mine->io, count);
    return count > 0;
}

/* Deliver the ended requests, and take others in their place. */
static void finish(struct aiod_pool *pool, struct ended *ended)
{
    struct aiod_worker *chosen[1];
    unsigned wake = 0;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    remove_ended(pool, ended);
    aiod_fair_queue_update(&pool->fair_queue, pool->last_taken_ns);
    aiod_uring_take(pool);
    ring = aiod_spawner_add_backlog(pool);
    ring = aiod_pool_timer_is_late_for_rates(pool) || ring;
    if (pool->waking_threads == 0) {
        wake = aiod_pool_choose_sleepers(pool, chosen, 1);
    }
    pthread_mutex_unlock(&pool->lock);
    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
    while (ended->done != NULL) {
        struct aiod_request *request = ended->done;

        ended->done = request->next;
        aiod_pool_push_done(pool, request);
    }
}

bool aiod_uring_turn(struct aiod_pool *pool)
{
    struct ended ended = {0};
    bool found;

    if (mine == NULL && !tried && atomic_load_explicit(&pool->uring_wanted, memory_order_relaxed)) {
        try_to_create(pool);
    }
    if (!aiod_uring_ready()) {
        return false;
    }
    found = take_completions(&ended);
    found = start_taken(&ended) || found;
    if (ended.count > 0) {
        finish(pool, &ended);
        found = true;
    }
    return found;
}

void aiod_uring_drain(struct aiod_pool *pool)
{
    while (aiod_uring_inflight() > 0) {
        struct io_uring_cqe *cqe;

        if (!aiod_uring_turn(pool)) {
            io_uring_wait_cqe(&mine->io, &cqe);
        }
    }
}
