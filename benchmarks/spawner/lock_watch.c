#include "lock_watch.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

#include "util/os.h"

enum {
    SAMPLES_MAX = 1 << 16
};

static pthread_mutex_t *_Atomic watched;
static uint64_t taken_ns; /* protected by the watched lock */
static uint64_t held_ns[SAMPLES_MAX];
static _Atomic size_t samples;

int __real_pthread_mutex_lock(pthread_mutex_t *lock);
int __real_pthread_mutex_unlock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_lock(pthread_mutex_t *lock);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock);

int __wrap_pthread_mutex_lock(pthread_mutex_t *lock)
{
    int error = __real_pthread_mutex_lock(lock);

    if (lock == watched) {
        taken_ns = aiod_now_ns();
    }
    return error;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *lock)
{
    if (lock == watched && taken_ns != 0) {
        size_t index = samples++;

        if (index < SAMPLES_MAX) {
            held_ns[index] = aiod_now_ns() - taken_ns;
        }
    }
    return __real_pthread_mutex_unlock(lock);
}

void lock_watch_start(pthread_mutex_t *lock)
{
    watched = lock;
}

void lock_watch_print(void)
{
    size_t count = samples < SAMPLES_MAX ? samples : SAMPLES_MAX;

    for (size_t i = 0; i < count; i++) {
        printf("%s%" PRIu64, i > 0 ? ", " : "", held_ns[i]);
    }
}
