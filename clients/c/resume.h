/*
 * resume.h - what a client keeps in order to go on with another engine: its open files, and areas of engines before.
 */
#ifndef AIOD_RESUME_H
#define AIOD_RESUME_H

#include <sys/types.h>

#include "client.h"

#define AIOD_RETRY_MS 50

/* A handle of the caller's, whose number is kept for as long as it is open. */
struct aiod_open_file {
    char *path; /* NULL: a free slot */
    uint32_t generation;
    unsigned flags; /* of its OPEN, those that have a meaning again */
    struct aiod_ring_file identity;
    uint32_t engine_handle; /* the engine's number; 0: it could not be opened again */
    int lost;               /* why, as a negative errno */
    uint32_t next_handle;   /* socket_lock: what the engine gave that is being attached to */
    int next_lost;
    uint64_t changes; /* acknowledged so far */
    uint64_t flushed; /* how many of them an acknowledged flush has covered */
    bool doubt;       /* an engine has died with changes that no flush covered, and no flush has said so yet */
};

/* An area that was, for as long as the caller has buffers of it. A buffer's place in the area that is remains its own. */
struct aiod_old_area {
    char *base;
    uint64_t taken;
    struct aiod_old_area *next;
};

struct aiod_resume {
    /* Constant. */
    char *path;
    char *directory; /* NULL: as aiod_get_attached() has it */
    char *software;
    struct aiod_options options;
    uint64_t timeout_ns;
    int timer; /* while away, an event loop is woken by it */

    /* Protected by lock; but while away nobody adds or removes, and who holds socket_lock opens them again. */
    struct aiod_open_file *files;
    uint32_t file_count; /* slots */

    /* Protected by lock. */
    uint64_t until_ns; /* while away: gives up then */
    uint64_t next_ns;  /* while away: tries again then */
    uint64_t looked_ns;
    uint64_t *covers; /* by a flush's place: `changes` when it was submitted */
    uint64_t taken;   /* buffers of the area that is */
    struct aiod_old_area *old_areas;
    char said[AIOD_RING_SENTENCE_MAX]; /* by the last attempt */
};

/* ---- open_files.c ---- */

/* A handle for what was opened, or -ENOMEM. Lock held. */
int64_t aiod_files_add(struct aiod_client *client, const char *path, unsigned flags, const struct aiod_ring_file *file,
                       uint32_t engine_handle);

/* False: there is no such handle. Lock held. */
bool aiod_files_remove(struct aiod_client *client, uint32_t handle);

/* The engine's number of it; 0: none. Lock held. */
uint32_t aiod_files_engine_handle(struct aiod_client *client, uint32_t handle);

/* NULL: there is no such handle. Lock held. */
struct aiod_open_file *aiod_files_find(const struct aiod_resume *resume, uint32_t handle);

/* Open all of them at the engine behind `socket`, for aiod_files_commit(). 0, or -errno: it does not go. socket_lock held. */
int aiod_files_reopen(struct aiod_client *client, int socket, uint64_t deadline_ns);

/* From now on they are that engine's. Lock held. */
void aiod_files_commit(struct aiod_resume *resume);

/* The engine has gone with that last word. Lock held. */
void aiod_files_left(struct aiod_resume *resume, unsigned last_word);

void aiod_files_destroy(struct aiod_resume *resume);

/* ---- resume.c: old areas; lock held ---- */

/* The old area that it lies in; NULL: in none. */
const struct aiod_old_area *aiod_old_area_of(const struct aiod_resume *resume, uint64_t bytes, const char *data);

/* A buffer has been given back: an old area without any goes. */
void aiod_old_area_put(struct aiod_resume *resume, uint64_t bytes, const char *buffer);

#endif
