/*
 * flush_writers.h - on FUSE, a flush syncs every descriptor that was written through.
 *
 * A FUSE server may keep written data in the open file that was written through, and store it only at that file's own
 * FSYNC or FLUSH. A sync by another descriptor of the same file does not reach this data. The list therefore contains
 * the handles that have changed the file since their last sync, and a flush syncs those; if there are none, it syncs
 * the file's descriptor for flushes (flush.h). A descriptor that was inherited from an earlier engine is synced once in
 * any case, because the earlier engine may have left an error. A handle that has changed the file is flushed before it
 * is closed, if the file has other open handles (core_handles.c).
 *
 * Lock order: `lock` is taken last.
 */
#ifndef AIOD_FLUSH_WRITERS_H
#define AIOD_FLUSH_WRITERS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A handle that can write. */
struct aiod_flush_writer {
    int fd;
    bool entered; /* constant while the handle has requests in flight */

    /* Protected by the list's lock. */
    bool listed;    /* the handle has changed the file since its last sync */
    uint64_t round; /* the number of the last flush when it was added */
    struct aiod_flush_writer *next;
    struct aiod_flush_writer *previous;
};

struct aiod_flush_writers {
    /*
     * `fd` of the flushes was inherited from an earlier engine and not synced yet; used by the thread that has the turn
     */
    bool inherited;
    pthread_mutex_t lock;

    /* Protected by lock. */
    struct aiod_flush_writer *first; /* in the order of the first change */
    struct aiod_flush_writer *last;
    uint64_t round; /* the number of flushes */
};

void aiod_flush_writers_init(struct aiod_flush_writers *writers);
void aiod_flush_writers_destroy(struct aiod_flush_writers *writers);

/* Initialise the writer of a handle with descriptor `fd`. Main loop. */
void aiod_flush_writer_add(struct aiod_flush_writer *writer, int fd);

/*
 * The handle is being closed, without requests in flight. Does nothing if the writer was never initialised. Main loop;
 * does not block.
 */
void aiod_flush_writer_remove(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer);

/* A request of the handle has changed the file. Called before the request ends. Any thread. */
void aiod_flush_writer_mark_changed(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer);

/* Take the handle off the list without a sync. Had it changed the file since its last sync? Any thread. */
bool aiod_flush_writer_forget(struct aiod_flush_writers *writers, struct aiod_flush_writer *writer);

/* Has the handle changed the file since its last sync? Any thread. */
bool aiod_flush_writer_has_changes(struct aiod_flush_writers *writers, const struct aiod_flush_writer *writer);

/*
 * Sync all writers on the list, and `fd` (-1: none) if the list is empty or `fd` was inherited. One thread at a time.
 * 0, or the first -errno; all are synced in any case.
 */
int64_t aiod_flush_writers_sync(struct aiod_flush_writers *writers, int fd);

#endif
