/* What a client withdraws from its ring is never executed, and it knows what that is, at whatever moment it does so. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "aiod.h"
#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ROUNDS 40u
#define WRITES 32u

static const char *path;
static int file;

/* Write "x" at `offset`. */
static struct aiod_ring_sqe write_at(const struct raw_ring *ring, uint64_t offset)
{
    return (struct aiod_ring_sqe){
        .cookie = offset, .op = AIOD_RING_WRITE, .handle = ring->handle, .offset = offset, .length = 1};
}

static bool is_written(uint64_t offset)
{
    char byte = 0;

    CHECK(pread(file, &byte, 1, (off_t)offset) >= 0);
    return byte == 'x';
}

static void empty_file(void)
{
    CHECK(ftruncate(file, 0) == 0);
}

static void the_engine_says_what_it_may_have_taken(void)
{
    struct raw_ring ring;
    struct raw_ring other;

    empty_file();
    raw_attach(&ring, path, WRITES, 4096, "file");
    raw_attach(&other, path, WRITES, 4096, "file");
    ring.base[ring.header->area_offset] = 'x';
    CHECK(raw_withdrawal(&ring)->shown == 1 && raw_withdrawal(&ring)->sq_begun == 0);
    CHECK(raw_carry_out(&ring, write_at(&ring, 0)).result == 1);
    CHECK(__atomic_load_n(&raw_withdrawal(&ring)->sq_begun, __ATOMIC_SEQ_CST) == 1 && is_written(0));

    __atomic_store_n(&raw_withdrawal(&ring)->sq_withdrawn, 1, __ATOMIC_SEQ_CST);
    raw_put(&ring, 1, &(struct aiod_ring_sqe){0});
    raw_submit(&ring, 2);
    raw_ring_doorbell(&ring);
    for (unsigned i = 0; i < 100; i++) { /* the engine has looked at both rings */
        CHECK(raw_carry_out(&other, write_at(&other, 0)).result == 1);
    }
    CHECK(__atomic_load_n(&ring.header->cq_tail, __ATOMIC_SEQ_CST) == 1);
    CHECK(!raw_has_ended(&ring));
    raw_detach(&ring);
    raw_detach(&other);
    engine_wait_rings(0, 0);
}

static void submit_and_withdraw(unsigned turn)
{
    struct raw_ring ring;
    uint32_t begun;

    empty_file();
    raw_attach(&ring, path, WRITES, 4096, "file");
    ring.base[ring.header->area_offset] = 'x';
    for (uint32_t i = 0; i < WRITES; i++) {
        struct aiod_ring_sqe entry = write_at(&ring, i);

        raw_put(&ring, i, &entry);
    }
    for (uint32_t tail = 1; tail <= WRITES; tail++) {
        raw_submit(&ring, tail);
        if (tail % (turn % WRITES + 1) == 0) {
            raw_ring_doorbell(&ring);
        }
    }
    __atomic_store_n(&raw_withdrawal(&ring)->sq_withdrawn, 1, __ATOMIC_SEQ_CST);
    begun = __atomic_load_n(&raw_withdrawal(&ring)->sq_begun, __ATOMIC_SEQ_CST);
    raw_detach(&ring);
    engine_wait_rings(0, 0);
    CHECK(begun <= WRITES);
    for (uint32_t i = begun; i < WRITES; i++) {
        CHECK(!is_written(i));
    }
}

/* By libaiod: each request that ends as not taken was not executed. */
static void submit_and_end(void)
{
    const struct aiod_options options = {.entries = WRITES, .area_bytes = 4096};
    struct aiod_op requests[WRITES];
    struct aiod_op *ops[WRITES];
    struct aiod_client *client;
    int64_t handle;
    char *data;

    empty_file();
    CHECK(aiod_attach(&client, path, &options) == 0);
    handle = aiod_open(client, "x/file", AIOD_OPEN_WRITE, 0);
    data = aiod_alloc(client, 1);
    CHECK(handle > 0 && data != NULL);
    *data = 'x';
    for (uint32_t i = 0; i < WRITES; i++) {
        requests[i] = (struct aiod_op){
            .op = AIOD_RING_WRITE, .handle = (uint32_t)handle, .offset = i, .length = 1, .buffer = data};
        ops[i] = &requests[i];
    }
    CHECK(aiod_submit(client, ops, WRITES) == WRITES);
    aiod_shutdown(client);
    for (uint32_t i = 0; i < WRITES; i++) {
        CHECK(aiod_done(&requests[i]));
    }
    aiod_disconnect(client);
    engine_wait_rings(0, 0);
    for (uint32_t i = 0; i < WRITES; i++) {
        if (requests[i].reason == AIOD_RING_NOT_TAKEN) {
            CHECK(requests[i].result == -ESHUTDOWN && !is_written(i));
        } else {
            CHECK(requests[i].result < 0 || is_written(i));
        }
    }
}

int main(void)
{
    faults_install();
    path = engine_start(
        &(struct engine_config){.inline_read_max = 4096, .poll_max_ns = 100000, .max_threads = 2, .handles_max = 16});
    file = scratch_file(O_RDWR);
    engine_add_file("file", file);
    the_engine_says_what_it_may_have_taken();
    for (unsigned turn = 0; turn < ROUNDS; turn++) {
        submit_and_withdraw(turn);
        submit_and_end();
    }
    engine_stop();
    close(file);
    return 0;
}
