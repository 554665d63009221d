/* ring_maker.c - a thread with a queue of jobs. */
#include "ring/ring_maker.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "util/os.h"

#define NAME_BYTES 16 /* the kernel's limit for a thread's name */

struct aiod_ring_maker {
    char name[NAME_BYTES];

    /* The main loop's thread. */
    pthread_t thread;
    bool started; /* and not joined yet */

    atomic_int tid;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* signalled when a job is queued, when the thread is to stop, and when it has ended */

    /* Protected by lock. */
    struct aiod_ring_job *first;
    struct aiod_ring_job **tail;
    bool stopping; /* no job is queued any more */
    bool ended;    /* set last, before the thread returns */
};

/* Lock held. */
static struct aiod_ring_job *take(struct aiod_ring_maker *maker)
{
    struct aiod_ring_job *job = maker->first;

    if (job != NULL) {
        maker->first = job->next;
        if (maker->first == NULL) {
            maker->tail = &maker->first;
        }
    }
    return job;
}

static void *run(void *argument)
{
    struct aiod_ring_maker *maker = argument;

    prctl(PR_SET_NAME, maker->name);
    atomic_store(&maker->tid, gettid());
    pthread_mutex_lock(&maker->lock);
    for (;;) {
        struct aiod_ring_job *job = take(maker);

        if (job != NULL) {
            pthread_mutex_unlock(&maker->lock);
            job->run(job);
            pthread_mutex_lock(&maker->lock);
        } else if (maker->stopping) {
            break;
        } else {
            pthread_cond_wait(&maker->changed, &maker->lock);
        }
    }
    maker->ended = true;
    pthread_cond_broadcast(&maker->changed);
    pthread_mutex_unlock(&maker->lock);
    return NULL;
}

/* False: the maker is stopping. */
static bool queue(struct aiod_ring_maker *maker, struct aiod_ring_job *job)
{
    bool queued;

    job->next = NULL;
    pthread_mutex_lock(&maker->lock);
    queued = !maker->stopping;
    if (queued) {
        *maker->tail = job;
        maker->tail = &job->next;
        pthread_cond_broadcast(&maker->changed);
    }
    pthread_mutex_unlock(&maker->lock);
    return queued;
}

int aiod_ring_maker_create(struct aiod_ring_maker **result, const char *name)
{
    struct aiod_ring_maker *maker = calloc(1, sizeof(*maker));
    pthread_condattr_t monotonic;

    if (maker == NULL) {
        return -ENOMEM;
    }
    snprintf(maker->name, sizeof(maker->name), "aiod-m/%s", name);
    maker->tail = &maker->first;
    pthread_mutex_init(&maker->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&maker->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *result = maker;
    return 0;
}

int aiod_ring_maker_submit(struct aiod_ring_maker *maker, struct aiod_ring_job *job)
{
    int error = maker->started ? 0 : aiod_thread_create(&maker->thread, NULL, run, maker);

    if (error != 0) {
        return -error;
    }
    maker->started = true;
    return queue(maker, job) ? 0 : -ESHUTDOWN;
}

void aiod_ring_maker_finish(struct aiod_ring_maker *maker, struct aiod_ring_job *job)
{
    if (!queue(maker, job)) {
        job->run(job);
    }
}

bool aiod_ring_maker_stop(struct aiod_ring_maker *maker, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    bool ended;

    pthread_mutex_lock(&maker->lock);
    maker->stopping = true;
    pthread_cond_broadcast(&maker->changed);
    while (maker->started && !maker->ended && pthread_cond_timedwait(&maker->changed, &maker->lock, &until) == 0) {
    }
    ended = !maker->started || maker->ended;
    pthread_mutex_unlock(&maker->lock);
    if (ended && maker->started) {
        pthread_join(maker->thread, NULL);
        maker->started = false;
    }
    return ended;
}

void aiod_ring_maker_destroy(struct aiod_ring_maker *maker)
{
    pthread_cond_destroy(&maker->changed);
    pthread_mutex_destroy(&maker->lock);
    free(maker);
}

pid_t aiod_ring_maker_tid(struct aiod_ring_maker *maker)
{
    return atomic_load(&maker->tid);
}
