/* Waking in the way of creation before the patch: the submitter itself wakes a sleeping worker for every request. */
#include "pool/pool_state.h"

void spread_submit(struct aiod_pool *pool, struct aiod_request *first, size_t count);

#define aiod_pool_submit spread_submit
#include "pool/pool.c"
#undef aiod_pool_submit

void aiod_pool_submit(struct aiod_pool *pool, struct aiod_request *first, size_t count)
{
    struct aiod_worker *chosen[AIOD_THREADS_MAX];
    unsigned wake;
    bool ring;

    pthread_mutex_lock(&pool->lock);
    while (count-- > 0) {
        struct aiod_request *next = first->next;

        aiod_pool_enqueue(pool, first);
        first = next;
    }
    ring = aiod_spawner_add_backlog(pool);
    wake = aiod_pool_choose_sleepers(pool, chosen, AIOD_THREADS_MAX);
    pthread_mutex_unlock(&pool->lock);

    aiod_pool_post_chosen(pool, chosen, wake);
    if (ring) {
        aiod_eventfd_ring(pool->doorbell_fd);
    }
}
