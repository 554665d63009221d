/* Notifications of a VMM: its eventfd may block, be full, and be replaced while others signal. */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>

#include "check.h"
#include "util/os.h"
#include "vhost/notifier.h"

#define FULL (UINT64_MAX - 1)
#define ROUNDS 2000

static uint64_t count_of(int fd)
{
    uint64_t count;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static void fill(int fd)
{
    uint64_t full = FULL;

    CHECK(write(fd, &full, sizeof(full)) == sizeof(full));
}

static void an_eventfd_is_signalled_and_replaced(void)
{
    struct aiod_notifier notifier;
    int first = aiod_eventfd_create();
    int second = aiod_eventfd_create();

    CHECK(aiod_notifier_create(&notifier) == 0);
    aiod_notifier_signal(&notifier); /* nobody */
    CHECK(aiod_notifier_set(&notifier, first) == 0);
    aiod_notifier_signal(&notifier);
    aiod_notifier_signal(&notifier);
    CHECK(count_of(first) == 2);
    CHECK(aiod_notifier_set(&notifier, second) == 0);
    aiod_notifier_signal(&notifier);
    CHECK(count_of(first) == 0 && count_of(second) == 1);
    CHECK(aiod_notifier_set(&notifier, -1) == 0);
    aiod_notifier_signal(&notifier);
    CHECK(count_of(second) == 0);
    aiod_notifier_destroy(&notifier);
    close(first);
    close(second);
}

static void a_full_eventfd_that_blocks_blocks_nobody(void)
{
    struct aiod_notifier notifier;
    int fd = eventfd(0, EFD_CLOEXEC);

    CHECK(aiod_notifier_create(&notifier) == 0);
    CHECK(aiod_notifier_set(&notifier, fd) == 0);
    if (atomic_load(&notifier.has_ring)) { /* else the host has no io_uring, and the notifier writes */
        fill(fd);
        aiod_notifier_signal(&notifier);
        aiod_notifier_signal(&notifier);
        CHECK(count_of(fd) == UINT64_MAX);
        aiod_notifier_signal(&notifier);
        CHECK(count_of(fd) == 1);
    }
    aiod_notifier_destroy(&notifier);
    close(fd);
}

/* As on a host without io_uring: then an eventfd that does not block is full without harm. */
static void without_an_io_uring_it_writes(void)
{
    struct aiod_notifier notifier;
    int fd = aiod_eventfd_create();

    CHECK(aiod_notifier_create(&notifier) == 0);
    notifier.tried = true;
    CHECK(aiod_notifier_set(&notifier, fd) == 0);
    aiod_notifier_signal(&notifier);
    CHECK(count_of(fd) == 1);
    fill(fd);
    aiod_notifier_signal(&notifier);
    CHECK(count_of(fd) == FULL);
    aiod_notifier_destroy(&notifier);
    close(fd);
}

static void *signal_many(void *notifier)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        aiod_notifier_signal(notifier);
    }
    return NULL;
}

/* Each signal arrives at one of both, also while the eventfd is replaced. */
static void threads_signal_while_the_eventfd_is_replaced(void)
{
    struct aiod_notifier notifier;
    int fds[2] = {aiod_eventfd_create(), aiod_eventfd_create()};
    pthread_t threads[2];

    CHECK(aiod_notifier_create(&notifier) == 0);
    CHECK(aiod_notifier_set(&notifier, fds[0]) == 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, signal_many, &notifier) == 0);
    }
    for (unsigned i = 0; i < 50; i++) {
        CHECK(aiod_notifier_set(&notifier, fds[i % 2]) == 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(count_of(fds[0]) + count_of(fds[1]) == (uint64_t)2 * ROUNDS);
    aiod_notifier_destroy(&notifier);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    an_eventfd_is_signalled_and_replaced();
    a_full_eventfd_that_blocks_blocks_nobody();
    without_an_io_uring_it_writes();
    threads_signal_while_the_eventfd_is_replaced();
    return 0;
}
