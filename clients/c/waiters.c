/*
 * waiters.c - leader and followers: of the threads that wait, one (the leader) watches the ring's memory, and the
 * others are parked. The leader wakes those whose requests are done; a thread that stops waiting wakes a parked one
 * to lead.
 */
#include "waiters.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"

struct aiod_parked {
    const struct aiod_op *op; /* NULL: any request */
    pthread_cond_t cond;
    bool woken;
    struct aiod_parked *next;
};

static void wake(struct aiod_parked *parked)
{
    parked->woken = true;
    pthread_cond_signal(&parked->cond);
}

void aiod_waiters_park(struct aiod_client *client, const struct aiod_op *op, uint64_t deadline_ns)
{
    struct timespec until = aiod_timespec(deadline_ns);
    struct aiod_parked parked = {.op = op, .next = client->waiters.parked};
    struct aiod_parked **link = &client->waiters.parked;
    int error = 0;

    pthread_cond_init(&parked.cond, NULL);
    client->waiters.parked = &parked;
    while (!parked.woken && error == 0) {
        error = pthread_cond_clockwait(&parked.cond, &client->lock, CLOCK_MONOTONIC, &until);
    }
    while (*link != &parked) {
        link = &(*link)->next;
    }
    *link = parked.next;
    pthread_cond_destroy(&parked.cond);
}

void aiod_waiters_wake_for(const struct aiod_client *client, const struct aiod_op *op)
{
    for (struct aiod_parked *parked = client->waiters.parked; parked != NULL; parked = parked->next) {
        if (parked->op == op || parked->op == NULL) {
            wake(parked);
        }
    }
}

void aiod_waiters_wake_all(struct aiod_client *client)
{
    for (struct aiod_parked *parked = client->waiters.parked; parked != NULL; parked = parked->next) {
        wake(parked);
    }
    if (!client->waiters.leading) {
        return;
    }
    /* The leader may be about to sleep: it reads wake_ups again after it has set client_waits. */
    __atomic_store_n(&client->waiters.wake_ups, client->waiters.wake_ups + 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&client->header->client_waits, AIOD_RING_AWAKE, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &client->header->client_waits, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void aiod_waiters_choose_leader(const struct aiod_client *client)
{
    if (!client->waiters.leading && client->waiters.parked != NULL) {
        wake(client->waiters.parked);
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
