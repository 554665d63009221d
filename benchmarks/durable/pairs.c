/*
 * pairs.c - pairs of a 4 KiB write and a flush by the core alone: pairs POLICY TASKS SECONDS FILE prints pairs per second.
 *
 * POLICY   group   group commit, as in the product (core/ops/flush.c)
 *          own     each flush is its own fdatasync(), at once with the others
 *
 * Each task writes its own block, and has one request at a time. The main loop is the engine's, without Python and wire.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ops/flush.h"
#include "util/os.h"
#include "pool/pool.h"
#include "ops/worker_io.h"

enum {
    BLOCK_BYTES = 4096
};

struct task {
    struct aiod_request request; /* first: the pool hands it back */
    uint64_t offset;
    bool flushing;
};

static int fd;
static bool own;
static char block[BLOCK_BYTES];
static struct aiod_pool *pool;
static struct aiod_flushes flushes;

static int64_t run(struct aiod_request *request)
{
    struct task *task = (struct task *)request;
    struct iovec whole = {.iov_base = block, .iov_len = BLOCK_BYTES};
    uint64_t written;

    if (!task->flushing) {
        return aiod_io_write(fd, &whole, 1, task->offset, 0, &written);
    }
    return own ? aiod_io_flush(fd) : aiod_flushes_flush(&flushes, request, 0);
}

static void submit(struct task *task)
{
    task->request.run = run;
    task->request.queued_ns = aiod_now_ns();
    task->request.group = task->flushing && !own ? &flushes : NULL;
    aiod_pool_submit(pool, &task->request, 1);
}

/* Count pairs completed until `end_ns`. Requests in flight then are abandoned: the process ends. */
static uint64_t serve(uint64_t end_ns)
{
    uint64_t pairs = 0;

    while (aiod_now_ns() < end_ns) {
        struct pollfd fds[2] = {{.fd = aiod_pool_completion_fd(pool), .events = POLLIN},
                                {.fd = aiod_pool_doorbell_fd(pool), .events = POLLIN}};
        struct aiod_request *done;

        poll(fds, 2, 10);
        if (fds[1].revents != 0) {
            aiod_pool_spawn(pool);
        }
        done = aiod_pool_reap(pool);
        while (done != NULL) {
            struct task *task = (struct task *)done;

            done = done->next;
            if (task->request.result < 0) {
                fprintf(stderr, "%s: %s\n", task->flushing ? "flush" : "write", strerror((int)-task->request.result));
                exit(1);
            }
            pairs += task->flushing;
            task->flushing = !task->flushing;
            submit(task);
        }
    }
    return pairs;
}

int main(int argc, char **argv)
{
    struct aiod_pool_config config = {
        .name = "pairs", .max_threads = 64, .idle_timeout_ns = 10000000000u, .spawn_retry_ns = 1000000000u};
    struct task *tasks;
    size_t count;
    double seconds;
    uint64_t began_ns;

    if (argc != 5) {
        fprintf(stderr, "usage: pairs group|own TASKS SECONDS FILE\n");
        return 2;
    }
    own = strcmp(argv[1], "own") == 0;
    count = (size_t)atol(argv[2]);
    seconds = atof(argv[3]);
    fd = open(argv[4], O_RDWR | O_CLOEXEC);
    tasks = calloc(count, sizeof(*tasks));
    if (fd < 0 || tasks == NULL || aiod_pool_create(&pool, &config) < 0) {
        perror("pairs");
        return 1;
    }
    aiod_flushes_init(&flushes, pool, fd);
    began_ns = aiod_now_ns();
    for (size_t i = 0; i < count; i++) {
        tasks[i].offset = i * BLOCK_BYTES;
        submit(&tasks[i]);
    }
    printf("%.0f\n", (double)serve(began_ns + (uint64_t)(seconds * 1e9)) / seconds);
    fflush(stdout);
    _exit(0); /* workers may still be in a flush */
}
