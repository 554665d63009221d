/* Flushes of one handle: of two at once none says yes to what the kernel has reported lost; and those that wait share one. */
#include "check.h"

#include <errno.h>

#include "flush.h"

enum {
    FLUSHERS = 8
};

static struct aiod_files files;
static struct aiod_file *file;
static struct aiod_flushes flushes;

/* ---- a disk that answers when the test lets it ------------------------------------------------------------------------ */

static struct gate disk;
static _Atomic unsigned syncs;
static _Atomic int next_error; /* reported once, as the kernel does */

static int slow_fdatasync(int fd)
{
    (void)fd;
    syncs++;
    gate_pass(&disk);
    errno = atomic_exchange(&next_error, 0);
    return errno != 0 ? -1 : 0;
}

static void with_fresh_file(void)
{
    file = aiod_file_get(&files, 1, 2);
    CHECK(file != NULL);
    aiod_flushes_init(&flushes);
    gate_init(&disk, false);
    syncs = 0;
    next_error = 0;
}

static void drop_file(void)
{
    aiod_flushes_destroy(&flushes);
    aiod_file_put(&files, file);
}

/* ---- who flushes ------------------------------------------------------------------------------------------------------- */

struct flusher {
    pthread_t thread;
    int64_t result;
    enum aiod_reason reason;
};

static void *flush_in_thread(void *argument)
{
    struct flusher *flusher = argument;

    flusher->result = aiod_flush(&flushes, file, 7, &flusher->reason);
    return NULL;
}

static void start(struct flusher *flusher)
{
    *flusher = (struct flusher){.reason = AIOD_REASON_KERNEL};
    CHECK(pthread_create(&flusher->thread, NULL, flush_in_thread, flusher) == 0);
}

static void wait_until_asked(uint64_t count)
{
    uint64_t asked;

    do {
        pthread_mutex_lock(&flushes.lock);
        asked = flushes.asked;
        pthread_mutex_unlock(&flushes.lock);
    } while (asked < count);
}

/* One is at the disk, the others wait behind it. */
static void crowd(struct flusher *flushers)
{
    start(&flushers[0]);
    gate_wait_for(&disk, 1);
    for (size_t i = 1; i < FLUSHERS; i++) {
        start(&flushers[i]);
    }
    wait_until_asked(FLUSHERS);
    gate_open(&disk);
    for (size_t i = 0; i < FLUSHERS; i++) {
        pthread_join(flushers[i].thread, NULL);
    }
}

static void those_that_wait_share_one(void)
{
    struct flusher flushers[FLUSHERS];
    enum aiod_reason reason;

    with_fresh_file();
    crowd(flushers);
    for (size_t i = 0; i < FLUSHERS; i++) {
        CHECK(flushers[i].result == 0);
    }
    CHECK(syncs == 2); /* not the first's: they were asked for after it had begun */
    CHECK(aiod_flush(&flushes, file, 7, &reason) == 0 && syncs == 3);
    drop_file();
}

static void an_error_reaches_all_that_wait(void)
{
    struct flusher flushers[FLUSHERS];

    with_fresh_file();
    next_error = EIO;
    crowd(flushers);
    CHECK(flushers[0].result == -EIO && flushers[0].reason == AIOD_REASON_KERNEL);
    for (size_t i = 1; i < FLUSHERS; i++) {
        CHECK(flushers[i].result == -EIO && flushers[i].reason == AIOD_REASON_POISONED);
    }
    CHECK(syncs == 1);
    drop_file();
}

int main(void)
{
    struct aiod_os os;

    faults_install();
    os = *aiod_os;
    os.fdatasync = slow_fdatasync;
    aiod_os = &os;
    those_that_wait_share_one();
    an_error_reaches_all_that_wait();
    return 0;
}
