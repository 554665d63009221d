/* async_writes.c - decides whether writes are started (async_writes.h). */
#include "session/async_writes.h"

#include <stdatomic.h>
#include <sys/stat.h>

#include "util/os.h"

#define BESIDE_READS 64u

/* So many of the next writes are started, because a read came before. Of the process: an engine has one pool. */
static atomic_uint beside_reads;

void aiod_async_writes_learn(struct aiod_async_writes *writes, int fd)
{
    struct stat status;
    uint8_t to;

    if (__atomic_load_n(&writes->to, __ATOMIC_RELAXED) != AIOD_ASYNC_WRITES_TO_UNKNOWN ||
        aiod_os->fstat(fd, &status) < 0) {
        return;
    }
    to = S_ISBLK(status.st_mode) ? AIOD_ASYNC_WRITES_TO_DEVICE : AIOD_ASYNC_WRITES_TO_FILE;
    __atomic_store_n(&writes->to, to, __ATOMIC_RELAXED);
}

void aiod_async_writes_note_read(void)
{
    if (atomic_load_explicit(&beside_reads, memory_order_relaxed) != BESIDE_READS) {
        atomic_store_explicit(&beside_reads, BESIDE_READS, memory_order_relaxed);
    }
}

static bool take_place_beside_reads(void)
{
    unsigned left = atomic_load_explicit(&beside_reads, memory_order_relaxed);

    if (left > 0) {
        atomic_store_explicit(&beside_reads, left - 1, memory_order_relaxed);
    }
    return left > 0;
}

bool aiod_async_writes_may_start(const struct aiod_async_writes *writes)
{
    return __atomic_load_n(&writes->to, __ATOMIC_RELAXED) == AIOD_ASYNC_WRITES_TO_DEVICE || take_place_beside_reads();
}
