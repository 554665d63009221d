/* What is counted of the requests of each export: transports, errnos, bytes and durations, also when a session ends. */
#include "check.h"

#include <errno.h>
#include <string.h>

#include "core.h"

static struct aiod_core *core;
static struct aiod_rate *disk;
static struct aiod_rate *other;

static void take_controls(struct aiod_control *control)
{
    while (control != NULL) {
        struct aiod_control *next = (struct aiod_control *)control->task.request.next;

        aiod_control_destroy(control);
        control = next;
    }
}

/* Run the main loop until the core has nothing in flight. */
static void settle(void)
{
    while (core->inflight > 0) {
        struct aiod_reaped reaped;

        loop_wait(core->pool, 1);
        aiod_core_reap(core, &reaped);
        while (reaped.replies != NULL) {
            struct aiod_reply *next = reaped.replies->next;

            aiod_reply_destroy(reaped.replies);
            reaped.replies = next;
        }
        take_controls(reaped.controls);
    }
}

static struct aiod_session *begin_session(enum aiod_transport transport)
{
    struct aiod_limits limits = {
        .depth_max = 8, .batch_max = 8, .handles_max = 4, .bytes_max = 65536, .request_bytes_max = 32768};
    struct aiod_session *session = aiod_session_create(&limits, NULL);

    CHECK(session != NULL);
    session->transport = transport;
    return session;
}

static void end_session(struct aiod_session *session)
{
    aiod_core_end_session(core, session);
    settle();
    aiod_session_unref(session);
}

/* A read-only handle of a file with 16 bytes. */
static uint32_t open_file(struct aiod_session *session, struct aiod_rate *rate, uint64_t ino)
{
    struct aiod_handle_use use = {.readable = true, .alignment = {1, 1}, .rate = rate};
    char name[] = "/var/tmp/aiod-core-test-XXXXXX";
    int fd = mkstemp(name);
    int64_t number;

    CHECK(fd >= 0 && unlink(name) == 0 && pwrite(fd, "0123456789abcdef", 16, 0) == 16);
    number = aiod_core_add_handle(core, session, fd, -1, 1, ino, &use, NULL);
    CHECK(number > 0);
    return (uint32_t)number;
}

static void submit(struct aiod_session *session, enum aiod_op op, uint32_t handle, uint64_t length)
{
    struct aiod_submission record = {.op = (uint16_t)op, .handle = handle, .length = length};
    struct aiod_reply *reply;

    CHECK(aiod_core_submit(core, session, session->completed, &record, 1, NULL, 0, &reply) == NULL);
    if (reply != NULL) {
        aiod_reply_destroy(reply);
    }
    settle();
}

static uint64_t counted(const struct aiod_histogram *histogram)
{
    uint64_t count = 0;

    for (size_t i = 0; i < AIOD_HISTOGRAM_BUCKETS; i++) {
        count += histogram->counts[i];
    }
    return count;
}

static const struct aiod_stats *shown_of(const struct aiod_rate *rate)
{
    const struct aiod_export_stats *entry = core->exports;

    while (entry != NULL && entry->rate != rate) {
        entry = entry->next;
    }
    CHECK(entry != NULL);
    return &entry->shown;
}

/* Two reads by tcp and one by ipc of 16 bytes, two refused flushes and truncates of `disk`; one read of `other`. */
static void check_counts(void)
{
    struct aiod_stats all = {0};
    struct aiod_stats unnamed = {0};
    const struct aiod_op_stats *reads;

    aiod_core_snapshot_stats(core, &all, &unnamed);
    reads = shown_of(disk)->ops[AIOD_READ];
    CHECK(reads->count == 3 && reads->bytes == 48 && reads->errors == 0);
    CHECK(reads->by_transport[AIOD_BY_TCP] == 2 && reads->by_transport[AIOD_BY_IPC] == 1);
    CHECK(counted(&reads->latency) == 3 && reads->latency.sum > 0 && reads->latency.sum >= reads->service.sum);
    CHECK(shown_of(disk)->ops[AIOD_TRUNCATE]->by_errno[EBADF] == 2);
    CHECK(shown_of(other)->ops[AIOD_READ]->count == 1);
    CHECK(unnamed.ops[AIOD_READ]->count == 1 && unnamed.ops[AIOD_READ]->by_errno[EBADF] == 1);
    CHECK(all.ops[AIOD_READ]->count == 5 && all.ops[AIOD_READ]->errors == 1);
    CHECK(all.ops[AIOD_READ]->latency.sum >= reads->latency.sum);
    aiod_export_stats_end(core->exports);
    aiod_stats_destroy(&all);
    aiod_stats_destroy(&unnamed);
}

static void requests_count_for_their_export(void)
{
    struct aiod_session *remote = begin_session(AIOD_BY_TCP);
    struct aiod_session *local = begin_session(AIOD_BY_IPC);
    uint32_t remote_file = open_file(remote, disk, 1);
    uint32_t local_file = open_file(local, disk, 2);
    uint32_t others_file = open_file(local, other, 3);

    submit(remote, AIOD_READ, remote_file, 100);
    submit(remote, AIOD_READ, remote_file, 16);
    submit(local, AIOD_READ, local_file, 16);
    submit(local, AIOD_READ, others_file, 16);
    submit(local, AIOD_READ, 77, 16); /* no handle: no export */
    submit(local, AIOD_TRUNCATE, local_file, 5);
    submit(remote, AIOD_TRUNCATE, remote_file, 5);
    check_counts();
    end_session(remote);
    check_counts();
    end_session(local);
    check_counts();
}

/* An open has no handle yet; the closes of a session that ends are the daemon's own requests. */
static void opens_and_closes_count_for_their_export(void)
{
    struct aiod_creation creation = {0};
    const struct aiod_stats *stats;
    struct aiod_stats all = {0};
    struct aiod_stats unnamed = {0};

    CHECK(aiod_core_open(core, 1, AIOD_BY_SOCKET, other, "/var/tmp", "aiod-core-test-nothing", AIOD_OPEN_READ,
                         &creation, NULL, 0) == 0);
    settle();
    aiod_core_snapshot_stats(core, &all, &unnamed);
    stats = shown_of(other);
    CHECK(stats->ops[AIOD_OPEN]->by_transport[AIOD_BY_SOCKET] == 1 && stats->ops[AIOD_OPEN]->by_errno[ENOENT] == 1);
    CHECK(stats->ops[AIOD_CLOSE]->count == stats->ops[AIOD_CLOSE]->by_transport[AIOD_BY_DAEMON]);
    aiod_export_stats_end(core->exports);
    aiod_stats_destroy(&all);
    aiod_stats_destroy(&unnamed);
}

static void strange_errnos_are_counted_together(void)
{
    struct aiod_stats stats = {0};
    struct aiod_timing timing = {0};

    aiod_stats_record(&stats, AIOD_BY_RING, AIOD_READ, 0, 512, &timing);
    aiod_stats_record(&stats, AIOD_BY_RING, AIOD_READ, 0, -1, &timing);
    aiod_stats_record(&stats, AIOD_BY_RING, AIOD_READ, 0, EHWPOISON, &timing);
    CHECK(stats.ops[AIOD_READ]->errors == 3);
    CHECK(stats.ops[AIOD_READ]->by_errno[0] == 2 && stats.ops[AIOD_READ]->by_errno[EHWPOISON] == 1);
    aiod_stats_destroy(&stats);
}

int main(void)
{
    struct aiod_core_config config = {
        .pool = {.name = "main", .max_threads = 4, .idle_timeout_ns = 1000000000, .spawn_retry_ns = 1000000000},
        .buffer_cache_max = 1 << 20,
        .rings_max = 1,
    };

    CHECK(aiod_core_create(&core, &config) == 0);
    disk = aiod_rate_create();
    other = aiod_rate_create();
    requests_count_for_their_export();
    opens_and_closes_count_for_their_export();
    strange_errnos_are_counted_together();
    CHECK(aiod_core_stop(core, WAIT_MS * UINT64_C(1000000)));
    aiod_core_destroy(core);
    aiod_rate_unref(disk);
    aiod_rate_unref(other);
    return 0;
}
