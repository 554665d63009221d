/* apart.c - the sleep of a follower beside a bound worker (apart.h). */
#include "ring/apart.h"

#include <assert.h>
#include <poll.h>
#include <unistd.h>

#include "util/os.h"

static_assert(AIOD_POLLING_MAX == 2, "beside a bound worker there is one follower");

int aiod_apart_init(struct aiod_apart *apart)
{
    apart->event_fd = aiod_eventfd_create();
    return apart->event_fd < 0 ? apart->event_fd : 0;
}

void aiod_apart_destroy(struct aiod_apart *apart)
{
    if (apart->event_fd >= 0) {
        close(apart->event_fd);
    }
}

void aiod_apart_begin_to_poll(struct aiod_apart *apart)
{
    atomic_fetch_add(&apart->polling, 1);
}

void aiod_apart_cease_to_poll(struct aiod_apart *apart)
{
    atomic_fetch_sub(&apart->polling, 1);
    aiod_apart_wake(apart);
}

bool aiod_apart_sleep(struct aiod_apart *apart, const struct aiod_pool *pool)
{
    struct pollfd woken = {.fd = apart->event_fd, .events = POLLIN};

    if (!aiod_pool_other_is_bound(pool)) {
        return false;
    }
    atomic_store(&apart->sleeps, true);
    atomic_thread_fence(memory_order_seq_cst); /* before it is looked whether there is a recall */
    if (atomic_load(&apart->polling) > 1 && !aiod_pool_recalls(pool)) {
        poll(&woken, 1, -1);
    }
    atomic_store(&apart->sleeps, false);
    aiod_eventfd_clear(apart->event_fd);
    return true;
}

bool aiod_apart_wake(struct aiod_apart *apart)
{
    bool sleeps;

    atomic_thread_fence(memory_order_seq_cst); /* after the recall */
    sleeps = atomic_load(&apart->sleeps);
    if (sleeps) {
        aiod_eventfd_ring(apart->event_fd);
    }
    return sleeps;
}
