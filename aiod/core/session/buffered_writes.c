/* buffered_writes.c - learns from a handle's buffered writes. */
#include "session/buffered_writes.h"

#include <stddef.h>

#include "path/filesystem.h"

#define ATTEMPT_SKIPS_MAX 1023u
#define ATTEMPT_SLOW_NS UINT64_C(10000000)

void aiod_buffered_writes_learn(struct aiod_buffered_writes *writes, int fd)
{
    if (__atomic_load_n(&writes->known, __ATOMIC_RELAXED)) {
        return;
    }
    __atomic_store_n(&writes->exclude, aiod_excludes_writes(fd), __ATOMIC_RELAXED);
    __atomic_store_n(&writes->sync, aiod_syncs_writes(fd), __ATOMIC_RELAXED);
    __atomic_store_n(&writes->known, true, __ATOMIC_RELEASE);
}

struct aiod_lane *aiod_buffered_writes_lane(struct aiod_buffered_writes *writes)
{
    return __atomic_load_n(&writes->exclude, __ATOMIC_RELAXED) ? &writes->lane : NULL;
}

bool aiod_buffered_writes_may_try(struct aiod_buffered_writes *writes)
{
    if (!__atomic_load_n(&writes->known, __ATOMIC_ACQUIRE) || !__atomic_load_n(&writes->exclude, __ATOMIC_RELAXED) ||
        __atomic_load_n(&writes->sync, __ATOMIC_RELAXED) || __atomic_load_n(&writes->never_nowait, __ATOMIC_RELAXED) ||
        aiod_lane_taken(&writes->lane)) {
        return false;
    }
    if (writes->skips_left > 0) {
        writes->skips_left--;
        return false;
    }
    return true;
}

void aiod_buffered_writes_failed(struct aiod_buffered_writes *writes)
{
    writes->skips = writes->skips < ATTEMPT_SKIPS_MAX ? 2 * writes->skips + 1 : ATTEMPT_SKIPS_MAX;
    writes->skips_left = writes->skips;
}

void aiod_buffered_writes_took(struct aiod_buffered_writes *writes, uint64_t service_ns)
{
    writes->skips = service_ns < ATTEMPT_SLOW_NS ? 0 : ATTEMPT_SKIPS_MAX;
    writes->skips_left = writes->skips;
}
