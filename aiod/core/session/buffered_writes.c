/* buffered_writes.c - the lane of a handle's buffered writes. */
#include "session/buffered_writes.h"

#include <stddef.h>

#include "path/filesystem.h"

void aiod_buffered_writes_learn(struct aiod_buffered_writes *writes, int fd)
{
    if (__atomic_load_n(&writes->known, __ATOMIC_RELAXED)) {
        return;
    }
    __atomic_store_n(&writes->exclude, aiod_excludes_writes(fd), __ATOMIC_RELAXED);
    __atomic_store_n(&writes->known, true, __ATOMIC_RELAXED);
}

struct aiod_lane *aiod_buffered_writes_lane(struct aiod_buffered_writes *writes)
{
    return __atomic_load_n(&writes->exclude, __ATOMIC_RELAXED) ? &writes->lane : NULL;
}
