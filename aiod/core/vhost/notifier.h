/*
 * notifier.h - signals an eventfd of the VMM's, and never blocks.
 *
 * write() blocks when the counter of an eventfd is full and O_NONBLOCK is off. The flag belongs to the open file, which the
 * VMM shares: the VMM can fill the counter and clear the flag at any time. A check before the write loses that race, writes
 * with RWF_NOWAIT are not supported (EOPNOTSUPP), and an eventfd cannot be opened anew. The kernel's own signal of an eventfd
 * (eventfd_signal()) never blocks. So the eventfd is registered with an io_uring, where the completion of a request that does
 * nothing signals it. That costs 0.25 us more than write() does.
 *
 * Without io_uring the notifier writes, and a VMM that clears the flag can stop its own engine.
 *
 * Thread-safe, except for creation and destruction.
 */
#ifndef AIOD_VHOST_NOTIFIER_H
#define AIOD_VHOST_NOTIFIER_H

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct aiod_notifier {
    int fd;               /* constant: dup3() changes the file that it stands for, while other threads write to it */
    bool tried;           /* to create the io_uring; the main loop's */
    atomic_bool has_ring; /* written by the main loop */

    pthread_mutex_t lock; /* held for one system call, which does not wait */

    /* Protected by lock. */
    struct io_uring ring;
    bool registered; /* the eventfd, with the ring */
};

/* Signals nobody at first. 0, or -errno. */
int aiod_notifier_create(struct aiod_notifier *notifier);
void aiod_notifier_destroy(struct aiod_notifier *notifier);

/* Signal the eventfd `fd`, which stays the caller's, from now on; -1: nobody. 0, or -errno. Main loop's thread. */
int aiod_notifier_set(struct aiod_notifier *notifier, int fd);

/* Make the eventfd readable. */
void aiod_notifier_signal(struct aiod_notifier *notifier);

#endif
