/*
 * flush_writers.h - on FUSE a flush goes by every descriptor that was written through.
 *
 * A FUSE server may keep what was written in the open file that it was written by, and store it at that file's own FSYNC or
 * FLUSH: a sync by another descriptor of the same file does not reach it. So a list has the handles that have changed the file,
 * and a flush syncs those; if there are none, the file's own descriptor for flushes (flush.h). That one is asked once in any
 * case if it is of an engine before this one, which may have left an error. A handle that has changed the file is flushed
 * before it is closed, if others of the file stay open (core.c).
 */
#ifndef AIOD_FLUSH_WRITERS_H
#define AIOD_FLUSH_WRITERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A handle that can write. */
struct aiod_flush_writer {
    int fd;
    bool entered; /* constant while requests are in flight */

    /* Protected by the list's lock. */
    bool listed;    /* it has changed the file since its last sync */
    uint64_t round; /* of the flush that was the last one when it was put there */
    struct aiod_flush_writer *next;
    struct aiod_flush_writer *previous;
};

struct aiod_flush_writers {
    bool inherited; /* the file's own descriptor is of an engine before, and was not synced yet; of whoever syncs */
    pthread_mutex_t lock;

    /* Protected by lock. */
    struct aiod_flush_writer *first; /* those that have changed the file, the earliest first */
    struct aiod_flush_writer *last;
    uint64_t round; /* counts flushes */
};

void aiod_flush_writers_init(struct aiod_flush_writers *writers);
void aiod_flush_writers_destroy(struct aiod_flush_writers *writers);

/* The handle of `fd` may write from now on. Main loop. */
void aiod_flush_writer_add(struct aiod_flush_writer *writer, int fd);

/* It is being closed, and nothing is in flight on it; of one that never entered nothing is done. Main loop; never blocks. */
void aiod_flush_writer_remove(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer);

/* A request of it has changed the file: to be called before the request ends. Any thread. */
void aiod_flush_writer_mark_changed(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer);

/* Has it changed the file since its last sync? Any thread. */
bool aiod_flush_writer_has_changes(struct aiod_flush_writers *writers, const struct aiod_flush_writer *writer);

/*
 * Sync by all that have changed the file, and by `fd` (-1: by nothing) if none has, or if it is inherited. One thread at a time. 0, or the first -errno; the
 * others are synced all the same.
 */
int64_t aiod_flush_writers_sync(struct aiod_flush_writers *writers, int fd);

#endif
