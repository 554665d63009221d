/*
 * waiters.c - leader and followers: of the threads that sleep, one (the leader) watches the ring's memory, and the
 * others are parked. A thread that takes completions wakes those whose requests are done; a thread that stops waiting
 * wakes a parked one to lead.
 *
 * A parked thread sleeps on a futex of its own. If it is woken because its request is done, it needs nothing else of
 * the client, and does not take the lock, which the thread that has woken it still holds.
 */
#include "waiters.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"

enum why {
    ASLEEP,
    IS_DONE, /* its request */
    LOOK,    /* there may be something to do, such as leading */
};

struct aiod_parked {
    const struct aiod_op *op; /* NULL: any request */
    uint32_t woken;           /* enum why; the futex */
    struct aiod_parked *next;
};

/* The thread may return, and its record be gone, as soon as `woken` is stored. Then FUTEX_WAKE wakes nobody in error. */
static void wake(struct aiod_parked **link, enum why why)
{
    uint32_t *futex = &(*link)->woken;

    *link = (*link)->next;
    __atomic_store_n(futex, why, __ATOMIC_RELEASE);
    syscall(SYS_futex, futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void unlist(struct aiod_client *client, const struct aiod_parked *parked)
{
    struct aiod_parked **link = &client->waiters.parked;

    while (*link != parked) {
        link = &(*link)->next;
    }
    *link = parked->next;
}

/* Until it is woken, or the deadline has come. */
static enum why sleep_parked(struct aiod_parked *parked, uint64_t deadline_ns)
{
    struct timespec until = aiod_timespec(deadline_ns);
    enum why why = ASLEEP;
    int error = 0;

    while (why == ASLEEP && error != ETIMEDOUT) {
        error = syscall(SYS_futex, &parked->woken, FUTEX_WAIT_BITSET_PRIVATE, ASLEEP, &until, NULL,
                        FUTEX_BITSET_MATCH_ANY) < 0
                    ? errno
                    : 0;
        why = __atomic_load_n(&parked->woken, __ATOMIC_ACQUIRE);
    }
    return why;
}

bool aiod_waiters_park(struct aiod_client *client, const struct aiod_op *op, uint64_t deadline_ns)
{
    struct aiod_parked parked = {.op = op, .next = client->waiters.parked};

    client->waiters.parked = &parked;
    pthread_mutex_unlock(&client->lock);
    if (sleep_parked(&parked, deadline_ns) == IS_DONE) {
        return true;
    }
    pthread_mutex_lock(&client->lock);
    if (parked.woken == ASLEEP) {
        unlist(client, &parked);
    }
    return false;
}

void aiod_waiters_wake_for(struct aiod_client *client, const struct aiod_op *op)
{
    struct aiod_parked **link = &client->waiters.parked;

    while (*link != NULL) {
        if ((*link)->op == op) {
            wake(link, IS_DONE);
        } else if ((*link)->op == NULL) {
            wake(link, LOOK);
        } else {
            link = &(*link)->next;
        }
    }
}

void aiod_waiters_wake_all(struct aiod_client *client)
{
    while (client->waiters.parked != NULL) {
        wake(&client->waiters.parked, LOOK);
    }
    if (!client->waiters.leading) {
        return;
    }
    /* The leader may be about to sleep: it reads wake_ups again after it has set client_waits. */
    __atomic_store_n(&client->waiters.wake_ups, client->waiters.wake_ups + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &client->header->client_waits, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void aiod_waiters_choose_leader(struct aiod_client *client)
{
    if (!client->waiters.leading && client->waiters.parked != NULL) {
        wake(&client->waiters.parked, LOOK);
    }
}

void aiod_waiters_begin_leading(struct aiod_client *client)
{
    aiod_loop_yield_client_waits(client);
    client->waiters.leading = true;
}

void aiod_waiters_end_leading(struct aiod_client *client)
{
    client->waiters.leading = false;
    aiod_loop_take_client_waits(client);
}

void aiod_waiters_count_room(struct aiod_client *client)
{
    __atomic_store_n(&client->waiters.room_count, client->waiters.room_count + 1, __ATOMIC_RELEASE);
}
