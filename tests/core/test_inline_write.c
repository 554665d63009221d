/*
 * Writes that are tried where they are taken from the ring. The file system that can write without blocking is the test's
 * (faults.nowait_write_max): ext4 and tmpfs, where the scratch file may be, cannot.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "../../clients/c/client.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

enum {
    BYTES = 4096,
    INLINE_MAX = 65536,
};

static struct aiod_client *client;
static uint32_t handle;
static int file;
static char contents[1 << 20];

static void begin(uint64_t inline_max)
{
    const char *path;
    int64_t opened;

    faults_reset();
    path = engine_start(&(struct engine_config){.inline_read_max = inline_max, .max_threads = 4, .handles_max = 16});
    file = scratch_file(O_RDWR);
    for (size_t i = 0; i < sizeof(contents); i++) {
        contents[i] = pattern(i);
    }
    CHECK(pwrite(file, contents, 1, 0) == 1);
    engine_add_file("file", file);
    CHECK(aiod_attach(&client, path, NULL) == 0);
    opened = aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    CHECK(opened > 0);
    handle = (uint32_t)opened;
}

static void end(void)
{
    faults_reset();
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

static int64_t write_block(unsigned number)
{
    uint64_t offset = (uint64_t)number * BYTES;

    return aiod_pwrite(client, handle, contents + offset, BYTES, offset, AIOD_NO_TIMEOUT);
}

static void write_blocks(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        CHECK(write_block(i) == BYTES);
    }
    check_bytes(file, contents, (uint64_t)count * BYTES, 0);
}

static void writes_after_the_first_are_inline(void)
{
    begin(INLINE_MAX);
    faults.nowait_write_max = SIZE_MAX;
    write_blocks(20);
    CHECK(faults.nowait_writes == 19 && faults.blocking_writes == 1);
    CHECK(aiod_flush(client, handle, AIOD_NO_TIMEOUT) == 0);
    end();
}

/* A worker continues where the attempt ended. */
static void a_short_attempt_is_continued_by_a_worker(void)
{
    begin(INLINE_MAX);
    faults.nowait_write_max = 100;
    write_blocks(20);
    CHECK(faults.nowait_writes == 4 && faults.blocking_writes == 20);
    end();
}

/* After the failures 1, 3 and 7 writes are not tried: of 20 writes those with the numbers 1, 3, 7 and 15 are. */
static void attempts_that_fail_become_rare(void)
{
    begin(INLINE_MAX);
    faults.nowait_write_max = 0;
    write_blocks(20);
    CHECK(faults.nowait_writes == 4 && faults.blocking_writes == 20);
    faults.nowait_write_max = SIZE_MAX;
    for (unsigned i = 20; i < 60; i++) {
        CHECK(write_block(i) == BYTES);
    }
    CHECK(faults.nowait_writes == 4 + 29); /* from number 31 on */
    end();
}

/* The kernel's own answer for a file of a tmpfs. */
static void a_file_system_without_such_writes_is_asked_once(void)
{
    int memory = memfd_create("no RWF_NOWAIT", MFD_CLOEXEC);
    int64_t opened;

    begin(INLINE_MAX);
    engine_add_file("memory", memory);
    opened = aiod_open(client, "x/memory", AIOD_OPEN_WRITE, 0);
    CHECK(memory >= 0 && opened > 0);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(aiod_pwrite(client, (uint32_t)opened, contents, BYTES, 0, AIOD_NO_TIMEOUT) == BYTES);
    }
    CHECK(faults.nowait_writes == 1 && faults.blocking_writes == 20);
    end();
    close(memory);
}

static void an_error_is_reported_by_a_worker(void)
{
    begin(INLINE_MAX);
    faults.nowait_write_max = SIZE_MAX;
    write_blocks(2);
    faults.error = ENOSPC;
    CHECK(write_block(2) == -ENOSPC && aiod_written() == 0);
    end();
}

static void an_error_after_a_short_attempt_tells_what_is_written(void)
{
    begin(INLINE_MAX);
    faults.nowait_write_max = SIZE_MAX;
    write_blocks(2);
    faults.error_after = 100;
    faults.error = ENOSPC;
    CHECK(write_block(2) == -ENOSPC && aiod_written() == 100);
    faults_reset();
    check_bytes(file, contents, 2 * BYTES + 100, 0);
    end();
}

static void write_durably(void)
{
    struct aiod_op op = {.op = AIOD_RING_WRITE, .flags = AIOD_RING_FUA, .handle = handle, .length = BYTES};
    struct aiod_op *done;

    op.buffer = aiod_alloc(client, BYTES);
    CHECK(op.buffer != NULL && aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
    while (aiod_reap(client, &done, 1) == 0) {
    }
    CHECK(done == &op && op.result == BYTES);
    aiod_free(client, op.buffer);
}

static void large_and_durable_writes_are_not_tried(void)
{
    begin(BYTES - 1);
    faults.nowait_write_max = SIZE_MAX;
    write_blocks(5);
    CHECK(faults.nowait_writes == 0);
    end();
    begin(INLINE_MAX);
    faults.nowait_write_max = SIZE_MAX;
    write_blocks(2);
    write_durably();
    CHECK(faults.nowait_writes == 1);
    end();
}

int main(void)
{
    faults_install();
    writes_after_the_first_are_inline();
    a_short_attempt_is_continued_by_a_worker();
    attempts_that_fail_become_rare();
    a_file_system_without_such_writes_is_asked_once();
    an_error_is_reported_by_a_worker();
    an_error_after_a_short_attempt_tells_what_is_written();
    large_and_durable_writes_are_not_tried();
    return 0;
}
