/*
 * open_reading.h - opens an existing file for reading by its path, and closes it, where a ring's request is taken.
 *
 * The kernel confines the path (confined.h). Thread-safe, without locks.
 */
#ifndef AIOD_OPEN_READING_H
#define AIOD_OPEN_READING_H

#include <stdbool.h>
#include <stdint.h>

#include "path/cached_path.h"
#include "path/confined_open.h"

/*
 * Open the regular file `path` beneath `root` without blocking. 0; -ENOENT: known without asking; -EAGAIN: a worker has
 * to open it, since it is not cached, or not on `local_device` (0: none is known). Adds to `spent` what has to be closed.
 */
int aiod_open_reading_nowait(const char *root, const char *path, bool no_links, uint64_t local_device,
                             struct aiod_opened *opened, struct aiod_spent *spent);

/* Open it once more, for the supervisor's descriptor store, without blocking. `fd` is on a local device. */
int aiod_open_reading_again(int fd);

/*
 * Is closing the descriptor, of a file on a local device, a matter of microseconds? It is not if the file has been
 * removed and is large: its blocks are given back with its last descriptor.
 */
bool aiod_closes_at_once(int fd);

#endif
