#include "flush.h"

#include <errno.h>

#include "worker_io.h"

void aiod_flushes_init(struct aiod_flushes *flushes)
{
    *flushes = (struct aiod_flushes){.running = false};
    pthread_mutex_init(&flushes->lock, NULL);
    pthread_cond_init(&flushes->turn, NULL);
}

void aiod_flushes_destroy(struct aiod_flushes *flushes)
{
    pthread_cond_destroy(&flushes->turn);
    pthread_mutex_destroy(&flushes->lock);
}

/* Do it for all who have asked so far. Lock held on entry and return, not meanwhile. */
static int64_t take_turn(struct aiod_flushes *flushes, struct aiod_file *file, int fd)
{
    uint64_t asked = flushes->asked;
    int64_t result;

    flushes->running = true;
    pthread_mutex_unlock(&flushes->lock);
    result = aiod_io_flush(fd);
    pthread_mutex_lock(&flushes->lock);
    flushes->running = false;
    if (result < 0) {
        aiod_file_poison(file);
    } else {
        flushes->covered = asked;
    }
    pthread_cond_broadcast(&flushes->turn);
    return result;
}

int64_t aiod_flush(struct aiod_flushes *flushes, struct aiod_file *file, int fd, enum aiod_reason *reason)
{
    uint64_t mine;
    int64_t result = 0;

    pthread_mutex_lock(&flushes->lock);
    mine = ++flushes->asked;
    while (flushes->running && flushes->covered < mine) {
        pthread_cond_wait(&flushes->turn, &flushes->lock);
    }
    if (aiod_file_poisoned(file)) {
        *reason = AIOD_REASON_POISONED;
        result = -EIO;
    } else if (flushes->covered < mine) {
        result = take_turn(flushes, file, fd);
    }
    pthread_mutex_unlock(&flushes->lock);
    return result;
}
