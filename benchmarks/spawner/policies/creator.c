/* One persistent thread creates all the others in a row (as QEMU's thread-context does); newborns create none. */
#define AIOD_SPAWN_FAN_OUT 0
#include "pool/pool_state.h"

bool backlog_for_chain(struct aiod_pool *pool);

#define aiod_spawner_add_backlog backlog_for_chain
#include "pool/spawner.c"
#undef aiod_spawner_add_backlog

#include <poll.h>
#include <stdlib.h>

#include "policy.h"

/* Only the creator looks at the backlog, so ring it whenever a backlog begins. */
bool aiod_spawner_add_backlog(struct aiod_pool *pool)
{
    bool had_backlog = pool->new_threads > 0;

    backlog_for_chain(pool);
    return pool->new_threads > 0 && !had_backlog;
}

static void *create_for_ever(void *argument)
{
    struct aiod_pool *pool = argument;
    struct pollfd doorbell = {.fd = pool->doorbell_fd, .events = POLLIN};

    while (poll(&doorbell, 1, -1) >= 0) {
        aiod_eventfd_clear(pool->doorbell_fd);
        while (aiod_spawner_step(pool, NULL)) {
        }
    }
    return NULL;
}

void policy_prepare(struct aiod_pool *pool)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, create_for_ever, pool) != 0) {
        abort();
    }
}

int policy_doorbell_fd(const struct aiod_pool *pool)
{
    (void)pool;
    return -1;
}
