/*
 * A leader that shares its only CPU with all its clients yields while it has nothing to do, and sleeps when that lets no
 * client run, whatever ring_poll_max_us allows: here a poll by the clock would not end within the test.
 */
#include <fcntl.h>
#include <sched.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ROUNDS 400u
#define POLL_MAX_NS (UINT64_C(1) << 60)

static void wait_asleep(const struct raw_ring *ring)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (__atomic_load_n(&ring->header->engine_sleeps, __ATOMIC_SEQ_CST) == 0) {
        CHECK(aiod_now_ns() < end_ns);
        sched_yield();
    }
}

int main(void)
{
    struct raw_ring ring;
    const char *path;
    cpu_set_t cpus;
    int file;

    CPU_ZERO(&cpus);
    CPU_SET((size_t)sched_getcpu(), &cpus);
    CHECK(sched_setaffinity(0, sizeof(cpus), &cpus) == 0); /* inherited by the threads that are created later */
    faults_install();
    path = engine_start(&(struct engine_config){
        .inline_read_max = 4096, .poll_max_ns = POLL_MAX_NS, .max_threads = 1, .handles_max = 16});
    file = scratch_file(O_RDWR);
    engine_add_file("file", file);
    raw_attach(&ring, path, 16, 4096, "file");
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (i % 2 ==
            0) { /* in the other rounds the poller finds the request before it sleeps, which would double its polling time */
            wait_asleep(&ring);
        }
        raw_put(&ring, i, &(struct aiod_ring_sqe){.op = AIOD_RING_READ, .handle = ring.handle});
        raw_submit(&ring, i + 1);
        raw_ring_doorbell(&ring);
        raw_wait_completed(&ring, i + 1);
        __atomic_store_n(&ring.header->cq_head, i + 1, __ATOMIC_RELEASE);
    }
    wait_asleep(&ring);
    raw_detach(&ring);
    engine_stop();
    close(file);
    return 0;
}
