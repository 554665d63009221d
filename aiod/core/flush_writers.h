/*
 * flush_writers.h - on FUSE a flush goes by every descriptor that was written through.
 *
 * A FUSE server may keep what was written in the open file that it was written by, and store it at that file's own FSYNC or
 * FLUSH: a sync by another descriptor of the same file does not reach it. So the handles that can write are a list, each
 * says when it has changed the file, and a flush syncs those; if there is none, the file's own descriptor for flushes
 * (flush.h), which is asked once if it is of an engine before this one: that may have left an error. A handle that has changed the file is flushed before it is closed, if others of the file stay open (core.c).
 */
#ifndef AIOD_FLUSH_WRITERS_H
#define AIOD_FLUSH_WRITERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A handle that can write. */
struct aiod_writer {
    int fd;
    bool entered; /* constant while requests are in flight */
    bool changed; /* since its last sync; by atomic operations */

    /* Protected by the list's lock. */
    uint64_t round; /* the last flush that has looked at it */
    struct aiod_writer *next;
};

struct aiod_flush_writers {
    bool inherited; /* the file's own descriptor is of an engine before, and was not synced yet; of whoever syncs */
    pthread_mutex_t lock;

    /* Protected by lock. */
    struct aiod_writer *first;
    uint64_t round;
};

void aiod_flush_writers_init(struct aiod_flush_writers *writers);
void aiod_flush_writers_destroy(struct aiod_flush_writers *writers);

/* The handle of `fd` may write from now on. Main loop. */
void aiod_writer_enter(struct aiod_flush_writers *writers, struct aiod_writer *writer, int fd);

/* It is being closed, and nothing is in flight on it; of one that never entered nothing is done. Main loop; never blocks. */
void aiod_writer_leave(struct aiod_flush_writers *writers, struct aiod_writer *writer);

/* A request of it has changed the file: to be called before the request ends. Any thread. */
void aiod_writer_note(struct aiod_writer *writer);

/* Has it changed the file since its last sync? Any thread. */
bool aiod_writer_has_changes(const struct aiod_writer *writer);

/*
 * Sync by all that have changed the file, and by `fd` (-1: by nothing) if none has, or if it is inherited. One thread at a time. 0, or the first -errno; the
 * others are synced all the same.
 */
int64_t aiod_flush_writers_sync(struct aiod_flush_writers *writers, int fd);

#endif
