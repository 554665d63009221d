/*
 * A thread of its own allocates and frees the memory of rings: neither the main loop nor the poller waits for it, and
 * sessions that end meanwhile leave nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "aiod.h"
#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ENTRIES 16u
#define AREA_BYTES (1u << 20)
#define MAKER "aiod-m/main"

static const char *path;
static int file;

static void start(unsigned max_threads)
{
    faults_reset();
    path = engine_start(&(struct engine_config){
        .inline_read_max = 4096, .poll_max_ns = 50000, .max_threads = max_threads, .handles_max = 16});
    file = scratch_file(O_RDWR);
    CHECK(pwrite(file, "served", 6, 0) == 6);
    engine_add_file("file", file);
}

static void stop(void)
{
    engine_stop();
    close(file);
}

/* An open, an inline read, a request on a worker and a close: they need the main loop, the poller and the pool. */
static void be_served(struct aiod_client *client)
{
    int64_t handle = aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    char data[6];

    CHECK(handle > 0);
    CHECK(aiod_pread(client, (uint32_t)handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == sizeof(data));
    CHECK(memcmp(data, "served", sizeof(data)) == 0);
    CHECK(aiod_flush(client, (uint32_t)handle, AIOD_NO_TIMEOUT) == 0);
    CHECK(aiod_close(client, (uint32_t)handle) == 0);
}

/* The thread that allocates and frees: for an idle ring, and for a ring whose last reference is a request's. */
static void the_maker_allocates_and_frees(void)
{
    struct raw_ring ring;
    struct gate gate;

    start(1);
    raw_attach(&ring, path, ENTRIES, AREA_BYTES, "file");
    raw_detach(&ring);
    engine_wait_empty();

    raw_attach(&ring, path, ENTRIES, AREA_BYTES, "file");
    engine_block_worker(&gate);
    raw_put(&ring, 0, &(struct aiod_ring_sqe){.op = AIOD_RING_FLUSH, .handle = ring.handle});
    raw_submit(&ring, 1);
    raw_ring_doorbell(&ring);
    engine_wait_taken(1);
    raw_detach(&ring);
    gate_open(&gate);
    stop();
    CHECK(allocator() != NULL && strcmp(allocator(), MAKER) == 0);
}

/* Other clients are served while a ring is allocated, and while others wait for allocation and release. */
static void other_clients_are_served_meanwhile(void)
{
    struct raw_ring first, second, third;
    struct aiod_client *client;
    struct gate gate;

    start(4);
    raw_attach(&third, path, ENTRIES, AREA_BYTES, "file");
    CHECK(aiod_attach(&client, path, NULL) == 0);
    gate_init(&gate, false);
    faults.allocations_gate = &gate;
    raw_begin_attach(&first, path, ENTRIES, AREA_BYTES);
    gate_wait_for(&gate, 1);
    raw_begin_attach(&second, path, ENTRIES, AREA_BYTES);
    be_served(client);
    raw_detach(&third);
    engine_wait_rings(4, 3); /* the third ring's memory is not free yet */
    be_served(client);
    faults.allocations_gate = NULL;
    gate_open(&gate);
    raw_finish_attach(&first, "file");
    raw_finish_attach(&second, "file");
    raw_detach(&first);
    raw_detach(&second);
    aiod_disconnect(client);
    stop();
}

/* A session that ends while its ring is being allocated, or waits for it, leaves nothing. */
static void a_session_that_ends_meanwhile_leaves_nothing(void)
{
    struct raw_ring made, waiting;
    struct gate gate;

    start(4);
    gate_init(&gate, false);
    faults.allocations_gate = &gate;
    raw_begin_attach(&made, path, ENTRIES, AREA_BYTES);
    gate_wait_for(&gate, 1);
    raw_begin_attach(&waiting, path, ENTRIES, AREA_BYTES);
    engine_wait_rings(2, 2);
    close(made.socket);
    close(waiting.socket);
    engine_wait_rings(2, 0);
    gate_open(&gate);
    stop();
    CHECK(strcmp(allocator(), MAKER) == 0);
}

/* A failed allocation is refused, and the next one succeeds. */
static void a_failed_allocation_is_refused(void)
{
    struct raw_ring ring;

    start(4);
    faults.allocation_error = ENOSPC;
    raw_begin_attach(&ring, path, ENTRIES, AREA_BYTES);
    CHECK(raw_refused(&ring) == ENOSPC);
    engine_wait_empty();
    raw_attach(&ring, path, ENTRIES, AREA_BYTES, "file");
    raw_detach(&ring);
    stop();
}

int main(void)
{
    faults_install();
    the_maker_allocates_and_frees();
    other_clients_are_served_meanwhile();
    a_session_that_ends_meanwhile_leaves_nothing();
    a_failed_allocation_is_refused();
    return 0;
}
