/*
 * Idle workers poll the rings: those that sleep when the first ring comes, and those that finish a request; no more than
 * max_threads of them carry out requests.
 */
#include <fcntl.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ENTRIES 64u

static struct raw_ring ring;
static uint32_t submitted;

static const char *begin(unsigned max_threads)
{
    const char *path;

    faults_reset();
    submitted = 0;
    path = engine_start(&(struct engine_config){.max_threads = max_threads, .handles_max = 16});
    engine_add_file("file", scratch_file(O_RDWR));
    return path;
}

static void end(void)
{
    raw_detach(&ring);
    engine_stop();
}

/* As libaiod submits: the doorbell rings only if the engine says that it sleeps. */
static void submit(void)
{
    raw_put(&ring, submitted,
            &(struct aiod_ring_sqe){.cookie = submitted, .op = AIOD_RING_SIZE, .handle = ring.handle});
    raw_submit(&ring, ++submitted);
    if (__atomic_load_n(&ring.header->engine_sleeps, __ATOMIC_SEQ_CST) != 0) {
        raw_ring_doorbell(&ring);
    }
}

static void workers_that_sleep_already_poll_the_first_ring(void)
{
    const char *path = begin(4);
    struct gate gates[3];

    for (size_t i = 0; i < 3; i++) {
        engine_block_worker(&gates[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        gate_open(&gates[i]);
    }
    engine_wait_idle(3);
    raw_attach(&ring, path, ENTRIES, 4096, "file");
    for (uint32_t i = 1; i <= 20; i++) {
        submit();
        raw_wait_completed(&ring, i);
    }
    end();
}

/* While max_threads workers are active a request is taken, and waits; the worker that finishes carries it out. */
static void a_request_waits_for_one_of_max_threads_workers(void)
{
    const char *path = begin(2);
    struct gate gates[2];

    raw_attach(&ring, path, ENTRIES, 4096, "file");
    engine_block_worker(&gates[0]);
    engine_block_worker(&gates[1]);
    submit();
    submit();
    engine_wait_taken(2);
    CHECK(__atomic_load_n(&ring.header->cq_tail, __ATOMIC_SEQ_CST) == 0);
    gate_open(&gates[0]);
    raw_wait_completed(&ring, 2);
    submit();
    raw_wait_completed(&ring, 3);
    gate_open(&gates[1]);
    end();
}

int main(void)
{
    faults_install();
    workers_that_sleep_already_poll_the_first_ring();
    a_request_waits_for_one_of_max_threads_workers();
    return 0;
}
