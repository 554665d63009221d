#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define IDLE_S 10

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queued = PTHREAD_COND_INITIALIZER;
/* All of it under the lock. */
static struct pool_read *first;
static struct pool_read **last = &first;
static int threads;
static int idle; /* they wait for a request */

static atomic_uint done;

/* The next request; NULL if the thread was idle for too long. With the lock. */
static struct pool_read *next_read(void)
{
    struct timespec until;
    struct pool_read *read;
    int error = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += IDLE_S;
    while (first == NULL && error != ETIMEDOUT) {
        idle++;
        error = pthread_cond_timedwait(&queued, &lock, &until);
        idle--;
    }
    read = first;
    if (read != NULL) {
        first = read->next;
        if (first == NULL) {
            last = &first;
        }
    }
    return read;
}

static void *worker(void *unused)
{
    struct pool_read *read;

    pthread_mutex_lock(&lock);
    while ((read = next_read()) != NULL) {
        pthread_mutex_unlock(&lock);
        read->result = pread(read->fd, read->buffer, read->bytes, read->offset);
        atomic_fetch_add(&done, 1);
        pthread_mutex_lock(&lock);
    }
    threads--;
    pthread_mutex_unlock(&lock);
    return unused;
}

static void create_worker(void)
{
    pthread_t thread;

    threads++;
    if (pthread_create(&thread, NULL, worker, NULL) != 0) {
        abort();
    }
    pthread_detach(thread);
}

void pool_submit(struct pool_read *read)
{
    read->next = NULL;
    pthread_mutex_lock(&lock);
    if (idle == 0 && threads < THREADS_MAX) {
        create_worker();
    }
    *last = read;
    last = &read->next;
    pthread_mutex_unlock(&lock);
    pthread_cond_signal(&queued);
}

unsigned pool_done(void)
{
    return atomic_load(&done);
}
