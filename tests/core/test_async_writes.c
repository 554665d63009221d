/* Whether O_DIRECT writes are started or left to workers: the way that is faster, found by trials. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "scratch.h"
#include "session/async_writes.h"

enum {
    US = 1000,
    MANY = 100000,
    DEPTH_MAX = 4096, /* a ring's most entries */
};

static struct aiod_async_writes writes_to_a_file(void)
{
    struct aiod_async_writes writes = {0};
    int file = scratch_file(O_RDWR);

    aiod_async_writes_learn(&writes, file);
    close(file);
    return writes;
}

/* Writes one after the other, which take so long by each way. How many of them are started. */
static unsigned started_of(struct aiod_async_writes *writes, unsigned count, uint64_t started_ns, uint64_t worker_ns)
{
    unsigned started = 0;

    for (unsigned i = 0; i < count; i++) {
        struct aiod_async_write write = aiod_async_writes_next(writes);
        enum aiod_async_writes_way way = write.start ? AIOD_ASYNC_WRITES_STARTED : AIOD_ASYNC_WRITES_BY_WORKER;

        CHECK(write.compared);
        aiod_async_writes_ended(writes, way, write.start ? started_ns : worker_ns);
        started += write.start;
    }
    return started;
}

static void writes_to_an_unknown_file_are_not_compared(void)
{
    struct aiod_async_writes writes = {0};

    for (unsigned i = 0; i < MANY; i++) {
        struct aiod_async_write write = aiod_async_writes_next(&writes);

        CHECK(!write.start && !write.compared);
    }
}

static void the_faster_way_is_found(void)
{
    struct aiod_async_writes writes = writes_to_a_file();

    started_of(&writes, 1000, 80 * US, 100 * US);
    CHECK(started_of(&writes, MANY, 80 * US, 100 * US) > MANY * 9 / 10);
    writes = writes_to_a_file();
    CHECK(started_of(&writes, MANY, 150 * US, 100 * US) < MANY / 20);
}

static void of_two_that_take_as_long_the_cheaper_one_is_chosen(void)
{
    struct aiod_async_writes writes = writes_to_a_file();

    started_of(&writes, 1000, 105 * US, 100 * US);
    CHECK(started_of(&writes, MANY, 105 * US, 100 * US) > MANY * 9 / 10);
}

/*
 * Writes of which `depth` are in flight, so that those of a trial are all submitted before 32 of them have ended. How many
 * are started.
 */
static unsigned started_with_many_in_flight(unsigned depth, uint64_t started_ns, uint64_t worker_ns)
{
    static bool inflight[DEPTH_MAX];
    struct aiod_async_writes writes = writes_to_a_file();
    unsigned started = 0;

    for (unsigned i = 0; i < 2 * MANY; i++) {
        bool *slot = &inflight[i % depth];

        if (i >= depth) {
            aiod_async_writes_ended(&writes, *slot ? AIOD_ASYNC_WRITES_STARTED : AIOD_ASYNC_WRITES_BY_WORKER,
                                    *slot ? started_ns : worker_ns);
        }
        *slot = aiod_async_writes_next(&writes).start;
        started += i >= MANY && *slot;
    }
    return started;
}

static void the_faster_way_is_found_with_many_in_flight(void)
{
    static const unsigned depths[] = {128, 256, 512, 1024, DEPTH_MAX};

    for (size_t i = 0; i < sizeof(depths) / sizeof(depths[0]); i++) {
        CHECK(started_with_many_in_flight(depths[i], 800 * US, 1000 * US) > MANY * 9 / 10);
        CHECK(started_with_many_in_flight(depths[i], 1500 * US, 1000 * US) < MANY / 20);
    }
}

static void bad_trials_end_early_and_become_rare(void)
{
    struct aiod_async_writes writes = writes_to_a_file();

    CHECK(started_of(&writes, MANY, 5000 * US, 100 * US) < 500);
    CHECK(started_of(&writes, MANY, 5000 * US, 100 * US) < 100);
}

static void a_way_that_has_become_slow_is_left(void)
{
    struct aiod_async_writes writes = writes_to_a_file();

    started_of(&writes, MANY, 80 * US, 100 * US);
    started_of(&writes, 10000, 900 * US, 100 * US);
    CHECK(started_of(&writes, 1000, 900 * US, 100 * US) < 100);
    started_of(&writes, 2 * MANY, 80 * US, 100 * US);
    CHECK(started_of(&writes, 10000, 80 * US, 100 * US) > 9000);
}

/* A file system that would block: each request returns to a worker. */
static void what_is_never_started_is_tried_rarely(void)
{
    struct aiod_async_writes writes = writes_to_a_file();
    unsigned tried = 0;

    for (unsigned i = 0; i < MANY; i++) {
        tried += aiod_async_writes_next(&writes).start;
        aiod_async_writes_ended(&writes, AIOD_ASYNC_WRITES_BY_WORKER, 100 * US);
    }
    CHECK(tried > 0 && tried < MANY / 20);
}

static void writes_among_reads_are_started(void)
{
    struct aiod_async_writes writes = writes_to_a_file();

    started_of(&writes, MANY, 5000 * US, 100 * US);
    aiod_async_writes_note_read();
    for (unsigned i = 0; i < 64; i++) {
        struct aiod_async_write write = aiod_async_writes_next(&writes);

        CHECK(write.start && !write.compared);
    }
    CHECK(aiod_async_writes_next(&writes).compared);
}

int main(void)
{
    writes_to_an_unknown_file_are_not_compared();
    the_faster_way_is_found();
    of_two_that_take_as_long_the_cheaper_one_is_chosen();
    the_faster_way_is_found_with_many_in_flight();
    bad_trials_end_early_and_become_rare();
    a_way_that_has_become_slow_is_left();
    what_is_never_started_is_tried_rarely();
    writes_among_reads_are_started();
    return 0;
}
