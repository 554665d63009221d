/*
 * The leader serves the rings in use. The clients of the other rings are told that the engine sleeps, ring the doorbell,
 * and are served at once.
 */
#include <fcntl.h>
#include <sched.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

enum {
    RINGS = 8,
    ROUNDS = 400
};

static struct raw_ring rings[RINGS];
static uint32_t tails[RINGS];

static bool engine_sleeps(const struct raw_ring *ring)
{
    return __atomic_load_n(&ring->header->engine_sleeps, __ATOMIC_SEQ_CST) != 0;
}

static void wait_asleep(const struct raw_ring *ring)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (!engine_sleeps(ring)) {
        CHECK(aiod_now_ns() < end_ns);
        sched_yield();
    }
}

static void submit(unsigned number)
{
    struct raw_ring *ring = &rings[number];

    raw_put(ring, tails[number]++, &(struct aiod_ring_sqe){.op = AIOD_RING_READ, .handle = ring->handle});
    raw_submit(ring, tails[number]);
    if (engine_sleeps(ring)) {
        raw_ring_doorbell(ring);
    }
}

static void finish(unsigned number)
{
    raw_wait_completed(&rings[number], tails[number]);
    __atomic_store_n(&rings[number].header->cq_head, tails[number], __ATOMIC_RELEASE);
}

static bool is_finished(unsigned number)
{
    return __atomic_load_n(&rings[number].header->cq_tail, __ATOMIC_ACQUIRE) == tails[number];
}

/* The engine sleeps and wakes for one ring; after two sleeps it does not touch the others. */
static void dormant_rings_are_not_touched(void)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        wait_asleep(&rings[0]);
        submit(0);
        finish(0);
        for (unsigned i = 1; i < RINGS && round >= 3; i++) {
            CHECK(engine_sleeps(&rings[i]));
        }
    }
}

/* Each ring is served, whether the engine sleeps or works for another ring, and again after it was idle. */
static void a_dormant_ring_is_served_when_it_rings(void)
{
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned number = 1 + round % (RINGS - 1);

        submit(number);
        while (!is_finished(number)) {
            submit(0);
            finish(0);
        }
        finish(number);
    }
}

/* The leader polls all the time, and does not sleep: a ring that is not used becomes dormant nevertheless. */
static void an_unused_ring_becomes_dormant_beside_a_busy_one(void)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    for (unsigned i = 1; i < RINGS; i++) {
        while (!engine_sleeps(&rings[i])) {
            CHECK(aiod_now_ns() < end_ns);
            submit(0);
            finish(0);
        }
    }
}

static void attach(const char *path, unsigned number)
{
    raw_attach(&rings[number], path, 16, 4096, "file");
    tails[number] = 0;
    submit(number);
    finish(number);
}

/* A ring that comes later gets the slot of one that has gone. */
static void a_slot_is_used_again(const char *path)
{
    for (unsigned round = 0; round < 20; round++) {
        unsigned number = 1 + round % (RINGS - 1);

        raw_detach(&rings[number]);
        submit(0);
        finish(0);
        attach(path, number);
    }
}

static int begin(const char **path, uint64_t poll_max_ns)
{
    int file;

    faults_reset();
    *path = engine_start(&(struct engine_config){
        .inline_read_max = 4096, .poll_max_ns = poll_max_ns, .max_threads = 1, .handles_max = 16});
    file = scratch_file(O_RDWR);
    engine_add_file("file", file);
    attach(*path, 0);
    return file;
}

static void end(int file)
{
    for (unsigned i = 0; i < RINGS; i++) {
        raw_detach(&rings[i]);
    }
    engine_stop();
    close(file);
}

int main(void)
{
    const char *path;
    int file;

    faults_install();
    file = begin(&path, 0);
    for (unsigned i = 1; i < RINGS; i++) {
        attach(path, i);
    }
    dormant_rings_are_not_touched();
    a_dormant_ring_is_served_when_it_rings();
    a_slot_is_used_again(path);
    end(file);

    file = begin(&path, UINT64_C(1) << 60);
    for (unsigned i = 0; i < ROUNDS; i++) { /* the polling time grows with each one that it was too short for */
        submit(0);
        finish(0);
    }
    for (unsigned i = 1; i < RINGS; i++) {
        attach(path, i);
    }
    an_unused_ring_becomes_dormant_beside_a_busy_one();
    a_dormant_ring_is_served_when_it_rings();
    end(file);
    return 0;
}
