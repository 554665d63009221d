/*
 * Reads and writes that polling workers start by io_uring, and those that return to workers. The kernel's results can be
 * replaced (faults.uring_result), and submissions are watched.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <string.h>
#include <unistd.h>

#include "../../clients/c/client.h"
#include "check.h"
#include "pool/uring.h"
#include "ring_engine.h"
#include "scratch.h"

enum {
    BLOCK = 4096,
    BLOCKS = 256,
    DEPTH = 64,
};

static struct aiod_client *client;
static uint32_t handle;
static int file;
static char contents[BLOCKS * BLOCK];
static char *area; /* DEPTH blocks of the ring's */

static void begin_with(unsigned max_threads, bool in_company)
{
    const char *path;
    int64_t opened;

    faults_reset();
    path = engine_start(&(struct engine_config){.max_threads = max_threads,
                                                .handles_max = 16,
                                                .alignment = BLOCK,
                                                .uring = true,
                                                .uring_in_company = in_company,
                                                .poll_max_ns = 100000});
    file = scratch_file(O_RDWR);
    for (size_t i = 0; i < sizeof(contents); i++) {
        contents[i] = pattern(i);
    }
    CHECK(pwrite(file, contents, sizeof(contents), 0) == sizeof(contents) && fsync(file) == 0);
    engine_add_file("file", file);
    CHECK(aiod_attach(&client, path, NULL) == 0);
    opened = aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    CHECK(opened > 0);
    handle = (uint32_t)opened;
    area = aiod_alloc(client, DEPTH * BLOCK);
    CHECK(area != NULL);
}

static void begin(unsigned max_threads)
{
    begin_with(max_threads, false);
}

static void end(void)
{
    struct aiod_pool_stats stats;

    engine_wait_idle(1);
    stats = engine_pool_stats();
    CHECK(stats.uring_inflight == 0 && stats.uring_failures == 0 && stats.lost_wakeups == 0);
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

static struct aiod_op block_op(uint16_t op, unsigned number, char *buffer)
{
    return (struct aiod_op){.op = op,
                            .handle = handle,
                            .offset = (uint64_t)number * BLOCK,
                            .length = BLOCK,
                            .buffer = buffer,
                            .awaited = true};
}

static int64_t carry_out(struct aiod_op op)
{
    struct aiod_op *ops[] = {&op};

    CHECK(aiod_submit(client, ops, 1) == 1);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0);
    return op.result;
}

static int64_t read_block(unsigned number)
{
    memset(area, 0, BLOCK);
    return carry_out(block_op(AIOD_RING_READ, number, area));
}

static void check_block(unsigned number)
{
    CHECK(read_block(number) == BLOCK);
    CHECK(memcmp(area, contents + (size_t)number * BLOCK, BLOCK) == 0);
}

/* The leader creates its io_uring at its next turn after the handle was opened: until then, workers run the requests. */
static void wait_for_uring(void)
{
    while (engine_pool_stats().uring_requests == 0) {
        check_block(0);
    }
}

static void batches_are_read_and_written(void)
{
    begin(64);
    wait_for_uring();
    for (unsigned round = 0; round < BLOCKS / DEPTH; round++) {
        struct aiod_op ops[DEPTH];
        struct aiod_op *batch[DEPTH];

        for (unsigned i = 0; i < DEPTH; i++) {
            bool writes = i % 3 == 0;
            unsigned number = round * DEPTH + i;
            char *block = area + (size_t)i * BLOCK;

            ops[i] = block_op(writes ? AIOD_RING_WRITE : AIOD_RING_READ, number, block);
            memset(block, 'a' + (int)round, BLOCK);
            if (writes) {
                memset(contents + (size_t)number * BLOCK, 'a' + (int)round, BLOCK);
            }
            batch[i] = &ops[i];
        }
        CHECK(aiod_submit(client, batch, DEPTH) == DEPTH);
        for (unsigned i = 0; i < DEPTH; i++) {
            CHECK(aiod_wait(client, &ops[i], AIOD_NO_TIMEOUT) == 0);
            CHECK(ops[i].result == BLOCK);
            CHECK(memcmp(ops[i].buffer, contents + ops[i].offset, BLOCK) == 0);
        }
    }
    CHECK(aiod_flush(client, handle, AIOD_NO_TIMEOUT) == 0);
    check_bytes(file, contents, sizeof(contents), 0);
    CHECK(engine_pool_stats().uring_requests > 1);
    end();
}

static uint64_t started(void)
{
    return engine_pool_stats().uring_requests;
}

/* Requests in flight at the same time: reads, then writes. */
static void carry_out_together(int reads, int writes)
{
    struct aiod_op ops[DEPTH];
    struct aiod_op *batch[DEPTH] = {0};

    for (int i = 0; i < reads + writes; i++) {
        ops[i] = block_op(i < reads ? AIOD_RING_READ : AIOD_RING_WRITE, (unsigned)i, area + (size_t)i * BLOCK);
        batch[i] = &ops[i];
    }
    CHECK(aiod_submit(client, batch, (unsigned)(reads + writes)) == reads + writes);
    for (int i = 0; i < reads + writes; i++) {
        CHECK(aiod_wait(client, &ops[i], AIOD_NO_TIMEOUT) == 0 && ops[i].result == BLOCK);
    }
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static const struct aiod_os *not_watched;

static struct {
    _Atomic bool judges;
    _Atomic unsigned accepted; /* entries, by the kernel */
    _Atomic unsigned looked;   /* results that the engine has looked at */
    _Atomic uint32_t cq_tail;  /* the ring's, before */
    _Atomic unsigned refusals; /* this many submissions fail */
    _Atomic unsigned part_max; /* a submission has no more entries; 0: no limit */
} watched;

/* No more are prepared, before the first of them are submitted, than the disk has. */
static int watch_submit(struct io_uring *io)
{
    unsigned prepared = io_uring_sq_ready(io);
    unsigned left = watched.part_max > 0 && prepared > watched.part_max ? prepared - watched.part_max : 0;
    int count;

    CHECK(!watched.judges || prepared == 1 || prepared <= watched.accepted);
    if (watched.refusals > 0) {
        watched.refusals--;
        return -EAGAIN;
    }
    io->sq.sqe_tail -= left;
    count = not_watched->uring_submit(io);
    io->sq.sqe_tail += left;
    watched.accepted += count > 0 ? (unsigned)count : 0;
    return count;
}

/* The client has one of the first four results before the fifth is looked at. */
static int watch_result(int result)
{
    if (watched.judges && watched.looked++ >= 4) {
        CHECK(__atomic_load_n(&client->header->cq_tail, __ATOMIC_ACQUIRE) != watched.cq_tail);
    }
    return not_watched->uring_result(result);
}

static void watch(void)
{
    static struct aiod_os os;

    not_watched = aiod_os;
    os = *not_watched;
    os.uring_submit = watch_submit;
    os.uring_result = watch_result;
    aiod_os = &os;
}

static void neither_disk_nor_client_waits_for_a_whole_batch(void)
{
    do {
        begin(DEPTH);
        faults.uring_results_more = INT_MAX; /* no request returns */
        faults.uring_result = BLOCK;
        while (started() == 0) {
            carry_out_together(1, 0);
        }
        engine_wait_idle(1);
        watched.accepted = watched.looked = 0;
        watched.cq_tail = client->header->cq_tail;
        watched.judges = true;
        carry_out_together(DEPTH, 0);
        watched.judges = false;
        end();
    } while (watched.looked <= 4);
}

static void what_the_kernel_does_not_accept_at_once_is_submitted_again(void)
{
    begin(DEPTH);
    wait_for_uring();
    watched.refusals = 3;
    watched.part_max = 3;
    do {
        memset(area, 0, DEPTH * BLOCK);
        carry_out_together(DEPTH, 0);
        CHECK(memcmp(area, contents, DEPTH * BLOCK) == 0);
    } while (watched.refusals > 0);
    watched.part_max = 0;
    end();
}

/* ---- ways of writes ---------------------------------------------------------------------------------------------- */

/* The file is a regular one: async_writes.h. Which way is faster is not known here. */
static void writes_alone_are_carried_out_in_both_ways(void)
{
    uint64_t written = 0;

    begin_with(64, true);
    faults.uring_results_more = INT_MAX; /* whatever the file system says: no request returns */
    faults.uring_result = BLOCK;
    carry_out_together(1, 0); /* the leader creates its io_uring at its next turn; some writes are beside a read */
    do {
        carry_out_together(0, DEPTH);
        written += DEPTH;
    } while (started() <= 2 * DEPTH);
    CHECK(started() < written);
    end();
}

static void a_read_at_the_end_of_the_file_is_short(void)
{
    begin(4);
    CHECK(ftruncate(file, BLOCK + 100) == 0);
    wait_for_uring();
    CHECK(read_block(1) == 100);
    CHECK(memcmp(area, contents + BLOCK, 100) == 0);
    CHECK(read_block(2) == 0);
    end();
}

static void misaligned_requests_are_left_to_workers(void)
{
    struct aiod_op op;
    uint64_t before;

    begin(4);
    wait_for_uring();
    before = engine_pool_stats().uring_requests;
    op = block_op(AIOD_RING_READ, 0, area);
    op.offset = 1;
    CHECK(carry_out(op) == BLOCK);
    CHECK(memcmp(area, contents + 1, BLOCK) == 0);
    CHECK(engine_pool_stats().uring_requests == before);
    end();
}

/* Each result that needs an explanation is the worker's: here the request succeeds. */
static void what_the_kernel_does_not_start_is_run_by_a_worker(void)
{
    static const int results[] = {-EAGAIN, -EINTR, -EINVAL, -EOPNOTSUPP, -ECANCELED};

    begin(4);
    wait_for_uring();
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        uint64_t returned = engine_pool_stats().uring_returned;

        faults.uring_result = results[i];
        while (faults.uring_result != 0) { /* after a failure, some requests are not tried */
            check_block(3);
        }
        CHECK(engine_pool_stats().uring_returned > returned);
    }
    end();
}

/* A full queue of the disk, for example, is one obstacle for many: the requests after it are tried soon. */
static void what_fails_together_is_one_failure(void)
{
    struct aiod_op ops[DEPTH];
    struct aiod_op *batch[DEPTH];
    uint64_t before;
    unsigned tried_after = 0;

    begin(DEPTH);
    wait_for_uring();
    for (unsigned i = 0; i < DEPTH; i++) {
        ops[i] = block_op(AIOD_RING_READ, i, area + (size_t)i * BLOCK);
        batch[i] = &ops[i];
    }
    faults.uring_results_more = DEPTH - 1;
    faults.uring_result = -EAGAIN;
    CHECK(aiod_submit(client, batch, DEPTH) == DEPTH);
    for (unsigned i = 0; i < DEPTH; i++) {
        CHECK(aiod_wait(client, &ops[i], AIOD_NO_TIMEOUT) == 0 && ops[i].result == BLOCK);
    }
    faults.uring_result = 0;
    before = engine_pool_stats().uring_requests;
    while (engine_pool_stats().uring_requests == before) {
        check_block(tried_after++ % BLOCKS);
    }
    CHECK(tried_after < DEPTH);
    end();
}

static void errors_are_reported(void)
{
    int64_t result = BLOCK;

    begin(4);
    wait_for_uring();
    faults.uring_result = -EIO;
    while (faults.uring_result != 0) {
        result = read_block(3);
    }
    CHECK(result == -EIO);
    check_block(3);
    end();
}

static void short_transfers_are_continued(void)
{
    struct aiod_op op;

    begin(4);
    wait_for_uring();
    op = block_op(AIOD_RING_READ, 0, area);
    op.length = 4 * BLOCK;
    faults.uring_result = BLOCK;
    while (faults.uring_result != 0) {
        memset(area, 0, 4 * BLOCK);
        CHECK(carry_out(op) == 4 * BLOCK);
        CHECK(memcmp(area, contents, 4 * BLOCK) == 0);
    }
    op.op = AIOD_RING_WRITE;
    memset(area, 'x', 4 * BLOCK);
    memset(contents, 'x', 4 * BLOCK);
    faults.uring_result = BLOCK;
    while (faults.uring_result != 0) {
        CHECK(carry_out(op) == 4 * BLOCK);
    }
    check_bytes(file, contents, sizeof(contents), 0);
    end();
}

static void requests_that_come_alone_are_kept_by_the_leader_in_the_end(void)
{
    uint64_t started;

    begin_with(4, true);
    do {
        engine_wait_idle(1); /* and the one that is not counted: the leader and the follower */
        started = engine_pool_stats().uring_requests;
        check_block(1);
    } while (started == 0 || engine_pool_stats().uring_requests > started);
    end();
}

/* The file grows: most file systems have to block for that. */
static void appended_blocks_are_written(void)
{
    begin(4);
    CHECK(ftruncate(file, 0) == 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        memcpy(area, contents + (size_t)i * BLOCK, BLOCK);
        CHECK(carry_out(block_op(AIOD_RING_WRITE, i, area)) == BLOCK);
    }
    check_bytes(file, contents, sizeof(contents), 0);
    end();
}

/* A worker that is bound is not recalled: other requests find another one, although only one may be active. */
static void other_requests_do_not_wait_for_a_bound_worker(void)
{
    begin(1);
    wait_for_uring();
    for (unsigned i = 0; i < 200; i++) {
        struct aiod_op one = block_op(AIOD_RING_READ, i % BLOCKS, area);
        struct aiod_op other = {.op = AIOD_RING_SIZE, .handle = handle, .awaited = true};
        struct aiod_op *ops[] = {&one, &other};

        CHECK(aiod_submit(client, ops, 2) == 2);
        CHECK(aiod_wait(client, &other, AIOD_NO_TIMEOUT) == 0 && other.result == sizeof(contents));
        CHECK(aiod_wait(client, &one, AIOD_NO_TIMEOUT) == 0 && one.result == BLOCK);
    }
    end();
}

/* The engine stops while requests are in flight: they end before the worker exits. */
static void requests_in_flight_end_before_the_engine_stops(void)
{
    struct aiod_op ops[DEPTH];
    struct aiod_op *batch[DEPTH];

    begin(64);
    wait_for_uring();
    for (unsigned i = 0; i < DEPTH; i++) {
        ops[i] = block_op(AIOD_RING_READ, i, area + (size_t)i * BLOCK);
        batch[i] = &ops[i];
    }
    CHECK(aiod_submit(client, batch, DEPTH) == DEPTH);
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

int main(void)
{
    int error = aiod_uring_probe();

    if (error < 0) {
        printf("io_uring is not available: %s\n", strerror(-error));
        return STATUS_SKIPPED;
    }
    faults_install();
    watch();
    batches_are_read_and_written();
    neither_disk_nor_client_waits_for_a_whole_batch();
    what_the_kernel_does_not_accept_at_once_is_submitted_again();
    writes_alone_are_carried_out_in_both_ways();
    a_read_at_the_end_of_the_file_is_short();
    misaligned_requests_are_left_to_workers();
    what_the_kernel_does_not_start_is_run_by_a_worker();
    what_fails_together_is_one_failure();
    errors_are_reported();
    short_transfers_are_continued();
    requests_that_come_alone_are_kept_by_the_leader_in_the_end();
    appended_blocks_are_written();
    other_requests_do_not_wait_for_a_bound_worker();
    requests_in_flight_end_before_the_engine_stops();
    return 0;
}
