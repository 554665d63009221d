/* QEMU before the patch: the submitter creates the threads, with the lock held. They inherit its affinity. */
#include "pool/pool_state.h"

bool backlog_only(struct aiod_pool *pool);

#define aiod_spawner_add_backlog backlog_only
#include "pool/spawner.c"
#undef aiod_spawner_add_backlog

#include <stdlib.h>

#include "policy.h"

bool aiod_spawner_add_backlog(struct aiod_pool *pool)
{
    backlog_only(pool);
    while (pool->new_threads > 0) {
        if (create_thread(pool, begin_creation(pool, NULL)) != 0) {
            abort(); /* as QEMU did */
        }
    }
    return false;
}

#ifdef SNAPSHOT
/* The alternative that the review proposed: each new thread gets the process's affinity at its start. */
void policy_prepare(struct aiod_pool *pool)
{
    cpu_set_t mask;

    if (sched_getaffinity(0, sizeof(mask), &mask) != 0 ||
        pthread_attr_setaffinity_np(&pool->thread_attr, sizeof(mask), &mask) != 0) {
        abort();
    }
}
#else
void policy_prepare(struct aiod_pool *pool)
{
    (void)pool;
}
#endif

int policy_doorbell_fd(const struct aiod_pool *pool)
{
    return pool->doorbell_fd;
}
