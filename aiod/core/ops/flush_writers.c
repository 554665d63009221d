/* flush_writers.c - the list of descriptors that changed a file on FUSE, in rounds of flushes. */
#include "ops/flush_writers.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>

#include "ops/worker_io.h"

void aiod_flush_writers_init(struct aiod_flush_writers *writers)
{
    *writers = (struct aiod_flush_writers){0};
    pthread_mutex_init(&writers->lock, NULL);
}

void aiod_flush_writers_destroy(struct aiod_flush_writers *writers)
{
    pthread_mutex_destroy(&writers->lock);
}

/* ---- the list; lock held ----------------------------------------------------------------------------------------- */

static void append(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    writer->listed = true;
    writer->round = writers->round;
    writer->next = NULL;
    writer->previous = writers->last;
    *(writers->last != NULL ? &writers->last->next : &writers->first) = writer;
    writers->last = writer;
}

static void unlink_entry(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    *(writer->previous != NULL ? &writer->previous->next : &writers->first) = writer->next;
    *(writer->next != NULL ? &writer->next->previous : &writers->last) = writer->previous;
    writer->listed = false;
}

/* ---- handles ----------------------------------------------------------------------------------------------------- */

void aiod_flush_writer_add(struct aiod_flush_writer *writer, int fd)
{
    *writer = (struct aiod_flush_writer){.fd = fd, .entered = true};
}

void aiod_flush_writer_remove(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    if (!writer->entered) {
        return;
    }
    pthread_mutex_lock(&writers->lock);
    if (writer->listed) {
        unlink_entry(writers, writer);
    }
    pthread_mutex_unlock(&writers->lock);
}

void aiod_flush_writer_mark_changed(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    if (!writer->entered) {
        return;
    }
    pthread_mutex_lock(&writers->lock);
    if (!writer->listed) {
        append(writers, writer);
    }
    pthread_mutex_unlock(&writers->lock);
}

bool aiod_flush_writer_forget(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    bool changed = aiod_flush_writer_has_changes(writers, writer);

    aiod_flush_writer_remove(writers, writer);
    return changed;
}

bool aiod_flush_writer_has_changes(struct aiod_flush_writers *writers, const struct aiod_flush_writer *writer)
{
    bool listed;

    if (!writer->entered) {
        return false;
    }
    pthread_mutex_lock(&writers->lock);
    listed = writer->listed;
    pthread_mutex_unlock(&writers->lock);
    return listed;
}

/* ---- a flush ----------------------------------------------------------------------------------------------------- */

/*
 * Take the writer off the list. Returns a duplicate of its descriptor, because the handle may be closed meanwhile; for
 * the FUSE server it is the same open file. On -errno the writer stays on the list for the next flush. Lock held.
 */
static int take(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer)
{
    int fd = fcntl(writer->fd, F_DUPFD_CLOEXEC, 0);

    unlink_entry(writers, writer);
    if (fd < 0) {
        fd = -errno;
        append(writers, writer);
    }
    return fd;
}

/* Take the next writer that was on the list when the round began. False: there is none. */
static bool take_next(struct aiod_flush_writers *writers, int *fd)
{
    struct aiod_flush_writer *writer;
    bool found;

    pthread_mutex_lock(&writers->lock);
    writer = writers->first;
    found = writer != NULL && writer->round != writers->round;
    if (found) {
        *fd = take(writers, writer);
    }
    pthread_mutex_unlock(&writers->lock);
    return found;
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
    bool any = false;
    int64_t first = 0;
    int next;

    begin_round(writers);
    while (take_next(writers, &next)) {
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
