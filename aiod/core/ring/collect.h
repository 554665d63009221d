/*
 * collect.h - files that a ring opens and closes by itself, without the main loop.
 *
 * The main loop lends a ring the numbers of some free handles, which count as open files meanwhile. OPEN_FILE takes one
 * and makes a handle of it, which only the ring has (aiod_handle.unregistered). The main loop collects such handles some
 * milliseconds later, by a timer, or when it needs them: before a message that names one, and at the session's end. It puts them
 * into the session's table, and lends other numbers. CLOSE_FILE closes a handle that was not collected yet, and its
 * number can be used again: a program that opens, reads and closes files does so without the main loop. So the timer
 * collects only what has been open for some time: most files are closed by then, whatever else is open. A CLOSE_FILE of a
 * handle that the main loop has is passed on to it, and answered by it.
 *
 * The main loop frees all handles, also those that the ring has closed, because it examines the handles of active
 * requests. Their number is limited; above it OPEN_FILE is refused.
 */
#ifndef AIOD_COLLECT_H
#define AIOD_COLLECT_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_handle;

#define AIOD_RING_NUMBERS_MAX 128u     /* numbers that are lent to one ring */
#define AIOD_RING_CLOSED_MAX 4096u     /* closed handles that the main loop has not freed */
#define AIOD_COLLECT_AFTER_NS 20000000 /* when the main loop collects: most files are closed again by then */

/*
 * Wakes the main loop to collect, and to wake the clients that have completions which nobody has announced
 * (aiod_ring_wake_unseen()). One for all rings of a core.
 */
struct aiod_collect_timer {
    int fd;     /* a timerfd */
    bool armed; /* accessed by atomic operations */
};

/* Protected by the ring's lock. */
struct aiod_ring_opens {
    uint32_t numbers[AIOD_RING_NUMBERS_MAX]; /* lent and not in use */
    uint32_t number_count;
    struct aiod_handle *opened; /* not collected; doubly linked by ring_next, the last one first */
    struct aiod_handle *closed; /* linked by ring_next */
    uint32_t closed_count;
    unsigned period; /* between two collections by the timer */
    bool ran_out;    /* an open was refused because every number was in use */
    bool ended;      /* no handle is made any more */
};

/* 0, or -errno. */
int aiod_collect_timer_init(struct aiod_collect_timer *timer);
void aiod_collect_timer_destroy(struct aiod_collect_timer *timer);

/* Have the main loop do so, if it will not anyway. Any thread. */
void aiod_collect_timer_arm(struct aiod_collect_timer *timer);

/* The timer has expired: the main loop does so next. */
void aiod_collect_timer_expired(struct aiod_collect_timer *timer);

enum aiod_collect {
    AIOD_COLLECT_OLD, /* by the timer: those opened in an earlier period; the timer is armed again if there are others */
    AIOD_COLLECT_ALL,
    AIOD_COLLECT_LAST, /* all, and OPEN_FILE makes no handle from now on */
};

#endif
