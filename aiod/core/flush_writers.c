#include "flush_writers.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "worker_io.h"

void aiod_flush_writers_init(struct aiod_flush_writers *writers)
{
    *writers = (struct aiod_flush_writers){0};
    pthread_mutex_init(&writers->lock, NULL);
}

void aiod_flush_writers_destroy(struct aiod_flush_writers *writers)
{
    pthread_mutex_destroy(&writers->lock);
}

void aiod_writer_enter(struct aiod_flush_writers *writers, struct aiod_writer *writer, int fd)
{
    *writer = (struct aiod_writer){.fd = fd, .entered = true};
    pthread_mutex_lock(&writers->lock);
    writer->round = writers->round;
    writer->next = writers->first;
    writers->first = writer;
    pthread_mutex_unlock(&writers->lock);
}

void aiod_writer_leave(struct aiod_flush_writers *writers, struct aiod_writer *writer)
{
    struct aiod_writer **link = &writers->first;

    if (!writer->entered) {
        return;
    }
    pthread_mutex_lock(&writers->lock);
    while (*link != writer) {
        link = &(*link)->next;
    }
    *link = writer->next;
    pthread_mutex_unlock(&writers->lock);
}

void aiod_writer_note(struct aiod_writer *writer)
{
    if (writer->entered) {
        __atomic_store_n(&writer->changed, true, __ATOMIC_RELEASE);
    }
}

bool aiod_writer_has_changes(const struct aiod_writer *writer)
{
    return __atomic_load_n(&writer->changed, __ATOMIC_ACQUIRE);
}

/*
 * The next one that has changed the file, as a descriptor of the caller's own, since the handle may be closed meanwhile: a
 * duplicate is the same open file to the server. -1: there is none; else -errno.
 */
static int take_next(struct aiod_flush_writers *writers, bool *found)
{
    int fd = -1;

    *found = false;
    pthread_mutex_lock(&writers->lock);
    for (struct aiod_writer *writer = writers->first; writer != NULL && !*found; writer = writer->next) {
        if (writer->round == writers->round) {
            continue;
        }
        writer->round = writers->round;
        if (__atomic_exchange_n(&writer->changed, false, __ATOMIC_ACQ_REL)) {
            *found = true;
            fd = fcntl(writer->fd, F_DUPFD_CLOEXEC, 0);
            if (fd < 0) {
                fd = -errno;
                __atomic_store_n(&writer->changed, true, __ATOMIC_RELEASE);
            }
        }
    }
    pthread_mutex_unlock(&writers->lock);
    return fd;
}

static void begin_round(struct aiod_flush_writers *writers)
{
    pthread_mutex_lock(&writers->lock);
    writers->round++;
    pthread_mutex_unlock(&writers->lock);
}

static int64_t sync_and_close(int fd)
{
    int64_t result = aiod_io_flush(fd);

    close(fd);
    return result;
}

int64_t aiod_flush_writers_sync(struct aiod_flush_writers *writers, int fd)
{
    bool found;
    bool any = false;
    int64_t first = 0;

    begin_round(writers);
    for (int next = take_next(writers, &found); found; next = take_next(writers, &found)) {
        int64_t result = next < 0 ? next : sync_and_close(next);

        any = true;
        first = first < 0 ? first : result;
    }
    if (fd >= 0 && (!any || writers->inherited)) {
        int64_t result = aiod_io_flush(fd);

        first = first < 0 ? first : result;
        writers->inherited = false;
    }
    return first;
}
