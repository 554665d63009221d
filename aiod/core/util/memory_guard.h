/*
 * memory_guard.h - SIGBUS in the memory of a ring costs that ring its session, and nobody else anything.
 *
 * The memory was allocated whole and its size is sealed, and still a page of it can be missing: its client punches a hole
 * (fallocate, madvise), and when the engine touches the page next the kernel has no memory for another; or the page cannot
 * be read back from swap, or is broken in hardware. The signal handler puts a spare page in its place, which needs no memory,
 * and marks the ring as lost: whoever used the page goes on, on bytes that are trusted no more than a client's ever are, and
 * ends the session (aiod_ring_break). A system call that meets such a page returns EFAULT; no signal is raised.
 *
 * Rejected:
 * - A seal against holes. F_SEAL_WRITE and F_SEAL_FUTURE_WRITE forbid them, and the client's writable mapping with them.
 *   F_SEAL_FUTURE_WRITE after the client has mapped would do, and needs a message that says so: existing clients do not send
 *   it, and a hostile one would pretend to be one of those.
 * - Memory that has no holes: System V and hugetlb memory have them too, a udmabuf needs a device that daemons may not open.
 * - Locked memory (mlock): a hole is punched in it all the same.
 * - Anonymous memory in place of the page at once: under strict accounting (vm.overcommit_memory = 2) there is none to be had,
 *   at the very moment that it is for.
 */
#ifndef AIOD_MEMORY_GUARD_H
#define AIOD_MEMORY_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A mapping that is guarded. */
struct aiod_memory_guard {
    /* Constant while guarded. */
    char *start;
    uint64_t bytes;
    char *spare; /* a page of shared memory, this ring's alone: what one client sent is not to reach another */

    /* Written by the signal handler. */
    atomic_bool lost;
    atomic_uint replaced; /* pages, or attempts */
};

/*
 * Guard the `bytes` mapped at `start`, until aiod_memory_guard_stop(), which comes before they are unmapped. Whoever touches
 * them has a reference of the ring. Any thread. 0, or -errno.
 */
int aiod_memory_guard_start(struct aiod_memory_guard *guard, char *start, uint64_t bytes);
void aiod_memory_guard_stop(struct aiod_memory_guard *guard);

/* Is a page gone, so that what was read there may not be what the client wrote? */
bool aiod_memory_guard_page_lost(const struct aiod_memory_guard *guard);

/* The same of the ring that `address` lies in; false: it lies in none. */
bool aiod_memory_guard_page_lost_at(const void *address);

#endif
