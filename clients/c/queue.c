/*
 * queue.c - submissions, completions, and the threads that wait for them.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define LOOKS_PER_CLOCK 16
#define CHECK_NS                                                                                                       \
    UINT64_C(100000000) /* how often a sleeper looks whether the engine is still there: a futex cannot tell */

uint64_t aiod_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pause_a_little(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- lock held ------------------------------------------------------------------------------------------------------ */

/* An abandoned one. */
static void free_op(struct aiod_client *client, struct aiod_op *op)
{
    if (op->buffer != NULL) {
        aiod_put_buffer(client, op->buffer);
    }
    free(op);
}

/* It is to be reaped. */
static void put_done(struct aiod_client *client, struct aiod_op *op)
{
    op->listed = true;
    op->next = NULL;
    *client->done_tail = op;
    client->done_tail = &op->next;
    aiod_loop_pass_on(client);
}

void aiod_settle(struct aiod_client *client, struct aiod_op *op)
{
    bool awaited = op->state == OP_AWAITED;
    uint32_t place = (uint32_t)op->cookie;

    client->free_places[client->entries - client->inflight--] = place;
    client->places[place] = NULL;
    client->done_count++;
    aiod_make_room(client);
    if (op->state == OP_ABANDONED) {
        free_op(client, op);
        return;
    }
    op->listed = false;
    if (!awaited) {
        put_done(client, op);
    }
    for (struct parked *parked = client->parked; parked != NULL; parked = parked->next) {
        if (parked->op == op || parked->op == NULL) {
            parked->woken = true;
            pthread_cond_signal(&parked->cond);
        }
    }
    __atomic_store_n(&op->state, OP_DONE, __ATOMIC_RELEASE);
}

void aiod_drain(struct aiod_client *client)
{
    uint32_t tail = __atomic_load_n(&client->header->cq_tail, __ATOMIC_SEQ_CST);
    uint32_t head = client->cq_head;

    if (tail == head) {
        return;
    }
    for (; head != tail; head++) {
        const struct aiod_ring_cqe *cqe = &client->cqes[head & (client->entries - 1)];
        uint32_t place = (uint32_t)cqe->cookie;
        struct aiod_op *op = place < client->entries ? client->places[place] : NULL;

        if (op == NULL || op->cookie != cqe->cookie) {
            continue;
        }
        op->result = cqe->result;
        op->written = cqe->written;
        op->reason = cqe->reason;
        if (client->resume == NULL || aiod_resume_completed(client, op)) {
            aiod_settle(client, op);
        }
    }
    __atomic_store_n(&client->cq_head, head, __ATOMIC_RELAXED); /* aiod_look_for() looks without the lock */
    __atomic_store_n(&client->header->cq_head, head, __ATOMIC_RELEASE);
}

void aiod_end_session(struct aiod_client *client, int error)
{
    if (client->ended != 0) {
        return;
    }
    aiod_drain(client);
    client->ended = error;
    client->away = false;
    for (uint32_t place = 0; place < client->entries; place++) {
        struct aiod_op *op = client->places[place];

        if (op != NULL) {
            op->result = -error;
            op->written = 0;
            op->reason = AIOD_RING_BY_KERNEL;
            aiod_settle(client, op);
        }
    }
    aiod_lose_calls(client);
    aiod_loop_ring(client);
    aiod_wake_all(client);
}

void aiod_wake_all(struct aiod_client *client)
{
    for (struct parked *parked = client->parked; parked != NULL; parked = parked->next) {
        parked->woken = true;
        pthread_cond_signal(&parked->cond);
    }
    if (!client->leading) {
        return;
    }
    /* The leader may be about to sleep: so it looks at wake_ups once more when it has said so. */
    __atomic_store_n(&client->wake_ups, client->wake_ups + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &client->header->client_waits, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void aiod_lose_session(struct aiod_client *client)
{
    if (client->ended != 0 || client->away) {
        return;
    }
    if (client->resume != NULL) {
        aiod_resume_lost(client);
    } else {
        aiod_end_session(client, ECONNRESET);
    }
}

static void put_entry(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_ring_sqe *sqe = &client->sqes[client->sq_tail++ & (client->entries - 1)];

    *sqe = (struct aiod_ring_sqe){
        .cookie = op->cookie,
        .op = op->op,
        .flags = op->flags,
        .handle = op->handle,
        .offset = op->offset,
        .length = op->length,
        .buffer = op->buffer == NULL ? 0 : aiod_offset_of(client, op->buffer),
        .source_offset = op->source_offset,
        .source = op->source,
        .deadline_ms = op->deadline_ms,
    };
    op->sent = true;
    if (client->resume != NULL) {
        aiod_resume_put(client, op, sqe);
    }
}

/* Tell the engine of what was put, if it sleeps. */
static void publish(struct aiod_client *client)
{
    uint64_t one = 1;

    __atomic_store_n(&client->header->sq_tail, client->sq_tail, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&client->header->engine_sleeps, __ATOMIC_SEQ_CST) != 0) {
        (void)!write(client->doorbell, &one, sizeof(one));
    }
}

/* Those that are to be submitted again; cancels last, so that they find what they are for. */
static void put_again(struct aiod_client *client, bool cancels)
{
    for (uint32_t place = 0; place < client->entries; place++) {
        struct aiod_op *op = client->places[place];

        if (op != NULL && !op->sent && (op->op == AIOD_RING_CANCEL) == cancels) {
            put_entry(client, op);
        }
    }
}

void aiod_submit_again(struct aiod_client *client)
{
    put_again(client, false);
    put_again(client, true);
    publish(client);
}

int aiod_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count)
{
    unsigned submitted = 0;
    int ended;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    if (client->resume != NULL) { /* or a write would be in doubt that an engine long dead has never seen */
        aiod_resume_look(client);
    }
    ended = client->ended;
    if (ended == 0 && client->inflight + count > client->entries) {
        aiod_drain(client);
    }
    while (ended == 0 && submitted < count && client->inflight < client->entries) {
        struct aiod_op *op = ops[submitted++];

        uint32_t place = client->free_places[client->entries - ++client->inflight];

        op->cookie = client->next_number++ << 32 | place;
        op->state = op->awaited ? OP_AWAITED : OP_INFLIGHT;
        client->places[place] = op;
        op->sent = false;
        if (!client->away) {
            put_entry(client, op);
        }
    }
    if (submitted > 0 && !client->away) {
        publish(client);
    }
    pthread_mutex_unlock(&client->lock);
    return ended != 0 ? aiod_fail(-ended, "the session has ended: %s", aiod_why(client)) : (int)submitted;
}

unsigned aiod_reap(struct aiod_client *client, struct aiod_op **done, unsigned max)
{
    unsigned count = 0;

    if (aiod_forked(client)) {
        return 0;
    }
    pthread_mutex_lock(&client->lock);
    aiod_drain(client);
    if (client->done == NULL && client->resume != NULL) {
        aiod_resume_tick(client);
    }
    while (count < max && client->done != NULL) {
        done[count] = client->done;
        client->done->listed = false;
        client->done = client->done->next;
        count++;
    }
    if (client->done == NULL) {
        client->done_tail = &client->done;
    }
    pthread_mutex_unlock(&client->lock);
    return count;
}

bool aiod_done(const struct aiod_op *op)
{
    return __atomic_load_n(&op->state, __ATOMIC_ACQUIRE) == OP_DONE;
}

/* ---- waiting -------------------------------------------------------------------------------------------------------- */

static uint32_t cq_tail_of(const struct aiod_client *client)
{
    return __atomic_load_n(&client->header->cq_tail, __ATOMIC_ACQUIRE);
}

static bool look_on(const struct aiod_client *client, uint32_t seen, uint64_t until_ns)
{
    do {
        for (unsigned i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (cq_tail_of(client) != seen) {
                return true;
            }
            pause_a_little();
        }
        if (until_ns != 0) {
            sched_yield();
        }
    } while (aiod_clock_ns() < until_ns);
    return false;
}

/* Sleep until cq_tail is not `seen`, aiod_wake_all(), or for so long. True: the engine was not heard of. */
static bool sleep_on_memory(struct aiod_client *client, uint32_t seen, uint32_t wake_ups, uint64_t sleep_ns)
{
    struct timespec timeout = {.tv_sec = (time_t)(sleep_ns / 1000000000u), .tv_nsec = (long)(sleep_ns % 1000000000u)};

    __atomic_store_n(&client->header->client_waits, AIOD_RING_WAITS_FUTEX, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&client->header->cq_tail, __ATOMIC_SEQ_CST) == seen &&
        __atomic_load_n(&client->wake_ups, __ATOMIC_SEQ_CST) == wake_ups) {
        syscall(SYS_futex, &client->header->client_waits, FUTEX_WAIT, AIOD_RING_WAITS_FUTEX, &timeout, NULL, 0);
    }
    __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED);
    return cq_tail_of(client) == seen;
}

/*
 * While the engine's poller sleeps, requests are with its workers: they complete when a disk does, and need the CPU that
 * looking on would take.
 */
static bool engine_is_awake(const struct aiod_client *client)
{
    return __atomic_load_n(&client->header->engine_sleeps, __ATOMIC_RELAXED) == 0;
}

void aiod_begin_leading(struct aiod_client *client)
{
    aiod_loop_yield_word(client);
    client->leading = true;
}

void aiod_end_leading(struct aiod_client *client)
{
    client->leading = false;
    aiod_loop_take_word(client);
}

/* Look for a completion, at most until `deadline_ns`. Lock held on entry and return, not meanwhile. */
static void lead(struct aiod_client *client, uint64_t deadline_ns)
{
    uint32_t seen = client->cq_head;
    uint32_t wake_ups = client->wake_ups;
    uint64_t look_ns = engine_is_awake(client) && aiod_may_look(client) ? aiod_look_begin(&client->looking) : 0;
    uint64_t started_ns;
    bool found = false;
    bool unheard = false;

    aiod_begin_leading(client);
    pthread_mutex_unlock(&client->lock);
    started_ns = aiod_clock_ns();
    found = look_ns > 0 && look_on(client, seen, started_ns + look_ns);
    if (!found) {
        uint64_t left_ns = deadline_ns > started_ns ? deadline_ns - started_ns : 0;

        unheard = sleep_on_memory(client, seen, wake_ups, left_ns < CHECK_NS ? left_ns : CHECK_NS);
    }
    pthread_mutex_lock(&client->lock);
    aiod_end_leading(client);
    aiod_look_end(&client->looking, look_ns, found, aiod_clock_ns() - started_ns);
    if (unheard) {
        aiod_receive(client);
    }
}

/* Be woken by a leader, or to lead. Lock held on entry and return, not meanwhile. */
static void park(struct aiod_client *client, struct aiod_op *op, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                             .tv_nsec = (long)(deadline_ns % 1000000000u)};
    struct parked parked = {.op = op, .next = client->parked};
    struct parked **link = &client->parked;
    int error = 0;

    pthread_cond_init(&parked.cond, NULL);
    client->parked = &parked;
    while (!parked.woken && error == 0) {
        error = pthread_cond_clockwait(&parked.cond, &client->lock, CLOCK_MONOTONIC, &until);
    }
    while (*link != &parked) {
        link = &(*link)->next;
    }
    *link = parked.next;
    pthread_cond_destroy(&parked.cond);
}

void aiod_let_lead(struct aiod_client *client)
{
    if (!client->leading && client->parked != NULL) {
        client->parked->woken = true;
        pthread_cond_signal(&client->parked->cond);
    }
}

/* `op` (NULL: anything more than `seen`) is done. */
static bool is_there(const struct aiod_client *client, const struct aiod_op *op, uint64_t seen)
{
    return op != NULL ? op->state == OP_DONE : client->done_count != seen || client->ended != 0;
}

/* Sleep once, for `op` (NULL: for anything), and take what is there. Lock held on entry and return. */
static void wait_once(struct aiod_client *client, struct aiod_op *op, uint64_t deadline_ns)
{
    if (client->leading) {
        park(client, op, deadline_ns);
    } else if (client->away) {
        aiod_resume_step(client, deadline_ns);
    } else {
        lead(client, deadline_ns);
    }
    aiod_drain(client);
}

/* Until `op` is done (NULL: until anything more than `seen` is). Lock held on entry and return. */
static int wait_for(struct aiod_client *client, struct aiod_op *op, uint64_t seen, int64_t timeout_ns)
{
    uint64_t deadline_ns = timeout_ns < 0 ? (uint64_t)INT64_MAX : aiod_clock_ns() + (uint64_t)timeout_ns;

    aiod_drain(client);
    while (!is_there(client, op, seen) && (timeout_ns < 0 || aiod_clock_ns() < deadline_ns)) {
        wait_once(client, op, deadline_ns);
    }
    aiod_let_lead(client);
    return is_there(client, op, seen) ? 0 : -ETIMEDOUT;
}

int aiod_wait_any(struct aiod_client *client, int64_t timeout_ns)
{
    int error = 0;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    aiod_drain(client);
    while (client->done == NULL && client->ended == 0 && error == 0) {
        error = wait_for(client, NULL, client->done_count, timeout_ns);
    }
    if (error == 0 && client->done == NULL) {
        error = -client->ended;
    }
    pthread_mutex_unlock(&client->lock);
    return error;
}

uint64_t aiod_room_count(const struct aiod_client *client)
{
    return __atomic_load_n(&client->room_count, __ATOMIC_ACQUIRE);
}

/* What has not ended gives its place back, or its buffer; and so does a blocking call that is copying. */
static bool may_get_room(const struct aiod_client *client)
{
    return client->inflight > 0 || client->borrowed > 0;
}

/* Until there may be room. Lock held on entry and return. */
static int wait_for_room(struct aiod_client *client, uint64_t seen, uint64_t deadline_ns)
{
    aiod_drain(client);
    while (client->room_count == seen && client->ended == 0) {
        if (!may_get_room(client)) {
            return aiod_fail(-ENOBUFS, "the ring's buffer area is used up: give buffers back, or attach with more "
                                       "area_bytes");
        }
        if (aiod_clock_ns() >= deadline_ns) {
            return aiod_fail(-ETIMEDOUT, "no room in the ring in time: not executed");
        }
        wait_once(client, NULL, deadline_ns);
    }
    return 0;
}

int aiod_wait_for_room(struct aiod_client *client, uint64_t seen, uint64_t deadline_ns)
{
    int error;

    pthread_mutex_lock(&client->lock);
    client->room_waiters++;
    error = wait_for_room(client, seen, deadline_ns);
    client->room_waiters--;
    aiod_let_lead(client);
    pthread_mutex_unlock(&client->lock);
    return error;
}

uint64_t aiod_done_count(struct aiod_client *client)
{
    uint64_t count;

    if (aiod_forked(client)) {
        return 0;
    }
    pthread_mutex_lock(&client->lock);
    count = client->done_count;
    pthread_mutex_unlock(&client->lock);
    return count;
}

int aiod_wait_count(struct aiod_client *client, uint64_t seen, int64_t timeout_ns)
{
    int error;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    error = wait_for(client, NULL, seen, timeout_ns);
    pthread_mutex_unlock(&client->lock);
    return error;
}

/* Take it off what is to be reaped, if it is there. Lock held. */
static void take_done(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_op **link = &client->done;

    if (!op->listed) {
        return;
    }
    op->listed = false;
    while (*link != op) {
        link = &(*link)->next;
    }
    *link = op->next;
    if (*link == NULL) {
        client->done_tail = link;
    }
}

int aiod_wait(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns)
{
    int error;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    if (op->state == OP_DONE) {
        take_done(client, op);
        pthread_mutex_unlock(&client->lock);
        return 0;
    }
    op->state = OP_AWAITED;
    error = wait_for(client, op, 0, timeout_ns);
    if (error != 0 && !op->awaited) {
        op->state = OP_INFLIGHT;
    }
    pthread_mutex_unlock(&client->lock);
    return error;
}

void aiod_await_no_more(struct aiod_client *client, struct aiod_op *op)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    op->awaited = false;
    if (op->state == OP_DONE) {
        put_done(client, op);
    } else {
        op->state = OP_INFLIGHT;
    }
    pthread_mutex_unlock(&client->lock);
}

int aiod_look_for(struct aiod_client *client, struct aiod_op *op, unsigned looks)
{
    if (aiod_forked(client) || !engine_is_awake(client) || !aiod_may_look(client)) {
        return -EAGAIN;
    }
    while (looks-- > 0) {
        if (aiod_done(op) || cq_tail_of(client) != __atomic_load_n(&client->cq_head, __ATOMIC_RELAXED)) {
            bool done;

            pthread_mutex_lock(&client->lock);
            aiod_drain(client);
            done = op->state == OP_DONE;
            if (done) {
                take_done(client, op);
            }
            pthread_mutex_unlock(&client->lock);
            if (done) {
                return 1;
            }
        }
        pause_a_little();
    }
    return 0;
}

void aiod_abandon(struct aiod_client *client, struct aiod_op *op)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    if (op->state == OP_DONE) {
        take_done(client, op);
        free_op(client, op);
    } else {
        op->state = OP_ABANDONED;
    }
    pthread_mutex_unlock(&client->lock);
}

int aiod_cancel(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns)
{
    struct aiod_op *cancel = calloc(1, sizeof(*cancel));
    int result;

    if (cancel == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    cancel->op = AIOD_RING_CANCEL;
    cancel->offset = op->cookie;
    cancel->awaited = true; /* or another thread may reap it first */
    result = aiod_submit(client, &cancel, 1);
    if (result <= 0) {
        free(cancel);
        return result < 0 ? result : aiod_fail(-EAGAIN, "no room in the ring to ask for the cancel");
    }
    if (aiod_wait(client, cancel, timeout_ns) < 0) {
        aiod_abandon(client, cancel);
        return aiod_fail(-ETIMEDOUT, "the engine has not said in time whether the request is cancelled");
    }
    result = (int)cancel->result;
    free(cancel);
    return result < 0 ? aiod_fail(result, "the session has ended") : result;
}
