/*
 * affinity.c - makes living workers follow the main thread's CPU affinity.
 *
 * A thread id may belong to another thread as soon as its thread has ended. The worker is therefore marked as moving
 * before its thread id is used, and a marked worker does not exit (aiod_affinity_wait_settled()). The system calls are
 * made without the pool's lock.
 */
#include "pool/pool_state.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

/* Room for 8192 CPUs, the maximum of a Linux kernel. */
struct mask {
    unsigned char bytes[1024];
};

/* Read the affinity of `tid` (0: the calling thread). 0, or -errno. */
static int get_mask(pid_t tid, struct mask *mask)
{
    *mask = (struct mask){0};
    return sched_getaffinity(tid, sizeof(*mask), (cpu_set_t *)(void *)mask) == 0 ? 0 : -errno;
}

/* 1: changed; 0: it had this affinity already; or -errno. */
static int move(pid_t tid, const struct mask *wanted)
{
    struct mask mask;
    int error = get_mask(tid, &mask);

    if (error != 0 || memcmp(&mask, wanted, sizeof(mask)) == 0) {
        return error;
    }
    return sched_setaffinity(tid, sizeof(*wanted), (const cpu_set_t *)(const void *)wanted) == 0 ? 1 : -errno;
}

int aiod_pool_follow_affinity(struct aiod_pool *pool)
{
    struct mask wanted;
    struct aiod_worker *worker;
    int error = get_mask(0, &wanted);
    int moved = 0;

    if (error != 0) {
        return error;
    }
    pthread_mutex_lock(&pool->lock);
    for (size_t from = 0; (worker = aiod_worker_slots_next(pool, from)) != NULL;
         from = (size_t)(worker - pool->workers) + 1) {
        pid_t tid = worker->tid;
        int result;

        if (tid == 0) {
            continue;
        }
        pool->moving = worker;
        pthread_mutex_unlock(&pool->lock);
        result = move(tid, &wanted);
        pthread_mutex_lock(&pool->lock);
        pool->moving = NULL;
        pthread_cond_broadcast(&pool->moved);
        if (result < 0) {
            error = result;
        } else {
            moved += result;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return error != 0 ? error : moved;
}

int aiod_affinity_follow(pid_t tid)
{
    struct mask wanted;
    int error = get_mask(0, &wanted);

    return error != 0 ? error : move(tid, &wanted);
}

void aiod_affinity_wait_settled(struct aiod_pool *pool, const struct aiod_worker *worker)
{
    while (pool->moving == worker) {
        pthread_cond_wait(&pool->moved, &pool->lock);
    }
}
