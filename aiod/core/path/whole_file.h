/*
 * whole_file.h - reads, examines or writes the file of a path in one call.
 *
 * The kernel confines the path (confined.h). Blocks: for workers. Thread-safe, without locks.
 */
#ifndef AIOD_WHOLE_FILE_H
#define AIOD_WHOLE_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "path/cached_path.h"
#include "path/confined_open.h"

struct aiod_whole_file {
    const char *root;
    char *path;    /* beneath the root; aiod_whole_file_write() changes it */
    bool no_links; /* do not follow symbolic links, not even beneath the root */

    /*
     * A local device, or 0. aiod_whole_file_read() and aiod_whole_file_stat() set it to that of the file if it is local;
     * the calls that do not block serve files on it only.
     */
    uint64_t local_device;

    /* For aiod_whole_file_write(). */
    bool durable;
    bool exclusive; /* the name must not exist */
    const struct aiod_creation *creation;
};

/*
 * Read a regular file: a struct aiod_stat, and its bytes after it. `room` holds `length` bytes, at least those of the
 * stat. The bytes of the result, or -errno; EFBIG: the room is too small, but has the stat.
 *
 * The stat comes first, and no more bytes are read than its size: of a file that grows meanwhile, those that it had;
 * of one that is cut, those that are left. A file whose size is 0 is read to its end, as those of /proc.
 */
int64_t aiod_whole_file_read(struct aiod_whole_file *file, char *room, uint64_t length);

/* The stat of any file or directory; an empty path is the root. The bytes of the result, or -errno. */
int64_t aiod_whole_file_stat(struct aiod_whole_file *file, char *room, uint64_t length);

/*
 * The same without blocking, for any thread. -EAGAIN: a worker has to do it, since something is not cached, the file is
 * larger than `bytes_max`, or not on `local_device`. Sets *never, atomically, if the file system has no such reads. Adds
 * to `spent` what has to be closed.
 */
int64_t aiod_whole_file_read_nowait(const struct aiod_whole_file *file, char *room, uint64_t length, uint64_t bytes_max,
                                    bool *never, struct aiod_spent *spent);
int64_t aiod_whole_file_stat_nowait(const struct aiod_whole_file *file, char *room, uint64_t length,
                                    struct aiod_spent *spent);

/*
 * Write `length` bytes to a new file, and give it the name then: a reader finds the former file or the new one, whole.
 * The file has a name of its own in the same directory before (".aiod-*"), which is removed if the call fails. A
 * symbolic link of that name is replaced, not followed. `length`, or -errno: EEXIST with `exclusive`.
 *
 * `durable`: its bytes are synced before it gets the name, and the directory afterwards.
 */
int64_t aiod_whole_file_write(const struct aiod_whole_file *file, void *data, uint64_t length);

#endif
