/* notifier.c - signals an eventfd by an io_uring (notifier.h). */
#include "vhost/notifier.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "util/os.h"

#define ENTRIES 1u

int aiod_notifier_create(struct aiod_notifier *notifier)
{
    *notifier = (struct aiod_notifier){.fd = aiod_eventfd_create()};
    pthread_mutex_init(&notifier->lock, NULL);
    return notifier->fd < 0 ? notifier->fd : 0;
}

void aiod_notifier_destroy(struct aiod_notifier *notifier)
{
    if (atomic_load(&notifier->has_ring)) {
        io_uring_queue_exit(&notifier->ring);
    }
    if (notifier->fd >= 0) {
        close(notifier->fd);
    }
    pthread_mutex_destroy(&notifier->lock);
}

/* Let the constant descriptor stand for `fd`, or for an eventfd that nobody reads. */
static int replace_descriptor(const struct aiod_notifier *notifier, int fd)
{
    int nobody = fd < 0 ? aiod_eventfd_create() : -1;
    int error = dup3(fd < 0 ? nobody : fd, notifier->fd, O_CLOEXEC) < 0 ? -errno : 0;

    if (nobody >= 0) {
        close(nobody);
    }
    return error;
}

static void register_eventfd(struct aiod_notifier *notifier, int fd)
{
    pthread_mutex_lock(&notifier->lock);
    if (notifier->registered) {
        io_uring_unregister_eventfd(&notifier->ring);
    }
    notifier->registered = fd >= 0 && io_uring_register_eventfd(&notifier->ring, fd) == 0;
    pthread_mutex_unlock(&notifier->lock);
}

int aiod_notifier_set(struct aiod_notifier *notifier, int fd)
{
    if (fd >= 0 && !notifier->tried) {
        notifier->tried = true;
        atomic_store(&notifier->has_ring, io_uring_queue_init(ENTRIES, &notifier->ring, 0) == 0);
    }
    if (atomic_load(&notifier->has_ring)) {
        register_eventfd(notifier, fd);
    }
    return replace_descriptor(notifier, fd);
}

/* Complete a request that does nothing. False: the kernel took none. Lock held. */
static bool complete_a_request(struct io_uring *ring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    bool submitted;

    if (sqe != NULL) { /* NULL: the last one is still there, and submitted now */
        io_uring_prep_nop(sqe);
    }
    submitted = io_uring_submit(ring) > 0;
    io_uring_cq_advance(ring, io_uring_cq_ready(ring));
    return submitted;
}

static bool signal_by_ring(struct aiod_notifier *notifier)
{
    bool signalled;

    pthread_mutex_lock(&notifier->lock);
    signalled = notifier->registered && complete_a_request(&notifier->ring);
    pthread_mutex_unlock(&notifier->lock);
    return signalled;
}

void aiod_notifier_signal(struct aiod_notifier *notifier)
{
    if (!atomic_load_explicit(&notifier->has_ring, memory_order_acquire) || !signal_by_ring(notifier)) {
        aiod_eventfd_ring(notifier->fd);
    }
}
