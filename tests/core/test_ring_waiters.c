/*
 * An event loop, waiting threads and threads that open and close share one client: none of them loses a wake-up.
 * tests/model/waiters.pml models the same, and is searched exhaustively.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define FILE_BYTES (1u << 20)
#define BYTES 4096u
#define LOOP_READS rounds(1000)
#define LOOP_DEPTH_MAX 3u
#define THREADS 2u
#define CALLERS 2u
#define READERS 8u
#define READS rounds(300)
#define LIMIT_NS 20000 /* about as long as a read takes: many are given up while they are completed */

static struct aiod_client *client;
static uint32_t handle;
static char contents[FILE_BYTES];
static _Atomic bool stop;

static void *wait_in_thread(void *argument)
{
    uint64_t at = (uintptr_t)argument * 5000;
    char data[BYTES];

    while (!stop) {
        at = (at + 12345) % (FILE_BYTES - BYTES);
        CHECK(aiod_pread(client, handle, data, BYTES, at, AIOD_NO_TIMEOUT) == BYTES);
        CHECK(memcmp(data, contents + at, BYTES) == 0);
    }
    return NULL;
}

static void *call_in_thread(void *nothing)
{
    while (!stop) {
        int64_t opened = aiod_open(client, "x/file", AIOD_OPEN_READ, 0);

        CHECK(opened > 0 && aiod_close(client, (uint32_t)opened) == 0);
    }
    return nothing;
}

static void submit_read(struct aiod_op *op, uint64_t at)
{
    *op = (struct aiod_op){.op = AIOD_RING_READ, .handle = handle, .offset = at, .length = BYTES, .buffer = op->buffer};
    CHECK(aiod_submit(client, &op, 1) == 1);
}

/* Reap, after sleeping if no request is done. Fails if the loop is not woken. */
static unsigned sleep_and_reap(struct aiod_op **done, unsigned max)
{
    struct pollfd fd = {.fd = aiod_fd(client), .events = POLLIN};

    if (aiod_arm(client)) {
        CHECK(poll(&fd, 1, (int)WAIT_MS) == 1);
    }
    aiod_disarm(client);
    return aiod_reap(client, done, max);
}

/* With few requests in flight, so that no other completion wakes the loop if a wake-up is lost. */
static void run_event_loop(unsigned depth)
{
    struct aiod_op ops[LOOP_DEPTH_MAX];
    struct aiod_op *done[LOOP_DEPTH_MAX];
    unsigned submitted = 0;
    unsigned reaped = 0;

    for (unsigned i = 0; i < depth; i++) {
        ops[i].buffer = aiod_alloc(client, BYTES);
        submit_read(&ops[i], submitted++);
    }
    while (reaped < LOOP_READS) {
        unsigned count = sleep_and_reap(done, LOOP_DEPTH_MAX);

        for (unsigned i = 0; i < count; i++, reaped++) {
            CHECK(done[i]->result == BYTES && memcmp(done[i]->buffer, contents + done[i]->offset, BYTES) == 0);
            if (submitted < LOOP_READS) {
                submit_read(done[i], submitted++);
            }
        }
    }
    for (unsigned i = 0; i < depth; i++) {
        aiod_free(client, ops[i].buffer);
    }
}

/* Start the engine, and open the file. Its descriptor. */
static int begin(uint64_t inline_read_max, bool never_spin)
{
    struct engine_config config = {
        .inline_read_max = inline_read_max, .poll_max_ns = 50000, .max_threads = 4, .handles_max = 16};
    int file = scratch_file(O_RDWR);
    int64_t opened;

    CHECK(pwrite(file, contents, FILE_BYTES, 0) == FILE_BYTES);
    CHECK(aiod_attach(&client, engine_start(&config), &(struct aiod_options){.never_spin = never_spin}) == 0);
    engine_add_file("file", file);
    opened = aiod_open(client, "x/file", AIOD_OPEN_READ, 0);
    CHECK(opened > 0);
    handle = (uint32_t)opened;
    return file;
}

static void finish(int file)
{
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

static void no_wake_up_is_lost(unsigned depth, uint64_t inline_read_max, bool never_spin)
{
    pthread_t threads[THREADS + CALLERS];
    int file = begin(inline_read_max, never_spin);

    stop = false;
    for (uintptr_t i = 0; i < THREADS + CALLERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, i < THREADS ? wait_in_thread : call_in_thread, (void *)i) == 0);
    }
    run_event_loop(depth);
    stop = true;
    for (unsigned i = 0; i < THREADS + CALLERS; i++) {
        pthread_join(threads[i], NULL);
    }
    finish(file);
}

/* Each second read has a time limit. */
static void *read_with_limits(void *argument)
{
    uint64_t at = (uintptr_t)argument * 5000;
    char data[BYTES];

    for (unsigned i = 0; i < READS; i++) {
        int64_t limit_ns = i % 2 == 0 ? AIOD_NO_TIMEOUT : LIMIT_NS;
        int64_t result;

        at = (at + 12345) % (FILE_BYTES - BYTES);
        result = aiod_pread(client, handle, data, BYTES, at, limit_ns);
        CHECK(result == BYTES || (result == -ETIMEDOUT && limit_ns == LIMIT_NS));
        CHECK(result < 0 || memcmp(data, contents + at, BYTES) == 0);
    }
    return NULL;
}

/* More threads than CPUs: some poll, one leads, the others are parked, and threads come and go in each of these ways. */
static void threads_wait_for_their_own_requests(uint64_t inline_read_max, bool never_spin)
{
    pthread_t threads[READERS];
    int file = begin(inline_read_max, never_spin);

    for (uintptr_t i = 0; i < READERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_with_limits, (void *)i) == 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    finish(file);
}

int main(void)
{
    faults_install();
    for (size_t i = 0; i < FILE_BYTES; i++) {
        contents[i] = pattern(i);
    }
    no_wake_up_is_lost(1, 0, false);
    no_wake_up_is_lost(1, 65536, true);
    no_wake_up_is_lost(LOOP_DEPTH_MAX, 65536, false);
    threads_wait_for_their_own_requests(0, true);
    threads_wait_for_their_own_requests(0, false);
    threads_wait_for_their_own_requests(65536, false);
    return 0;
}
