/* The eventfds that wake a loop coalesce, do not block, and stay readable while something is waiting. */
#include "check.h"

#include <fcntl.h>
#include <poll.h>

static bool readable(int fd)
{
    struct pollfd entry = {.fd = fd, .events = POLLIN};

    return poll(&entry, 1, 0) == 1;
}

static void a_doorbell_is_readable_until_cleared(void)
{
    int fd = aiod_eventfd_create();

    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    CHECK(!readable(fd));
    aiod_eventfd_clear(fd); /* nothing to clear: does not block */
    aiod_eventfd_ring(fd);
    aiod_eventfd_ring(fd);
    CHECK(readable(fd));
    aiod_eventfd_clear(fd);
    CHECK(!readable(fd));
    close(fd);
}

static void a_full_counter_does_not_block(void)
{
    int fd = aiod_eventfd_create();
    uint64_t top = UINT64_MAX - 1;

    CHECK(write(fd, &top, sizeof(top)) == sizeof(top));
    aiod_eventfd_ring(fd); /* does not block either */
    CHECK(readable(fd));
    aiod_eventfd_clear(fd);
    CHECK(!readable(fd));
    close(fd);
}

/* Several completions before a reap ring once. */
static void completions_ring_once_per_reap(void)
{
    struct aiod_pool *pool = make_pool(1, 0, 10000);
    struct job blocker = {0};
    struct job jobs[10] = {0};
    struct gate gate;
    uint64_t rings = 0;

    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    CHECK(!readable(aiod_pool_completion_fd(pool)));
    submit_jobs(pool, jobs, 10, NULL);
    for (size_t i = 0; i < 10; i++) {
        CHECK(aiod_pool_cancel(pool, &jobs[i].request));
    }
    CHECK(read(aiod_pool_completion_fd(pool), &rings, sizeof(rings)) == sizeof(rings) && rings == 1);
    loop_once(pool, 0); /* the test has consumed the ring: the main loop sees nothing */
    CHECK(reaped_total == 0);
    CHECK(aiod_pool_reap(pool) == &jobs[0].request);
    for (size_t i = 0; i < 10; i++) { /* oldest first */
        CHECK(jobs[i].request.next == (i < 9 ? &jobs[i + 1].request : NULL));
    }
    CHECK(aiod_pool_reap(pool) == NULL);
    gate_open(&gate);
    loop_until_reaped(pool, 1); /* the next completion rings again */
    end_pool(pool);
}

int main(void)
{
    faults_install();
    a_doorbell_is_readable_until_cleared();
    a_full_counter_does_not_block();
    completions_ring_once_per_reap();
    return 0;
}
