/* Blocking calls wait for room in the ring, and report how many bytes a failed write has written. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define THREADS 6u
#define BYTES ((3u << 20) + 1234)
#define FILE_BYTES ((uint64_t)THREADS * BYTES)

static struct aiod_client *client;
static uint32_t handle;
static int file;

static void begin(unsigned max_threads, const struct aiod_options *options)
{
    struct engine_config config = {
        .inline_read_max = 65536, .poll_max_ns = 50000, .max_threads = max_threads, .handles_max = 16};
    int64_t opened;

    faults_reset();
    file = scratch_file(O_RDWR);
    CHECK(aiod_attach(&client, engine_start(&config), options) == 0);
    engine_add_file("file", file);
    opened = aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    CHECK(opened > 0);
    handle = (uint32_t)opened;
}

static void end(void)
{
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

static char *block(unsigned number)
{
    char *data = malloc(BYTES);

    CHECK(data != NULL);
    for (size_t i = 0; i < BYTES; i++) {
        data[i] = pattern(i * 7 + number);
    }
    return data;
}

static void *write_and_read(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;
    uint64_t at = (uint64_t)number * BYTES;
    char *data = block(number);
    char *back = malloc(BYTES);

    CHECK(back != NULL);
    for (unsigned round = 0; round < 4; round++) {
        CHECK(aiod_pwrite(client, handle, data, BYTES, at, AIOD_NO_TIMEOUT) == BYTES);
        memset(back, 0, BYTES);
        CHECK(aiod_pread(client, handle, back, BYTES, at, AIOD_NO_TIMEOUT) == BYTES);
        CHECK(memcmp(back, data, BYTES) == 0);
        CHECK(aiod_flush(client, handle, AIOD_NO_TIMEOUT) == 0);
    }
    if (number == THREADS - 1) { /* across the end of the file */
        CHECK(aiod_pread(client, handle, back, BYTES, FILE_BYTES - 100000, AIOD_NO_TIMEOUT) == 100000);
        CHECK(memcmp(back, data + BYTES - 100000, 100000) == 0);
    }
    free(data);
    free(back);
    return NULL;
}

/* The threads need more room than the ring has. */
static void threads_wait_for_room_and_finish(const struct aiod_options *options)
{
    pthread_t threads[THREADS];

    begin(4, options);
    CHECK(ftruncate(file, (off_t)FILE_BYTES) == 0);
    for (uintptr_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, write_and_read, (void *)i) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    end();
}

/* Only the caller itself could release a buffer. */
static void a_call_fails_when_the_caller_holds_the_whole_area(void)
{
    char data[100];
    void *all;

    begin(4, &(struct aiod_options){.area_bytes = 1 << 20});
    all = aiod_alloc(client, 1 << 20);
    CHECK(all != NULL);
    CHECK(aiod_pread(client, handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == -ENOBUFS);
    aiod_free(client, all);
    CHECK(aiod_pread(client, handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == 0);
    end();
}

/* The caller holds all pages but one. */
static void a_long_transfer_goes_by_the_last_page(void)
{
    char *data = block(1);
    char *back = malloc(BYTES);
    void *most[2];

    begin(4, &(struct aiod_options){.area_bytes = 3 * 4096});
    most[0] = aiod_alloc(client, 4096);
    most[1] = aiod_alloc(client, 4096);
    CHECK(back != NULL && most[0] != NULL && most[1] != NULL);
    CHECK(aiod_pwrite(client, handle, data, 50000, 1, AIOD_NO_TIMEOUT) == 50000);
    CHECK(aiod_pread(client, handle, back, 50000, 1, AIOD_NO_TIMEOUT) == 50000 && memcmp(back, data, 50000) == 0);
    aiod_free(client, most[0]);
    aiod_free(client, most[1]);
    free(data);
    free(back);
    end();
}

static void a_failed_write_reports_the_bytes_written(void)
{
    char *data = block(2);

    begin(1, NULL);
    faults.transfer_max = 100000;
    faults.error_after = 1000000;
    faults.error = ENOSPC;
    CHECK(aiod_pwrite(client, handle, data, BYTES, 0, AIOD_NO_TIMEOUT) == -ENOSPC);
    CHECK(aiod_written() == 1000000);
    faults_reset();
    check_bytes(file, data, 1000000, 0);
    free(data);
    end();
}

/* ---- aiod_perform() ---------------------------------------------------------------------------------------------- */

static int64_t carry_out(unsigned op, unsigned flags, uint64_t offset, uint64_t length, void *data)
{
    return aiod_perform(client,
                        &(struct aiod_op){.op = (uint16_t)op,
                                          .flags = (uint16_t)flags,
                                          .handle = handle,
                                          .offset = offset,
                                          .length = length,
                                          .source = op == AIOD_RING_COPY_RANGE ? handle : 0,
                                          .source_offset = op == AIOD_RING_COPY_RANGE ? 2 * BYTES : 0},
                        data, AIOD_NO_TIMEOUT);
}

static void every_request_can_be_performed(void)
{
    struct aiod_ring_extent extents[AIOD_RING_EXTENTS_MAX];
    struct aiod_ring_stat status;
    char *data = block(3);
    char *back = malloc(BYTES);

    CHECK(back != NULL);
    begin(2, NULL);
    CHECK(carry_out(AIOD_RING_WRITE, AIOD_RING_FUA, 0, BYTES, data) == BYTES);
    CHECK(carry_out(AIOD_RING_READ, 0, 5, BYTES, back) == BYTES - 5 && memcmp(back, data + 5, BYTES - 5) == 0);
    CHECK(carry_out(AIOD_RING_APPEND, 0, 0, 5000, data) == BYTES);
    CHECK(carry_out(AIOD_RING_SIZE, 0, 0, 0, NULL) == BYTES + 5000);
    CHECK(carry_out(AIOD_RING_TRUNCATE, 0, 0, 3 * BYTES, NULL) == 0);
    CHECK(carry_out(AIOD_RING_COPY_RANGE, 0, 0, 8192, NULL) == 8192);
    CHECK(carry_out(AIOD_RING_WRITE_ZEROES, AIOD_RING_UNMAP, 4096, 1 << 20, NULL) == 0);
    CHECK(carry_out(AIOD_RING_FLUSH, 0, 0, 0, NULL) == 0);
    memset(data, 0, 4096 + (1 << 20));
    check_bytes(file, data, BYTES, 0);

    CHECK(carry_out(AIOD_RING_STAT, 0, 0, 0, &status) == sizeof(status));
    CHECK(status.size == 3 * BYTES && S_ISREG(status.mode));
    CHECK(carry_out(AIOD_RING_EXTENTS, 0, 4096, 2 << 20, extents) % (int64_t)sizeof(*extents) == 0);
    CHECK(extents[0].length == 1 << 20 && extents[0].flags == AIOD_RING_HOLE && extents[1].flags == 0);

    CHECK(carry_out(AIOD_RING_CANCEL, 0, 0, 0, NULL) == -EINVAL && carry_out(99, 0, 0, 0, NULL) == -EINVAL);
    CHECK(carry_out(AIOD_RING_READ_FILE, 0, 0, 4096, back) == -EINVAL);
    CHECK(aiod_reason() == AIOD_RING_BY_KERNEL);
    CHECK(carry_out(AIOD_RING_DISCARD, AIOD_RING_FUA, 0, 0, NULL) == -EINVAL && aiod_reason() == AIOD_RING_BAD_ENTRY);
    CHECK(carry_out(AIOD_RING_WRITE_ZEROES, 0, 0, UINT64_C(2) << 30, NULL) == -EMSGSIZE);
    free(data);
    free(back);
    end();
}

/* The records of STAT and EXTENTS need room in the area, which the engine checks. */
static void a_request_waits_for_the_room_of_its_result(void)
{
    struct aiod_ring_extent extents[AIOD_RING_EXTENTS_MAX];
    void *most;

    begin(2, &(struct aiod_options){.area_bytes = 16384});
    CHECK(carry_out(AIOD_RING_EXTENTS, 0, 0, 4096, extents) == 0);
    most = aiod_alloc(client, 4096);
    CHECK(most != NULL && carry_out(AIOD_RING_EXTENTS, 0, 0, 4096, extents) == -ENOBUFS);
    CHECK(aiod_perform(client, &(struct aiod_op){.op = AIOD_RING_STAT, .handle = handle},
                       &(struct aiod_ring_stat){.size = 1}, AIOD_NO_TIMEOUT) == sizeof(struct aiod_ring_stat));
    aiod_free(client, most);
    end();
}

int main(void)
{
    faults_install();
    every_request_can_be_performed();
    a_request_waits_for_the_room_of_its_result();
    threads_wait_for_room_and_finish(NULL);
    threads_wait_for_room_and_finish(&(struct aiod_options){.entries = 4, .never_spin = true});
    threads_wait_for_room_and_finish(&(struct aiod_options){.area_bytes = 256 << 10});
    a_call_fails_when_the_caller_holds_the_whole_area();
    a_long_transfer_goes_by_the_last_page();
    a_failed_write_reports_the_bytes_written();
    return 0;
}
