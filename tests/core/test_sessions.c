/*
 * Batches of sessions through the whole core: credit, refusals, handles, replies, poisoned files, the end of a session.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#include "core.h"

enum {
    DEPTH = 8,
    BYTES = 65536,
    REQUEST_BYTES = 32768,
    BATCH = 8
};

static const struct aiod_handle_use both = {.readable = true, .writable = true, .alignment = {1, 1}};
static const struct aiod_handle_use reading = {.readable = true, .alignment = {1, 1}};

static struct aiod_core *core;
static struct aiod_session *session;
static uint32_t handle;
static int fd;
static uint64_t received;

static struct aiod_completion completions[1024];
static struct aiod_failure failures[1024];
static char payload_of[1024][16];
static size_t completion_count;
static size_t failure_count;
static uint64_t control_tags[64];
static size_t control_count;

/* ---- a client ---------------------------------------------------------------------------------------------------- */

static void take_reply(struct aiod_reply *reply)
{
    for (uint32_t i = 0; i < reply->record_count; i++) {
        const struct aiod_completion *record = &reply->records[i];

        if (record->result > 0 && reply->frame_count > 0) {
            const struct aiod_buffer *frame = reply->frames[record->frame];

            CHECK(record->frame < reply->frame_count);
            CHECK(record->frame_offset + (uint64_t)record->result <= frame->length);
            memcpy(payload_of[completion_count], frame->data + record->frame_offset,
                   record->result < 16 ? (size_t)record->result : 16);
        }
        completions[completion_count++] = *record;
    }
    for (uint32_t i = 0; i < reply->failure_count; i++) {
        CHECK(reply->failures[i].error == -reply->records[reply->failures[i].index].result);
        failures[failure_count++] = reply->failures[i];
    }
    received += reply->record_count;
    aiod_reply_destroy(reply);
}

/* Requests start and end while the main loop inspects them, as in the engine. */
static void look(void)
{
    struct aiod_active_request_info views[16];
    size_t count = aiod_core_find_slow(core, views, 8);

    count += aiod_core_active_requests(core, views + count, 8);
    for (size_t i = 0; i < count; i++) {
        CHECK(views[i].op > 0 && views[i].op < AIOD_OPS);
        CHECK(views[i].handle == NULL || views[i].handle->session->client[0] == '\0');
    }
}

static void turn(void)
{
    struct aiod_reaped reaped;

    look();
    loop_wait(core->pool, 1);
    aiod_core_reap(core, &reaped);
    while (reaped.replies != NULL) {
        struct aiod_reply *next = reaped.replies->next;

        take_reply(reaped.replies);
        reaped.replies = next;
    }
    while (reaped.controls != NULL) {
        struct aiod_control *next = (struct aiod_control *)reaped.controls->task.request.next;

        control_tags[control_count++] = reaped.controls->tag;
        aiod_control_destroy(reaped.controls);
        reaped.controls = next;
    }
}

static void released(struct aiod_payload *payload)
{
    free(payload);
}

static const char *submit_with(uint64_t says_received, const struct aiod_submission *records, size_t count,
                               const char *data, size_t length)
{
    struct aiod_payload *payload = NULL;
    struct aiod_reply *reply;
    const char *wrong;

    if (data != NULL) {
        payload = malloc(sizeof(*payload));
        *payload = (struct aiod_payload){.data = data, .length = length, .refs = 1, .release = released};
    }
    wrong = aiod_core_submit(core, session, says_received, records, count, &payload, payload != NULL, &reply);
    if (payload != NULL) {
        aiod_payload_put(payload);
    }
    if (reply != NULL) {
        CHECK(wrong == NULL);
        take_reply(reply);
    }
    return wrong;
}

static void submit(const struct aiod_submission *records, size_t count)
{
    CHECK(submit_with(received, records, count, NULL, 0) == NULL);
}

static void wait_completions(size_t count)
{
    while (completion_count < count) {
        turn();
    }
    CHECK(completion_count == count);
}

static void wait_controls(size_t count)
{
    while (control_count < count) {
        turn();
    }
}

static void begin(uint64_t inline_read_max)
{
    struct aiod_core_config config = {
        .pool = {.name = "main", .max_threads = 4, .idle_timeout_ns = 1000000000, .spawn_retry_ns = 1000000000},
        .inline_read_max = inline_read_max,
        .buffer_cache_max = 1 << 20,
        .rings_max = 1,
    };
    struct aiod_limits limits = {.depth_max = DEPTH,
                                 .batch_max = BATCH,
                                 .handles_max = 4,
                                 .bytes_max = BYTES,
                                 .request_bytes_max = REQUEST_BYTES};
    char name[] = "/var/tmp/aiod-core-test-XXXXXX";

    faults_reset();
    received = completion_count = failure_count = control_count = 0;
    fd = mkstemp(name);
    CHECK(fd >= 0 && unlink(name) == 0);
    CHECK(pwrite(fd, "0123456789abcdef", 16, 0) == 16);
    CHECK(aiod_core_create(&core, &config) == 0);
    aiod_core_set_slow_limits(core, 1, 0);
    session = aiod_session_create(&limits, NULL);
    CHECK(session != NULL);
    handle = (uint32_t)aiod_core_add_handle(core, session, fd, -1, 1, 1, &both, NULL);
    CHECK(handle > 0);
}

static void end(void)
{
    aiod_core_end_session(core, session);
    while (core->inflight > 0) {
        turn();
    }
    CHECK(core->files.descriptors == 0 && core->bytes_inflight == 0 && session->refs == 1);
    aiod_session_unref(session);
    CHECK(aiod_core_stop(core, WAIT_MS * UINT64_C(1000000)));
    aiod_core_destroy(core);
}

static struct aiod_submission read_of(uint64_t cookie, uint64_t offset, uint64_t length)
{
    return (struct aiod_submission){
        .cookie = cookie, .op = AIOD_READ, .handle = handle, .offset = offset, .length = length};
}

static struct aiod_submission write_of(uint64_t cookie, uint64_t offset, uint64_t length)
{
    return (struct aiod_submission){
        .cookie = cookie, .op = AIOD_WRITE, .handle = handle, .offset = offset, .length = length};
}

static struct aiod_submission flush_of(uint64_t cookie, uint32_t number)
{
    return (struct aiod_submission){.cookie = cookie, .op = AIOD_FLUSH, .handle = number};
}

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

static void reads(uint64_t inline_read_max)
{
    struct aiod_submission records[4];

    begin(inline_read_max);
    records[0] = read_of(10, 2, 4);
    records[1] = read_of(11, 12, 100); /* short, at the end of the file */
    records[2] = read_of(12, 1000, 10);
    records[3] = read_of(13, 0, 0);
    submit(records, 4);
    wait_completions(4);
    for (size_t i = 0; i < 4; i++) {
        static const int64_t results[] = {4, 4, 0, 0};
        static const char *const texts[] = {"2345", "cdef", "", ""};
        uint64_t which = completions[i].cookie - 10;

        CHECK(completions[i].result == results[which]);
        CHECK(memcmp(payload_of[i], texts[which], strlen(texts[which])) == 0);
    }
    CHECK(core->stats.ops[AIOD_READ]->count == 4 && core->stats.ops[AIOD_READ]->bytes == 8);
    end();
}

static void writes_and_flushes_complete(void)
{
    struct aiod_submission records[3];
    char back[6];

    begin(0);
    records[0] = write_of(1, 100, 3);
    records[1] = write_of(2, 103, 3);
    records[1].frame_offset = 3;
    records[2] = write_of(3, 0, 0);
    CHECK(submit_with(0, records, 3, "abcxyz", 6) == NULL);
    wait_completions(3);
    CHECK(completions[0].result + completions[1].result + completions[2].result == 6);
    CHECK(pread(fd, back, 6, 100) == 6 && memcmp(back, "abcxyz", 6) == 0);
    records[0] = flush_of(4, handle);
    records[1] = (struct aiod_submission){.cookie = 5, .op = AIOD_SIZE, .handle = handle};
    submit(records, 2);
    wait_completions(5);
    CHECK(completions[3].result + completions[4].result == 106);
    end();
}

/* Its client may have moved to another daemon: this one was frozen, or cut off. */
static void after_the_lease_no_change_is_begun(void)
{
    struct aiod_submission records[2];
    char back[4];

    begin(0);
    session->lease_until_ns = 1;
    records[0] = write_of(1, 0, 4);
    records[1] = read_of(2, 0, 4);
    CHECK(submit_with(0, records, 2, "late", 4) == NULL);
    wait_completions(2);
    for (size_t i = 0; i < 2; i++) {
        bool is_write = completions[i].cookie == 1;

        CHECK(completions[i].result == (is_write ? -ECANCELED : 4));
        CHECK(completions[i].reason == (is_write ? AIOD_REASON_CANCELLED : 0));
    }
    CHECK(pread(fd, back, 4, 0) == 4 && memcmp(back, "0123", 4) == 0);
    session->lease_until_ns = aiod_boot_ns() + UINT64_C(3600000000000);
    CHECK(submit_with(received, records, 1, "next", 4) == NULL);
    wait_completions(3);
    CHECK(completions[2].result == 4);
    end();
}

static void invalid_records_are_refused_singly(void)
{
    static const struct {
        int error;
        enum aiod_reason reason;
    } wanted[BATCH] = {
        {EBADF, AIOD_REASON_NO_HANDLE},   {EBADF, AIOD_REASON_NO_ACCESS},  {EINVAL, AIOD_REASON_BAD_ENTRY},
        {EINVAL, AIOD_REASON_BAD_ENTRY},  {EINVAL, AIOD_REASON_BAD_ENTRY}, {EINVAL, AIOD_REASON_BAD_ENTRY},
        {EMSGSIZE, AIOD_REASON_TOO_LONG}, {EINVAL, AIOD_REASON_BAD_ENTRY},
    };
    struct aiod_submission records[BATCH];
    int64_t read_only;

    begin(65536);
    read_only = aiod_core_add_handle(core, session, dup(fd), -1, 1, 1, &reading, NULL);
    records[0] = read_of(0, 0, 1);
    records[0].handle = handle + (1u << 16); /* another generation */
    records[1] = write_of(1, 0, 1);
    records[1].handle = (uint32_t)read_only;
    records[2] = read_of(2, UINT64_C(1) << 63, 1);
    records[3] = read_of(3, INT64_MAX, 1);
    records[4] = read_of(4, 0, 1);
    records[4].op = 99;
    records[5] = read_of(5, 0, 1);
    records[5].flags = 1;
    records[6] = read_of(6, 0, REQUEST_BYTES + 1);
    records[7] = flush_of(7, handle);
    records[7].length = 1;
    CHECK(submit_with(0, records, BATCH, "x", 1) == NULL);
    CHECK(completion_count == BATCH && failure_count == BATCH); /* all were refused, none went to the pool */
    for (size_t i = 0; i < BATCH; i++) {
        CHECK(completions[i].cookie == i && failures[i].index == i);
        CHECK(failures[i].error == wanted[i].error && failures[i].reason == wanted[i].reason);
        CHECK(completions[i].reason == (uint32_t)wanted[i].reason);
    }
    records[0] = read_of(9, 0, 4); /* the session continues */
    submit(records, 1);
    wait_completions(BATCH + 1);
    CHECK(completions[BATCH].result == 4 && completions[BATCH].reason == 0);
    end();
}

static void records_over_the_credit_are_refused(void)
{
    struct aiod_submission records[BATCH];

    begin(0);
    for (size_t i = 0; i < BATCH; i++) {
        records[i] = read_of(i, 0, 4);
    }
    submit(records, BATCH);
    wait_completions(BATCH);
    /* not acknowledged: the credit is still used */
    CHECK(submit_with(0, records, 2, NULL, 0) == NULL);
    CHECK(failure_count == 2 && failures[0].error == EAGAIN && failures[1].reason == AIOD_REASON_OVER_CREDIT);
    records[0] = read_of(0, 0, 4);
    submit(records, 1); /* fits with the acknowledgement */
    wait_completions(BATCH + 3);
    CHECK(completions[BATCH + 2].result == 4);

    records[0] = read_of(0, 0, REQUEST_BYTES); /* bytes as well: two fit, the third does not */
    records[1] = records[2] = records[0];
    submit(records, 3);
    wait_completions(BATCH + 6);
    CHECK(failure_count == 3 && failures[2].error == EAGAIN && failures[2].index == 0);
    end();
}

static void malformed_batches_are_not_executed(void)
{
    struct aiod_submission records[BATCH + 1];

    for (size_t i = 0; i <= BATCH; i++) {
        records[i] = read_of(i, 0, 1);
    }
    begin(0);
    CHECK(submit_with(1, records, 1, NULL, 0) != NULL);         /* acknowledges a completion that was never sent */
    CHECK(submit_with(0, records, BATCH + 1, NULL, 0) != NULL); /* over batch_max */
    CHECK(submit_with(0, records, 1, "unnamed", 7) != NULL);
    records[0] = write_of(0, 0, 8);
    records[0].handle = handle;
    CHECK(submit_with(0, records, 1, "short", 5) != NULL);
    CHECK(submit_with(0, records, 1, NULL, 0) != NULL); /* no frame */
    records[0].frame = 7;
    CHECK(submit_with(0, records, 1, "absentee", 8) != NULL);
    records[0].frame = 0;
    records[0].frame_offset = UINT32_MAX;
    CHECK(submit_with(0, records, 1, "absentee", 8) != NULL);
    CHECK(completion_count == 0 && core->inflight == 0 && session->submitted == 0);
    for (size_t i = 0; i < BATCH; i++) {
        records[i] = read_of(i, 0, 1);
        records[i].handle = 0;
    }
    CHECK(submit_with(0, records, BATCH, NULL, 0) == NULL);
    CHECK(submit_with(0, records, BATCH, NULL, 0) == NULL);
    CHECK(submit_with(0, records, 1, NULL, 0) != NULL); /* over twice the credit */
    end();
}

static void a_failed_flush_is_permanent(void)
{
    struct aiod_submission records[1];
    int64_t other;

    begin(0);
    other = aiod_core_add_handle(core, session, dup(fd), -1, 1, 1, &both, NULL);
    faults.flush_error = EIO;
    records[0] = flush_of(1, handle);
    submit(records, 1);
    wait_completions(1);
    CHECK(completions[0].result == -EIO && failures[0].reason == AIOD_REASON_BY_KERNEL);
    /* the kernel would report success now, and the other handle belongs to the same file */
    for (int i = 0; i < 2; i++) {
        records[0] = flush_of(2, i == 0 ? handle : (uint32_t)other);
        submit(records, 1);
        wait_completions(2 + (size_t)i);
        CHECK(completions[1 + i].result == -EIO && failures[1 + i].reason == AIOD_REASON_POISONED);
    }
    CHECK(aiod_core_close_handle(core, 1, session, handle) == 0);
    CHECK(aiod_core_close_handle(core, 2, session, (uint32_t)other) == 0);
    while (control_count < 2) {
        turn();
    }
    other = aiod_core_add_handle(core, session, dup(0), -1, 1, 1, &both, NULL); /* all handles closed: forgotten */
    CHECK(!aiod_flushes_poisoned(&aiod_handle_find(session, (uint32_t)other)->file->flushes));
    end();
}

static bool is_open(int number)
{
    return fcntl(number, F_GETFD) >= 0;
}

/* Flushes use the descriptor that was opened first, until the file's last handle is closed. */
static void flushes_keep_the_first_descriptor(void)
{
    struct aiod_submission records[1];
    int second_fd;
    uint32_t second;

    begin(0);
    second_fd = dup(fd);
    second = (uint32_t)aiod_core_add_handle(core, session, second_fd, -1, 1, 1, &both, NULL);
    CHECK(aiod_core_close_handle(core, 1, session, handle) == 0);
    wait_controls(1);
    CHECK(is_open(fd) && core->files.descriptors == 2);
    records[0] = flush_of(1, second);
    submit(records, 1);
    wait_completions(1);
    CHECK(completions[0].result == 0);
    CHECK(aiod_core_close_handle(core, 2, session, second) == 0);
    wait_controls(2);
    while (core->inflight > 0) { /* the end of the first descriptor is not reported */
        turn();
    }
    CHECK(!is_open(fd) && !is_open(second_fd) && core->files.descriptors == 0);
    end();
}

/* A payload in several frames is written in order, whatever lies between the records. */
static void a_payload_can_span_frames(void)
{
    static const char *const texts[] = {"..ab", "c", "defgh", "ijk.."};
    struct aiod_payload *payloads[4];
    struct aiod_submission records[2];
    struct aiod_reply *reply;
    char back[11];

    begin(0);
    for (size_t i = 0; i < 4; i++) {
        payloads[i] = malloc(sizeof(*payloads[i]));
        *payloads[i] =
            (struct aiod_payload){.data = texts[i], .length = strlen(texts[i]), .refs = 1, .release = released};
    }
    records[0] = write_of(1, 50, 7); /* "abcdefg" */
    records[0].frame_offset = 2;
    records[1] = write_of(2, 57, 4); /* "hijk" */
    records[1].frame = 2;
    records[1].frame_offset = 4;
    CHECK(aiod_core_submit(core, session, 0, records, 2, payloads, 4, &reply) == NULL && reply == NULL);
    wait_completions(2);
    CHECK(pread(fd, back, 11, 50) == 11 && memcmp(back, "abcdefghijk", 11) == 0);
    records[0].length = 100; /* longer than all following frames */
    CHECK(aiod_core_submit(core, session, 0, records, 1, payloads, 4, &reply) != NULL);
    for (size_t i = 0; i < 4; i++) {
        CHECK(payloads[i]->refs == 1);
        aiod_payload_put(payloads[i]);
    }
    end();
}

static void a_copy_keeps_both_handles_open(void)
{
    struct aiod_submission copy = {.cookie = 1, .op = AIOD_COPY_RANGE, .offset = 100, .length = 4};
    char back[4];
    int source_fd;

    begin(0);
    source_fd = dup(fd);
    copy.handle = handle;
    copy.frame = (uint32_t)aiod_core_add_handle(core, session, source_fd, -1, 1, 1, &reading, NULL);
    copy.frame_offset = 3;
    submit(&copy, 1);
    CHECK(aiod_core_close_handle(core, 1, session, copy.frame) == 0);
    wait_completions(1);
    wait_controls(1);
    CHECK(completions[0].result == 4 && pread(fd, back, 4, 100) == 4 && memcmp(back, "3456", 4) == 0);
    copy.cookie = 2; /* the source is closing */
    submit(&copy, 1);
    CHECK(completions[1].result == -EBADF && failures[0].reason == AIOD_REASON_NO_HANDLE);
    end();
}

static void close_waits_for_requests_in_flight(void)
{
    struct aiod_submission records[2];

    begin(0);
    records[0] = read_of(1, 0, 4);
    records[1] = read_of(2, 4, 4);
    submit(records, 2);
    CHECK(aiod_core_close_handle(core, 77, session, handle) == 0);
    CHECK(aiod_core_close_handle(core, 78, session, handle) == -EBADF);
    records[0] = read_of(3, 0, 4);
    submit(records, 1);
    CHECK(failures[0].error == EBADF);
    while (control_count == 0) {
        turn();
    }
    CHECK(control_tags[0] == 77 && completion_count == 3);
    for (size_t i = 0; i < 3; i++) {
        CHECK(completions[i].result == (completions[i].cookie == 3 ? -EBADF : 4));
    }
    end();
}

static void an_ended_session_drops_its_completions(void)
{
    struct aiod_submission records[BATCH];

    for (int rounds = 0; rounds < 50; rounds++) {
        begin(0);
        for (size_t i = 0; i < BATCH; i++) {
            records[i] = i % 2 == 0 ? read_of(i, 0, 16) : write_of(i, 0, 4);
        }
        CHECK(submit_with(0, records, BATCH, "0123", 4) == NULL);
        for (int i = 0; i < rounds % 3; i++) {
            turn();
        }
        completion_count = 0;
        end();
        CHECK(completion_count == 0); /* not delivered */
    }
}

static void a_draining_core_refuses_requests(void)
{
    struct aiod_submission records[1];

    begin(65536);
    core->draining = true;
    records[0] = read_of(1, 0, 4);
    submit(records, 1);
    CHECK(completions[0].result == -ESHUTDOWN && failures[0].reason == AIOD_REASON_STOPPING);
    CHECK(completions[0].reason == AIOD_REASON_STOPPING);
    end();
}

static void handle_numbers_are_limited_and_not_reused(void)
{
    int64_t numbers[3];
    int another;

    begin(0);
    for (size_t i = 0; i < 3; i++) {
        numbers[i] = aiod_core_add_handle(core, session, dup(fd), -1, 1, 1, &both, NULL);
        CHECK(numbers[i] > 0);
    }
    another = dup(fd);
    CHECK(aiod_core_add_handle(core, session, another, -1, 1, 1, &both, NULL) == -EMFILE && close(another) == 0);
    CHECK(aiod_core_close_handle(core, 1, session, (uint32_t)numbers[1]) == 0);
    while (control_count < 1) {
        turn();
    }
    numbers[0] = aiod_core_add_handle(core, session, dup(fd), -1, 1, 1, &both, NULL);
    CHECK(numbers[0] > 0 && numbers[0] != numbers[1]); /* the slot is reused, the number is not */
    CHECK(aiod_handle_find(session, (uint32_t)numbers[1]) == NULL);
    end();
}

/* Each handle is tested once for reads that do not block. */
static void unsupported_inline_reads_are_tried_once(void)
{
    begin(65536);
    CHECK(dup2(memfd_create("no RWF_NOWAIT", MFD_CLOEXEC), fd) == fd && pwrite(fd, "0123456789", 10, 0) == 10);
    for (unsigned i = 1; i <= 5; i++) {
        submit(&(struct aiod_submission[]){read_of(i, 2, 4)}[0], 1);
        wait_completions(i);
        CHECK(completions[i - 1].result == 4 && memcmp(payload_of[i - 1], "2345", 4) == 0);
        CHECK(faults.nowait_reads == 1);
    }
    end();
}

int main(void)
{
    faults_install();
    reads(0);
    reads(65536);
    writes_and_flushes_complete();
    after_the_lease_no_change_is_begun();
    invalid_records_are_refused_singly();
    records_over_the_credit_are_refused();
    malformed_batches_are_not_executed();
    a_failed_flush_is_permanent();
    flushes_keep_the_first_descriptor();
    a_payload_can_span_frames();
    a_copy_keeps_both_handles_open();
    close_waits_for_requests_in_flight();
    an_ended_session_drops_its_completions();
    a_draining_core_refuses_requests();
    handle_numbers_are_limited_and_not_reused();
    unsupported_inline_reads_are_tried_once();
    return 0;
}
