/*
 * open_files.h - the caller's handles of a client that continues with another engine (open_files.c). The client's
 * lock is held, unless a function says otherwise.
 */
#ifndef LIBAIOD_OPEN_FILES_H
#define LIBAIOD_OPEN_FILES_H

#include "aiod.h"
#include "held_locks.h"

/* A file that the caller has open: its handle keeps its number from engine to engine. */
struct aiod_open_file {
    char *path; /* NULL: a free slot */
    uint32_t generation;
    unsigned flags; /* of its OPEN, without those that apply to the first OPEN only */
    struct aiod_ring_file identity;
    uint32_t engine_handle; /* the engine's number; 0: the engine could not open the file again */
    int lost;               /* why it could not, as a negative errno; 0: it could */
    uint32_t next_handle;   /* the same of the engine that is being attached to; protected by socket_lock */
    int next_lost;
    uint64_t changes; /* acknowledged so far */
    uint64_t flushed; /* how many of them an acknowledged flush has covered */
    bool by_ring;     /* the ring has opened it, and may be able to close it */
    bool in_doubt; /* its session ended with unflushed changes, no flush has reported that so far, and no engine will */
    struct aiod_held_locks locks;
};

/*
 * While no engine is connected no file is added or removed: the thread that holds socket_lock reads without the
 * lock.
 */
struct aiod_open_files {
    struct aiod_open_file *slots;
    uint32_t slot_count;
};

void aiod_open_files_destroy(struct aiod_open_files *files);

/* Returns a handle for the file that was opened, or -ENOMEM. */
int64_t aiod_open_files_add(struct aiod_open_files *files, const char *path, unsigned flags,
                            const struct aiod_ring_file *identity, uint32_t engine_handle);

/* False: there is no such handle. */
bool aiod_open_files_remove(struct aiod_open_files *files, uint32_t handle);

/* NULL: there is no such handle. */
struct aiod_open_file *aiod_open_files_find(const struct aiod_open_files *files, uint32_t handle);

/* The engine's number of `handle`; 0: none. */
uint32_t aiod_open_files_engine_handle(const struct aiod_open_files *files, uint32_t handle);

/* The engine has flushed all files, and has ended. */
void aiod_open_files_flushed(struct aiod_open_files *files);

/* Are there acknowledged changes that may be lost without a report? */
bool aiod_open_files_changed(const struct aiod_open_file *file);

/*
 * Another engine has taken over: next_handle and next_lost apply from now on. `resumed`: it knows of the changes, and
 * fails a flush if they may be lost.
 */
void aiod_open_files_commit(struct aiod_open_files *files, bool resumed);

#endif
