/* libaiod and an engine: every request ends exactly once, with its result or its errno. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "../../clients/c/client.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define FILE_BYTES (1u << 20)

static const char *path;
static struct aiod_client *client;
static uint32_t handle;
static int file;
static char contents[FILE_BYTES];

static uint32_t open_handle(unsigned flags)
{
    int64_t opened = aiod_open(client, "x/file", flags, 0);

    CHECK(opened > 0);
    return (uint32_t)opened;
}

static void begin_with(uint64_t inline_read_max, uint64_t poll_max_ns, unsigned max_threads,
                       const struct aiod_options *options)
{
    faults_reset();
    path = engine_start(&(struct engine_config){
        .inline_read_max = inline_read_max, .poll_max_ns = poll_max_ns, .max_threads = max_threads, .handles_max = 16});
    file = scratch_file(O_RDWR);
    for (size_t i = 0; i < FILE_BYTES; i++) {
        contents[i] = pattern(i);
    }
    CHECK(pwrite(file, contents, FILE_BYTES, 0) == FILE_BYTES);
    engine_add_file("file", file);
    CHECK(aiod_attach(&client, path, options) == 0);
    handle = open_handle(AIOD_OPEN_READ | AIOD_OPEN_WRITE);
}

static void begin(uint64_t inline_read_max)
{
    begin_with(inline_read_max, 0, 4, NULL);
}

static void end(void)
{
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

static void reads_and_writes(void)
{
    char data[8192];

    for (unsigned turn = 0; turn < 200; turn++) {
        uint64_t offset = turn * 4001;

        CHECK(aiod_pread(client, handle, data, sizeof(data), offset, AIOD_NO_TIMEOUT) == sizeof(data));
        CHECK(memcmp(data, contents + offset, sizeof(data)) == 0);
    }
    CHECK(aiod_pread(client, handle, data, sizeof(data), FILE_BYTES - 100, AIOD_NO_TIMEOUT) == 100);
    CHECK(aiod_pread(client, handle, data, sizeof(data), FILE_BYTES, AIOD_NO_TIMEOUT) == 0);
    CHECK(aiod_pwrite(client, handle, "written", 7, FILE_BYTES, AIOD_NO_TIMEOUT) == 7);
    CHECK(aiod_flush(client, handle, AIOD_NO_TIMEOUT) == 0);
    check_bytes(file, "written", 7, FILE_BYTES);
}

static void reads_and_writes_complete_inline_and_by_workers(void)
{
    begin(65536);
    reads_and_writes();
    end();
    begin(0);
    reads_and_writes();
    end();
    begin_with(65536, 1000000, 4, &(struct aiod_options){.never_spin = true});
    reads_and_writes();
    end();
}

static struct aiod_op read_of(uint64_t offset, uint64_t length)
{
    return (struct aiod_op){.op = AIOD_RING_READ,
                            .handle = handle,
                            .offset = offset,
                            .length = length,
                            .buffer = aiod_alloc(client, length)};
}

/* `entries` requests in flight, while the indices go round the queues many times. */
static void a_full_ring_loses_no_request(uint64_t inline_read_max)
{
    enum {
        COUNT = 16,
        ROUNDS = 500
    };
    struct aiod_op ops[COUNT];
    unsigned submitted = 0;
    unsigned reaped = 0;

    begin_with(inline_read_max, 0, 4, &(struct aiod_options){.entries = COUNT, .area_bytes = COUNT * 4096});
    for (unsigned i = 0; i < COUNT; i++) {
        ops[i] = read_of(i * 4096, 4096);
        ops[i].user = (void *)(uintptr_t)(i * 4096);
        CHECK(ops[i].buffer != NULL);
    }
    CHECK(aiod_alloc(client, 1) == NULL);
    while (reaped < COUNT * ROUNDS) {
        struct aiod_op *done[COUNT];
        unsigned count;

        if (submitted < COUNT) {
            struct aiod_op *op = &ops[submitted];

            submitted += (unsigned)aiod_submit(client, &op, 1);
            continue;
        }
        CHECK(aiod_wait_any(client, AIOD_NO_TIMEOUT) == 0);
        count = aiod_reap(client, done, COUNT);
        for (unsigned i = 0; i < count; i++) {
            CHECK(done[i]->result == 4096);
            CHECK(memcmp(done[i]->buffer, contents + (uintptr_t)done[i]->user, 4096) == 0);
            memset(done[i]->buffer, 0, 4096);
            reaped++;
            if (submitted++ < COUNT * ROUNDS) {
                CHECK(aiod_submit(client, &done[i], 1) == 1);
            }
        }
    }
    CHECK(aiod_submit(client, &(struct aiod_op *){&ops[0]}, 1) == 1 && aiod_wait(client, &ops[0], -1) == 0);
    end();
}

static int64_t result_of(struct aiod_op op, uint32_t *reason)
{
    struct aiod_op *one = &op;

    CHECK(aiod_submit(client, &one, 1) == 1);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0);
    *reason = op.reason;
    return op.result;
}

/* STAT and EXTENTS need room for a result that their length does not tell. */
static void results_stay_within_the_area(void)
{
    const uint64_t sizes[] = {sizeof(struct aiod_ring_stat), AIOD_RING_EXTENTS_MAX * sizeof(struct aiod_ring_extent)};
    const uint16_t ops[] = {AIOD_RING_STAT, AIOD_RING_EXTENTS};
    uint32_t reason;

    begin(65536);
    for (unsigned i = 0; i < 2; i++) {
        uint64_t area = aiod_alloc_max(client);
        char *first = aiod_alloc(client, area);
        struct aiod_op op = {.op = ops[i], .handle = handle, .buffer = first + area - sizes[i]};

        op.length = ops[i] == AIOD_RING_EXTENTS ? 4096 : 0;
        CHECK(result_of(op, &reason) > 0);
        op.buffer = (char *)op.buffer + 1;
        CHECK(result_of(op, &reason) == -EINVAL && reason == AIOD_RING_BAD_ENTRY);
        op.buffer = first + area;
        CHECK(result_of(op, &reason) == -EINVAL);
        if (ops[i] == AIOD_RING_EXTENTS) { /* the range may be longer than a request that moves its bytes */
            op.buffer = first;
            op.length = UINT64_C(1) << 40;
            CHECK(result_of(op, &reason) > 0);
        }
        aiod_free(client, first);
    }
    end();
}

static void invalid_requests_end_with_errno_and_reason(void)
{
    char *buffer;
    uint32_t reason;
    uint32_t reader;

    begin(65536);
    buffer = aiod_alloc(client, 4096);
    reader = open_handle(AIOD_OPEN_READ);
    CHECK(result_of((struct aiod_op){.op = 99, .handle = handle}, &reason) == -EINVAL && reason == AIOD_RING_BAD_ENTRY);
    CHECK(result_of((struct aiod_op){.op = 13, .handle = handle, .length = 1}, &reason) == -EINVAL); /* IOCTL */
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_READ, .handle = 12345, .length = 1, .buffer = buffer}, &reason) ==
              -EBADF &&
          reason == AIOD_RING_NO_HANDLE);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_WRITE, .handle = reader, .length = 1, .buffer = buffer},
                    &reason) == -EBADF &&
          reason == AIOD_RING_NO_ACCESS);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_READ, .handle = handle, .length = 2 << 20, .buffer = buffer},
                    &reason) == -EMSGSIZE &&
          reason == AIOD_RING_TOO_LONG);
    /* Buffers outside the area. */
    CHECK(
        result_of((struct aiod_op){.op = AIOD_RING_READ, .handle = handle, .length = 1, .buffer = buffer + (64 << 20)},
                  &reason) == -EINVAL);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_READ, .handle = handle, .length = 4096, .buffer = buffer - 1},
                    &reason) == -EINVAL);
    CHECK(aiod_close(client, reader) == 0 && aiod_close(client, reader) == -EBADF);
    CHECK(aiod_open(client, "x/nothing", AIOD_OPEN_READ, 0) == -ENOENT);
    aiod_free(client, buffer);
    end();
}

static void size_copy_truncate_zeroes_and_append_work(void)
{
    uint32_t reason;
    uint32_t other;

    begin(65536);
    other = open_handle(AIOD_OPEN_READ | AIOD_OPEN_WRITE);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_SIZE, .handle = handle}, &reason) == FILE_BYTES);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_COPY_RANGE,
                                     .handle = handle,
                                     .offset = FILE_BYTES,
                                     .length = 1000,
                                     .source = other,
                                     .source_offset = 77},
                    &reason) == 1000);
    check_bytes(file, contents + 77, 1000, FILE_BYTES);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_TRUNCATE, .handle = handle, .length = 5000}, &reason) == 0);
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_WRITE_ZEROES, .handle = handle, .offset = 100, .length = 10},
                    &reason) == 0);
    check_bytes(file, "\0\0\0\0\0\0\0\0\0\0", 10, 100);
    {
        char *buffer = aiod_alloc(client, 3);

        memcpy(buffer, "end", 3);
        CHECK(result_of((struct aiod_op){.op = AIOD_RING_APPEND, .handle = handle, .length = 3, .buffer = buffer},
                        &reason) == 5000);
        aiod_free(client, buffer);
    }
    check_bytes(file, "end", 3, 5000);
    end();
}

/* ---- threads ---------------------------------------------------------------------------------------------------------- */

static void *read_repeatedly(void *argument)
{
    char data[4096];
    uint64_t at = (uintptr_t)argument * 5000;

    for (unsigned turn = 0; turn < 500; turn++) {
        at = (at + 12345) % (FILE_BYTES - sizeof(data));
        CHECK(aiod_pread(client, handle, data, sizeof(data), at, AIOD_NO_TIMEOUT) == sizeof(data));
        CHECK(memcmp(data, contents + at, sizeof(data)) == 0);
    }
    return NULL;
}

static void threads_share_a_client_without_mixing_data(uint64_t inline_read_max)
{
    pthread_t threads[6];

    begin_with(inline_read_max, 50000, 4, NULL);
    for (uintptr_t i = 0; i < 6; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_repeatedly, (void *)i) == 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        pthread_join(threads[i], NULL);
    }
    end();
}

/* An awaited request is returned to its waiter only, although another thread takes all completions. */
static void *reap_until_stopped(void *argument)
{
    _Atomic bool *stop = argument;
    uint64_t seen = 0;

    while (!*stop) {
        struct aiod_op *done[16];

        CHECK(aiod_reap(client, done, 16) == 0);
        aiod_wait_count(client, seen, 1000000);
        seen = aiod_done_count(client);
    }
    return NULL;
}

static void *poll_for_reads(void *argument)
{
    uint64_t at = (uintptr_t)argument * 5000;

    for (unsigned turn = 0; turn < 500; turn++) {
        struct aiod_op op;
        struct aiod_op *one = &op;

        at = (at + 12345) % (FILE_BYTES - 4096);
        op = read_of(at, 4096);
        op.awaited = true;
        CHECK(aiod_submit(client, &one, 1) == 1);
        if (aiod_look_for(client, &op, turn % 100) != 1) {
            CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0);
        }
        CHECK(op.result == 4096 && memcmp(op.buffer, contents + at, 4096) == 0);
        aiod_free(client, op.buffer);
    }
    return NULL;
}

static void awaited_requests_are_not_reaped(uint64_t inline_read_max)
{
    pthread_t threads[4];
    pthread_t reaper;
    _Atomic bool stop = false;
    struct aiod_op op;
    struct aiod_op *one = &op;

    begin_with(inline_read_max, 50000, 4, NULL);
    CHECK(pthread_create(&reaper, NULL, reap_until_stopped, &stop) == 0);
    for (uintptr_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, poll_for_reads, (void *)i) == 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    stop = true;
    pthread_join(reaper, NULL);

    op = read_of(0, 4096);
    op.awaited = true;
    CHECK(aiod_submit(client, &one, 1) == 1);
    aiod_await_no_more(client, &op);
    CHECK(aiod_wait_any(client, AIOD_NO_TIMEOUT) == 0);
    CHECK(aiod_reap(client, &one, 1) == 1 && one == &op && op.result == 4096);
    end();
}

static void a_look_finds_a_completion_that_nobody_has_taken(void)
{
    struct aiod_op op;
    struct aiod_op *one = &op;

    begin_with(65536, 50000, 1, NULL);
    op = read_of(0, 4096);
    CHECK(!aiod_look(client, 100)); /* nothing is in flight */
    CHECK(aiod_submit(client, &one, 1) == 1);
    while (!aiod_look(client, 100)) {
    }
    CHECK(!aiod_look(client, 0));
    CHECK(aiod_reap(client, &one, 1) == 1 && one == &op && op.result == 4096);
    CHECK(!aiod_look(client, 100));       /* it is taken */
    while (!aiod_engine_sleeps(client)) { /* polling ends where there is nothing to do */
    }
    aiod_free(client, op.buffer);
    end();
}

/* ---- ends -------------------------------------------------------------------------------------------------------------- */

/* The only worker waits at the gate, so that all other requests stay queued. */
static struct gate gate;

static void begin_blocked(void)
{
    begin_with(0, 0, 1, NULL);
    engine_block_worker(&gate);
}

static void cancelled_and_expired_requests_are_not_executed(void)
{
    struct aiod_op ops[3];

    begin_blocked();
    for (unsigned i = 0; i < 3; i++) {
        struct aiod_op *op = &ops[i];

        ops[i] = read_of(0, 4096);
        ops[i].deadline_ms = i == 1 ? 1 : 0;
        CHECK(aiod_submit(client, &op, 1) == 1);
    }
    CHECK(aiod_wait(client, &ops[1], AIOD_NO_TIMEOUT) ==
          0); /* by the timer of the main loop, which the poller has set */
    CHECK(ops[1].result == -ETIMEDOUT && ops[1].reason == AIOD_RING_DEADLINE);
    engine_wait_taken(2);
    CHECK(!aiod_done(&ops[0]));
    CHECK(aiod_cancel(client, &ops[0], AIOD_NO_TIMEOUT) == 1);
    CHECK(aiod_wait(client, &ops[0], AIOD_NO_TIMEOUT) == 0);
    CHECK(ops[0].result == -ECANCELED && ops[0].reason == AIOD_RING_CANCELLED);
    CHECK(aiod_cancel(client, &ops[0], AIOD_NO_TIMEOUT) == 0);
    gate_open(&gate);
    CHECK(aiod_wait(client, &ops[2], AIOD_NO_TIMEOUT) == 0 && ops[2].result == 4096);
    end();
}

static void abandoned_requests_are_freed_and_not_reaped(void)
{
    struct aiod_op *op;
    char data[16];

    begin_blocked();
    CHECK(aiod_pread(client, handle, data, sizeof(data), 0, 1000000) == -ETIMEDOUT);
    gate_open(&gate);
    CHECK(aiod_pread(client, handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == sizeof(data));
    op = malloc(sizeof(*op));
    *op = read_of(0, 16);
    CHECK(aiod_submit(client, &op, 1) == 1 && aiod_wait_any(client, AIOD_NO_TIMEOUT) == 0);
    aiod_abandon(client, op);
    CHECK(aiod_reap(client, &op, 1) == 0);
    end();
}

/* The engine releases the handle, the memory and both requests, of which one is active and one queued. */
static void a_client_that_disconnects_leaves_nothing_in_the_engine(void)
{
    struct aiod_op ops[2];

    begin_blocked();
    for (unsigned i = 0; i < 2; i++) {
        struct aiod_op *op = &ops[i];

        ops[i] = read_of(0, 4096);
        CHECK(aiod_submit(client, &op, 1) == 1);
    }
    aiod_disconnect(client);
    gate_open(&gate);
    engine_wait_empty();
    engine_stop();
    close(file);
}

/* A handle is closed when its requests in flight have completed; new requests fail at once. */
static void close_waits_for_requests_and_refuses_new_ones(void)
{
    struct aiod_op op;
    uint32_t reason;
    struct aiod_ring_close message;

    begin_blocked();
    op = read_of(0, 4096);
    CHECK(aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
    engine_wait_taken(1);
    message = (struct aiod_ring_close){.type = AIOD_RING_CLOSE, .handle = handle, .cookie = 1000};
    CHECK(send(client->socket, &message, sizeof(message), 0) == sizeof(message)); /* aiod_close() would wait */
    while (result_of((struct aiod_op){.op = AIOD_RING_FLUSH, .handle = handle, .deadline_ms = 1}, &reason) != -EBADF) {
    }
    CHECK(!aiod_done(&op));
    gate_open(&gate);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0 && op.result == 4096);
    end();
}

static void *close_in_thread(void *result)
{
    *(int *)result = aiod_close(client, handle);
    return NULL;
}

/* A call without an answer blocks no other call of the client. */
static void calls_do_not_wait_for_each_other(void)
{
    struct aiod_op op;
    pthread_t thread;
    uint32_t reason;
    int closed = 1;

    begin_blocked();
    op = read_of(0, 4096);
    CHECK(aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
    engine_wait_taken(1);
    CHECK(pthread_create(&thread, NULL, close_in_thread, &closed) == 0);
    while (result_of((struct aiod_op){.op = AIOD_RING_FLUSH, .handle = handle, .deadline_ms = 1}, &reason) != -EBADF) {
    }
    for (unsigned i = 0; i < 10; i++) {
        open_handle(AIOD_OPEN_READ);
    }
    CHECK(closed == 1);
    gate_open(&gate);
    pthread_join(thread, NULL);
    CHECK(closed == 0);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0 && op.result == 4096);
    end();
}

static void a_call_without_an_answer_times_out(void)
{
    struct aiod_op op;
    uint64_t timeout_ns;

    begin_blocked();
    op = read_of(0, 4096);
    CHECK(aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
    engine_wait_taken(1);
    timeout_ns = client->call_timeout_ns;
    client->call_timeout_ns = 20000000; /* for this call only: a busy machine needs longer for the others */
    CHECK(aiod_close(client, handle) == -ETIMEDOUT);
    CHECK(strstr(aiod_error(), "in time") != NULL);
    client->call_timeout_ns = timeout_ns;
    gate_open(&gate);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0 && op.result == 4096);
    open_handle(AIOD_OPEN_READ); /* the late answer is ignored */
    end();
}

static void a_draining_engine_refuses_new_requests(void)
{
    struct aiod_op op;
    uint32_t reason;

    begin_blocked();
    op = read_of(0, 4096);
    CHECK(aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
    engine_wait_taken(1);
    engine_drain();
    CHECK(result_of((struct aiod_op){.op = AIOD_RING_FLUSH, .handle = handle}, &reason) == -ESHUTDOWN);
    CHECK(reason == AIOD_RING_STOPPING);
    gate_open(&gate);
    CHECK(aiod_wait(client, &op, AIOD_NO_TIMEOUT) == 0 && op.result == 4096);
    end();
}

/* ---- an event loop ----------------------------------------------------------------------------------------------------- */

static void an_event_loop_is_woken_by_the_socket(void)
{
    begin_with(0, 0, 4, NULL);
    for (unsigned turn = 0; turn < 200; turn++) {
        struct aiod_op op = read_of(turn, 4096);
        struct aiod_op *done;

        CHECK(aiod_submit(client, &(struct aiod_op *){&op}, 1) == 1);
        while (aiod_reap(client, &done, 1) == 0) {
            struct pollfd fd = {.fd = aiod_fd(client), .events = POLLIN};

            if (aiod_arm(client)) {
                CHECK(poll(&fd, 1, (int)WAIT_MS) == 1);
            }
            aiod_disarm(client);
        }
        CHECK(done == &op && op.result == 4096);
        aiod_free(client, op.buffer);
    }
    end();
}

/* The engine tries once for each handle whether the file has reads that never block. */
static void reads_without_nowait_go_to_workers(void)
{
    int memory = memfd_create("no RWF_NOWAIT", MFD_CLOEXEC);
    char data[100];
    int64_t opened;

    CHECK(memory >= 0 && pwrite(memory, contents, FILE_BYTES, 0) == FILE_BYTES);
    begin(65536);
    engine_add_file("memory", memory);
    for (unsigned round = 1; round <= 2; round++) {
        opened = aiod_open(client, "x/memory", AIOD_OPEN_READ, 0);
        CHECK(opened > 0);
        for (unsigned i = 0; i < 10; i++) {
            CHECK(aiod_pread(client, (uint32_t)opened, data, sizeof(data), i, AIOD_NO_TIMEOUT) == sizeof(data));
            CHECK(memcmp(data, contents + i, sizeof(data)) == 0 && faults.nowait_reads == round);
        }
    }
    end();
    close(memory);
}

int main(void)
{
    faults_install();
    reads_and_writes_complete_inline_and_by_workers();
    a_full_ring_loses_no_request(65536);
    a_full_ring_loses_no_request(0);
    invalid_requests_end_with_errno_and_reason();
    results_stay_within_the_area();
    size_copy_truncate_zeroes_and_append_work();
    threads_share_a_client_without_mixing_data(65536);
    threads_share_a_client_without_mixing_data(0);
    awaited_requests_are_not_reaped(65536);
    awaited_requests_are_not_reaped(0);
    a_look_finds_a_completion_that_nobody_has_taken();
    cancelled_and_expired_requests_are_not_executed();
    abandoned_requests_are_freed_and_not_reaped();
    a_client_that_disconnects_leaves_nothing_in_the_engine();
    close_waits_for_requests_and_refuses_new_ones();
    calls_do_not_wait_for_each_other();
    a_call_without_an_answer_times_out();
    a_draining_engine_refuses_new_requests();
    an_event_loop_is_woken_by_the_socket();
    reads_without_nowait_go_to_workers();
    return 0;
}
