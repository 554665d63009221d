/*
 * Missing pages of a ring's memory that cannot be replaced: SIGBUS in the engine, EFAULT in its system calls.
 *
 * A hole that a client punches has this effect when memory is used up. Here the seals are left out and the client
 * truncates its file, so that no page can come back, however much memory is free.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "aiod.h"
#include "aiod_ring.h"
#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"
#include "util/memory_guard.h"

#define ENTRIES 64u /* each queue has a page of its own */
#define AREA_BYTES (256u << 10)
#define FILE_BYTES (1u << 20)
#define PAGE 4096

static const char *path;
static char contents[FILE_BYTES];
static int prey;
static pthread_mutex_t attaching = PTHREAD_MUTEX_INITIALIZER;

static void start(unsigned max_threads, uint64_t inline_read_max, uint32_t alignment)
{
    path = engine_start(&(struct engine_config){.inline_read_max = inline_read_max,
                                                .poll_max_ns = 50000,
                                                .max_threads = max_threads,
                                                .handles_max = 16,
                                                .alignment = alignment});
    prey = scratch_file(O_RDWR);
    CHECK(pwrite(prey, contents, FILE_BYTES, 0) == FILE_BYTES);
    engine_add_file("prey", prey);
}

static void stop(void)
{
    engine_stop();
    close(prey);
}

/* libaiod accepts sealed memory only. */
static struct aiod_client *attach_sealed(void)
{
    struct aiod_client *client;

    pthread_mutex_lock(&attaching);
    faults.unsealed = false;
    CHECK(aiod_attach(&client, path, NULL) == 0);
    faults.unsealed = true;
    pthread_mutex_unlock(&attaching);
    return client;
}

/* A ring whose memory can be truncated. */
static void attach_unsealed(struct raw_ring *ring)
{
    pthread_mutex_lock(&attaching);
    raw_attach(ring, path, ENTRIES, AREA_BYTES, "prey");
    pthread_mutex_unlock(&attaching);
}

/* Another client of the same engine is served as before. */
static void check_others(void)
{
    struct aiod_client *client;
    char data[PAGE];
    int64_t handle;

    client = attach_sealed();
    handle = aiod_open(client, "x/prey", AIOD_OPEN_READ, 0);
    CHECK(handle > 0);
    for (uint64_t at = 0; at < FILE_BYTES; at += sizeof(data)) {
        CHECK(aiod_pread(client, (uint32_t)handle, data, sizeof(data), at, AIOD_NO_TIMEOUT) == sizeof(data));
        CHECK(memcmp(data, contents + at, sizeof(data)) == 0);
    }
    aiod_disconnect(client);
}

/* Submit `count` requests of `length` bytes each; the workers have them when this returns. */
static uint32_t submit(const struct raw_ring *ring, uint16_t op, uint32_t count, uint64_t offset, uint64_t length)
{
    for (uint32_t i = 0; i < count; i++) {
        raw_put(
            ring, i,
            &(struct aiod_ring_sqe){
                .cookie = i, .op = op, .handle = ring->handle, .offset = offset, .length = length, .buffer = i * PAGE});
    }
    raw_submit(ring, count);
    raw_ring_doorbell(ring);
    return count;
}

static void cut(const struct raw_ring *ring, uint64_t offset)
{
    CHECK(ftruncate(ring->memory, (off_t)offset) == 0);
}

/* The engine writes completions to a missing page. */
static void a_missing_completion_page_ends_the_session(void)
{
    struct raw_ring ring;
    struct gate gate;

    start(1, 0, 0);
    attach_unsealed(&ring);
    engine_block_worker(&gate);
    engine_wait_taken(submit(&ring, AIOD_RING_READ, 16, 0, PAGE));
    cut(&ring, ring.header->cq_offset);
    gate_open(&gate);
    raw_wait_ended(&ring);
    CHECK(engine_broken() == 1);
    raw_detach(&ring);
    check_others();
    stop();
}

/* The poller reads submissions from missing pages. */
static void a_missing_submission_page_ends_the_session(void)
{
    struct raw_ring ring;

    start(1, PAGE, 0);
    attach_unsealed(&ring);
    cut(&ring, ring.header->sq_offset);
    raw_submit(&ring, 1);
    raw_ring_doorbell(&ring);
    raw_wait_ended(&ring);
    CHECK(engine_broken() == 1);
    raw_detach(&ring);
    check_others();
    stop();
}

/* All pages are missing, including the indices, while requests are in flight. */
static void missing_pages_everywhere_end_the_session(void)
{
    struct raw_ring ring;
    struct gate gate;

    start(4, 0, 0);
    attach_unsealed(&ring);
    engine_block_worker(&gate);
    submit(&ring, AIOD_RING_READ, 32, 0, PAGE);
    cut(&ring, 0);
    raw_ring_doorbell(&ring);
    gate_open(&gate);
    raw_wait_ended(&ring);
    CHECK(engine_broken() == 1);
    raw_detach(&ring);
    check_others();
    stop();
}

/* Buffers used by system calls: their requests fail, and the session continues. */
static void missing_buffers_fail_system_calls_with_efault(void)
{
    struct raw_ring ring;
    struct gate gate;
    uint32_t count;

    start(1, 0, 0);
    attach_unsealed(&ring);
    engine_block_worker(&gate);
    count = submit(&ring, AIOD_RING_WRITE, 16, 0, PAGE);
    engine_wait_taken(count);
    cut(&ring, ring.header->area_offset);
    gate_open(&gate);
    raw_wait_completed(&ring, count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ring.cqes[i].result == -EFAULT);
    }
    raw_put(&ring, count, &(struct aiod_ring_sqe){.op = AIOD_RING_SIZE, .handle = ring.handle});
    raw_submit(&ring, count + 1);
    raw_ring_doorbell(&ring);
    raw_wait_completed(&ring, count + 1);
    CHECK(ring.cqes[count].result == FILE_BYTES && engine_broken() == 0);
    raw_detach(&ring);
    check_others();
    stop();
}

/* Buffers that the engine copies for alignment: bytes from a missing page are not written. */
static void missing_buffers_end_the_session_unwritten(uint16_t op)
{
    struct raw_ring ring;
    struct gate gate;
    char data[2 * PAGE];

    start(1, 0, 512);
    attach_unsealed(&ring);
    engine_block_worker(&gate);
    engine_wait_taken(submit(&ring, op, 16, 100, 1000));
    cut(&ring, ring.header->area_offset);
    gate_open(&gate);
    raw_wait_ended(&ring);
    CHECK(engine_broken() == 1);
    raw_detach(&ring);
    engine_wait_empty();
    CHECK(pread(prey, data, sizeof(data), 0) == sizeof(data) && memcmp(data, contents, sizeof(data)) == 0);
    check_others();
    stop();
}

/* Truncated anywhere at any moment, in one session after another, beside a client that is served. */
static void *cut_all_the_time(void *argument)
{
    for (unsigned round = 0; round < 200; round++) {
        struct raw_ring ring;

        attach_unsealed(&ring);
        submit(&ring, round % 2 != 0 ? AIOD_RING_READ : AIOD_RING_SIZE, ENTRIES, 0, round % 2 != 0 ? PAGE : 0);
        cut(&ring, round % 5 * PAGE);
        raw_ring_doorbell(&ring);
        raw_detach(&ring);
    }
    atomic_store((atomic_bool *)argument, true);
    return NULL;
}

static void random_truncation_hurts_no_other_client(void)
{
    atomic_bool done = false;
    pthread_t cutter;

    start(4, PAGE, 0);
    CHECK(pthread_create(&cutter, NULL, cut_all_the_time, &done) == 0);
    do {
        check_others();
    } while (!atomic_load(&done));
    pthread_join(cutter, NULL);
    stop();
}

/* ---- the memory guard alone -------------------------------------------------------------------------------------- */

#define RINGS 150u       /* more than one table of guards */
#define MANY_PAGES 3000u /* more than are replaced singly */

static char *mapping(uint64_t bytes)
{
    int fd = memfd_create("lost", MFD_CLOEXEC);
    char *start;

    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(start != MAP_FAILED && ftruncate(fd, 0) == 0);
    close(fd);
    return start;
}

static void each_guard_has_its_own_spare_page(void)
{
    static struct aiod_memory_guard guards[RINGS];

    for (unsigned i = 0; i < RINGS; i++) {
        CHECK(aiod_memory_guard_start(&guards[i], mapping(2 * PAGE), 2 * PAGE) == 0);
    }
    for (unsigned i = 0; i < RINGS; i += 2) {
        *(volatile char *)(guards[i].start + PAGE + 7) = 'x';
        CHECK(guards[i].start[PAGE + 7] == 'x' && aiod_memory_guard_page_lost_at(guards[i].start));
    }
    for (unsigned i = 0; i < RINGS; i++) {
        CHECK(aiod_memory_guard_page_lost(&guards[i]) == (i % 2 == 0));
        aiod_memory_guard_stop(&guards[i]);
        CHECK(!aiod_memory_guard_page_lost_at(guards[i].start));
        munmap(guards[i].start, 2 * PAGE);
    }
}

static void many_missing_pages_are_replaced_at_once(void)
{
    struct aiod_memory_guard guard;

    CHECK(aiod_memory_guard_start(&guard, mapping(MANY_PAGES * PAGE), MANY_PAGES * PAGE) == 0);
    for (unsigned i = 0; i < MANY_PAGES; i++) {
        *(volatile char *)(guard.start + i * PAGE) = 1;
    }
    aiod_memory_guard_stop(&guard);
    munmap(guard.start, MANY_PAGES * PAGE);
}

static void touch_another_mapping(void)
{
    *(volatile char *)mapping(PAGE) = 1;
}

static void send_itself_one(void)
{
    raise(SIGBUS);
}

/* Any other SIGBUS ends the process, as without a handler. */
static void check_ends(void (*act)(void))
{
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stderr) != NULL); /* no report of a sanitizer */
        act();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && (WIFSIGNALED(status) || WEXITSTATUS(status) != 0));
}

int main(void)
{
    faults_install();
    faults.unsealed = true;
    for (size_t i = 0; i < FILE_BYTES; i++) {
        contents[i] = pattern(i);
    }
    each_guard_has_its_own_spare_page();
    many_missing_pages_are_replaced_at_once();
    check_ends(touch_another_mapping);
    check_ends(send_itself_one);
    a_missing_completion_page_ends_the_session();
    a_missing_submission_page_ends_the_session();
    missing_pages_everywhere_end_the_session();
    missing_buffers_fail_system_calls_with_efault();
    missing_buffers_end_the_session_unwritten(AIOD_RING_WRITE);
    missing_buffers_end_the_session_unwritten(AIOD_RING_READ);
    random_truncation_hurts_no_other_client();
    return 0;
}
