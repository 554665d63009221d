/*
 * wait.c - waiting until requests are done.
 */
#include "wait.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "error.h"
#include "forks.h"
#include "resume.h"

#define LOOKS_PER_YIELD 16u
#define CHECK_NS                                                                                                       \
    UINT64_C(100000000) /* how often a sleeper checks whether the engine still runs: a futex does not tell */

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint32_t cq_tail_of(const struct aiod_client *client)
{
    return __atomic_load_n(&client->header->cq_tail, __ATOMIC_ACQUIRE);
}

/*
 * While the engine's poller sleeps, requests are with its workers: they complete when a disk does, and the workers
 * need the CPU that polling would take. So a thread polls only shortly then (client.h, `short_polling`).
 */
static bool engine_is_awake(const struct aiod_client *client)
{
    return __atomic_load_n(&client->header->engine_sleeps, __ATOMIC_RELAXED) == 0;
}

/* ---- polling: the lock is not held ------------------------------------------------------------------------------- */

/* What a thread waits for. */
struct wanted {
    const struct aiod_op *op; /* NULL: that anything changes from here on */
    uint64_t done_count;
    uint64_t room_count;
    uint32_t cq_head;
};

/* True: cq_tail is not `seen` any more. */
static bool look_at_memory(const struct aiod_client *client, uint32_t seen, unsigned looks)
{
    while (cq_tail_of(client) == seen) {
        if (--looks == 0) {
            return false;
        }
        pause_cpu();
    }
    return true;
}

/* Take the completions that have arrived, unless another thread has the lock: that one takes them. */
static void try_to_drain(struct aiod_client *client)
{
    uint32_t taken = __atomic_load_n(&client->queue.cq_head, __ATOMIC_RELAXED);

    if (cq_tail_of(client) != taken && pthread_mutex_trylock(&client->lock) == 0) {
        aiod_queue_drain(client);
        pthread_mutex_unlock(&client->lock);
    }
}

/* True: it has come. */
static bool look_for(struct aiod_client *client, const struct wanted *wanted, unsigned looks)
{
    if (wanted->op == NULL) {
        return look_at_memory(client, wanted->cq_head, looks);
    }
    while (!aiod_done(wanted->op)) {
        try_to_drain(client);
        if (--looks == 0) {
            return aiod_done(wanted->op);
        }
        pause_cpu();
    }
    return true;
}

/* Let other threads on this CPU run. The time after that. */
static uint64_t give_way(struct aiod_poll *poll, uint64_t began_ns)
{
    uint64_t ended_ns;

    sched_yield();
    ended_ns = aiod_clock_ns();
    aiod_poll_gave_way(poll, ended_ns - began_ns);
    return ended_ns;
}

/* Look again and again, with yields in between. True: it has come. */
static bool poll_for(struct aiod_client *client, const struct wanted *wanted, struct aiod_poll *poll, uint64_t began_ns)
{
    unsigned looks = poll->looks;
    bool goes_on = true;

    if (poll->gives_way) {
        began_ns = give_way(poll, began_ns);
    }
    while (goes_on && !look_for(client, wanted, looks)) {
        uint64_t looked_ns = aiod_clock_ns();
        uint64_t own_ns = looked_ns - began_ns;

        sched_yield();
        began_ns = aiod_clock_ns();
        goes_on = aiod_poll_goes_on(poll, own_ns, began_ns - looked_ns);
        /* time passes without spinning while other threads run */
        looks = poll->turns > 0 || poll->way == AIOD_POLL_YIELDING ? 1 : LOOKS_PER_YIELD;
    }
    return look_for(client, wanted, 1);
}

/* ---- the leader -------------------------------------------------------------------------------------------------- */

/* Sleep until cq_tail is not `seen`, aiod_waiters_wake_all(), or for `sleep_ns`. True: cq_tail is still `seen`. */
static bool sleep_on_memory(struct aiod_client *client, uint32_t seen, uint32_t wake_ups, uint64_t sleep_ns)
{
    struct timespec timeout = aiod_timespec(sleep_ns);

    __atomic_store_n(&client->header->client_waits, AIOD_RING_WAITS_FUTEX, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&client->header->cq_tail, __ATOMIC_SEQ_CST) == seen &&
        __atomic_load_n(&client->waiters.wake_ups, __ATOMIC_SEQ_CST) == wake_ups) {
        syscall(SYS_futex, &client->header->client_waits, FUTEX_WAIT, AIOD_RING_WAITS_FUTEX, &timeout, NULL, 0);
    }
    __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_RELAXED);
    return cq_tail_of(client) == seen;
}

/* Sleep until a completion arrives, at most until `deadline_ns`. The lock is held on entry and return, not meanwhile. */
static void lead(struct aiod_client *client, uint64_t deadline_ns)
{
    uint32_t seen = client->queue.cq_head;
    uint32_t wake_ups = client->waiters.wake_ups;
    uint64_t now_ns = aiod_clock_ns();
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    bool nothing;

    aiod_waiters_begin_leading(client);
    pthread_mutex_unlock(&client->lock);
    nothing = sleep_on_memory(client, seen, wake_ups, left_ns < CHECK_NS ? left_ns : CHECK_NS);
    pthread_mutex_lock(&client->lock);
    aiod_waiters_end_leading(client);
    if (nothing) {
        aiod_receive(client);
    }
}

/* ---- waiting: the lock is held, but not meanwhile ---------------------------------------------------------------- */

static bool has_come(const struct aiod_client *client, const struct wanted *wanted)
{
    return wanted->op != NULL ? wanted->op->state == OP_DONE
                              : client->queue.done_count != wanted->done_count ||
                                    client->waiters.room_count != wanted->room_count || client->ended != 0;
}

/* Every thread polls for its own request. A thread that woke others would cost each of them two system calls. */
static bool poll_unlocked(struct aiod_client *client, const struct wanted *wanted, struct aiod_poll *poll,
                          uint64_t now_ns)
{
    bool found;

    if (poll->limit_ns == 0) {
        return false;
    }
    pthread_mutex_unlock(&client->lock);
    found = poll_for(client, wanted, poll, now_ns);
    pthread_mutex_lock(&client->lock);
    return found;
}

/* Lead, for a moment, the threads that wait. */
static void sleep_as_leader(struct aiod_client *client, uint64_t deadline_ns)
{
    if (client->away) {
        aiod_resume_step(client, deadline_ns);
    } else {
        lead(client, deadline_ns);
    }
}

/*
 * Poll for `op` (NULL: for any change), sleep once if that finds nothing, and take the completions that have arrived.
 * False: `op` is done, and the lock is not held.
 */
static bool wait_once(struct aiod_client *client, const struct aiod_op *op, uint64_t deadline_ns)
{
    const struct wanted wanted = {.op = op,
                                  .done_count = client->queue.done_count,
                                  .room_count = client->waiters.room_count,
                                  .cq_head = client->queue.cq_head};
    struct aiod_polling *polling = engine_is_awake(client) ? &client->polling : &client->short_polling;
    enum aiod_polling_way way = client->away ? AIOD_POLL_NOT : aiod_polling_way(client);
    uint64_t began_ns = aiod_clock_ns();
    struct aiod_poll poll = aiod_polling_begin(polling, way, began_ns);
    bool found = poll_unlocked(client, &wanted, &poll, began_ns) || has_come(client, &wanted);
    uint64_t ended_ns;

    if (!found && client->waiters.leading) {
        aiod_polling_end(polling, &poll, false, 0, aiod_clock_ns()); /* 0: nobody will know how long it took */
        if (aiod_waiters_park(client, op, deadline_ns)) {
            return false;
        }
    } else {
        if (!found) {
            sleep_as_leader(client, deadline_ns);
        }
        ended_ns = aiod_clock_ns();
        aiod_polling_end(polling, &poll, found, ended_ns - began_ns, ended_ns);
    }
    aiod_queue_drain(client);
    return true;
}

/* Is `op` done? NULL: is any request done beyond the first `seen`, or has the session ended? */
static bool is_done(const struct aiod_client *client, const struct aiod_op *op, uint64_t seen)
{
    return op != NULL ? op->state == OP_DONE : client->queue.done_count != seen || client->ended != 0;
}

/* As is_done(). *locked: the lock is held; it is not if `op` is done and another thread has seen that. */
static int wait_for(struct aiod_client *client, const struct aiod_op *op, uint64_t seen, int64_t timeout_ns,
                    bool *locked)
{
    uint64_t deadline_ns = timeout_ns < 0 ? AIOD_NEVER : aiod_clock_ns() + (uint64_t)timeout_ns;

    *locked = true;
    aiod_queue_drain(client);
    while (!is_done(client, op, seen) && (timeout_ns < 0 || aiod_clock_ns() < deadline_ns)) {
        *locked = wait_once(client, op, deadline_ns);
        if (!*locked) {
            return 0;
        }
    }
    aiod_waiters_choose_leader(client);
    return is_done(client, op, seen) ? 0 : -ETIMEDOUT;
}

static int wait_for_any(struct aiod_client *client, uint64_t seen, int64_t timeout_ns)
{
    bool locked; /* always */

    return wait_for(client, NULL, seen, timeout_ns, &locked);
}

int aiod_wait_any(struct aiod_client *client, int64_t timeout_ns)
{
    int error = 0;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    aiod_queue_drain(client);
    while (client->queue.done == NULL && client->ended == 0 && error == 0) {
        error = wait_for_any(client, client->queue.done_count, timeout_ns);
    }
    if (error == 0 && client->queue.done == NULL) {
        error = -client->ended;
    }
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
    count = client->queue.done_count;
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
    error = wait_for_any(client, seen, timeout_ns);
    pthread_mutex_unlock(&client->lock);
    return error;
}

int aiod_wait(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns)
{
    bool locked;
    int error;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    if (op->state == OP_DONE) {
        aiod_queue_remove_done(client, op);
        pthread_mutex_unlock(&client->lock);
        return 0;
    }
    op->state = OP_AWAITED;
    error = wait_for(client, op, 0, timeout_ns, &locked);
    if (!locked) {
        return 0;
    }
    if (error != 0 && !op->awaited) {
        op->state = OP_INFLIGHT;
    }
    pthread_mutex_unlock(&client->lock);
    return error;
}

bool aiod_done(const struct aiod_op *op)
{
    return __atomic_load_n(&op->state, __ATOMIC_ACQUIRE) == OP_DONE;
}

/* Take `op` if it is done. */
static bool take(struct aiod_client *client, struct aiod_op *op)
{
    bool done;

    pthread_mutex_lock(&client->lock);
    aiod_queue_drain(client);
    done = op->state == OP_DONE;
    if (done) {
        aiod_queue_remove_done(client, op);
    }
    pthread_mutex_unlock(&client->lock);
    return done;
}

int aiod_look_for(struct aiod_client *client, struct aiod_op *op, unsigned looks)
{
    if (aiod_forked(client) || !engine_is_awake(client) || aiod_polling_way(client) != AIOD_POLL_SPINNING) {
        return -EAGAIN;
    }
    while (looks-- > 0) {
        bool arrived = cq_tail_of(client) != __atomic_load_n(&client->queue.cq_head, __ATOMIC_RELAXED);

        if ((arrived || aiod_done(op)) && take(client, op)) {
            return 1;
        }
        pause_cpu();
    }
    return 0;
}

bool aiod_look(const struct aiod_client *client, unsigned looks)
{
    enum aiod_polling_way way = aiod_forked(client) ? AIOD_POLL_NOT : aiod_polling_way(client);
    uint32_t seen = __atomic_load_n(&client->queue.cq_head, __ATOMIC_RELAXED);

    if (way == AIOD_POLL_NOT || looks == 0) {
        return false;
    }
    if (way == AIOD_POLL_YIELDING) {
        sched_yield();
        looks = 1;
    }
    return look_at_memory(client, seen, looks);
}

bool aiod_engine_sleeps(const struct aiod_client *client)
{
    return aiod_forked(client) || !engine_is_awake(client);
}

/* ---- room -------------------------------------------------------------------------------------------------------- */

uint64_t aiod_room_count(const struct aiod_client *client)
{
    return __atomic_load_n(&client->waiters.room_count, __ATOMIC_ACQUIRE);
}

/*
 * A request in flight releases its slot and its buffer when it is done; a blocking call that copies releases its
 * buffer.
 */
static bool may_get_room(const struct aiod_client *client)
{
    return client->queue.inflight > 0 || client->borrowed > 0;
}

/* The lock is held on entry and return, not meanwhile. */
static int wait_for_room(struct aiod_client *client, uint64_t seen, uint64_t deadline_ns)
{
    aiod_queue_drain(client);
    while (client->waiters.room_count == seen && client->ended == 0) {
        if (!may_get_room(client)) {
            return aiod_fail(
                -ENOBUFS, "the caller's buffers take the whole buffer area: free some, or attach with more area_bytes");
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
    client->waiters.room_waiters++;
    error = wait_for_room(client, seen, deadline_ns);
    client->waiters.room_waiters--;
    aiod_waiters_choose_leader(client);
    pthread_mutex_unlock(&client->lock);
    return error;
}

/* ---- a handle ---------------------------------------------------------------------------------------------------- */

bool aiod_wait_for_handle(struct aiod_client *client, uint32_t handle, uint64_t deadline_ns)
{
    uint64_t before = client->queue.next_number;

    aiod_queue_drain(client);
    while (aiod_queue_uses(client, handle, before) && client->ended == 0 && aiod_clock_ns() < deadline_ns) {
        wait_once(client, NULL, deadline_ns);
    }
    aiod_waiters_choose_leader(client);
    return client->ended != 0 || !aiod_queue_uses(client, handle, before);
}
