/*
 * memory_guard.h - a missing page in a ring's memory ends that ring's session, not the process.
 *
 * The engine allocates a ring's memory whole and seals its size. A page can still be missing: the client punches a hole
 * (fallocate, madvise), and the kernel has no memory for a new page when the engine touches it; or a page cannot be
 * read back from swap, or is broken in hardware. The access raises SIGBUS. The signal handler maps a spare page over
 * the missing one, which needs no memory, and marks the mapping as lost. The thread that touched the page continues,
 * with bytes that it must not trust, as with everything that a client can write, and then ends the session
 * (aiod_ring_break()). A system call that meets such a page returns EFAULT and raises no signal.
 *
 * Rejected alternatives:
 * - A seal against holes. F_SEAL_WRITE and F_SEAL_FUTURE_WRITE forbid holes, and the client's writable mapping with
 *   them. F_SEAL_FUTURE_WRITE after the client has mapped the memory would work, but it needs a new message: existing
 *   clients do not send it, and a hostile client would claim to be one of them.
 * - Memory that cannot have holes. System V and hugetlb memory can have them; a udmabuf needs a device that daemons may
 *   not open.
 * - Locked memory (mlock). A hole can be punched in it as well.
 * - Anonymous memory in place of the missing page. Under strict accounting (vm.overcommit_memory = 2) there is none in
 *   exactly this situation.
 */
#ifndef AIOD_MEMORY_GUARD_H
#define AIOD_MEMORY_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One guarded mapping. */
struct aiod_memory_guard {
    /* Constant while the mapping is guarded. */
    char *start;
    uint64_t bytes;
    char *spare; /* a page of shared memory of this mapping alone: one client's bytes must not reach another client */

    /* Written by the signal handler. */
    atomic_bool lost;
    atomic_uint replaced; /* pages that were replaced, or attempts */
};

/*
 * Guard the `bytes` bytes mapped at `start`, until aiod_memory_guard_stop(), which comes before munmap(). A thread that
 * touches them holds a reference to the ring. Any thread. 0, or -errno.
 */
int aiod_memory_guard_start(struct aiod_memory_guard *guard, char *start, uint64_t bytes);
void aiod_memory_guard_stop(struct aiod_memory_guard *guard);

/* Is a page missing, so that bytes read there may not be the client's? */
bool aiod_memory_guard_page_lost(const struct aiod_memory_guard *guard);

/* The same for the guarded mapping that contains `address`. False if none does. */
bool aiod_memory_guard_page_lost_at(const void *address);

#endif
