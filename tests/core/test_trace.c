/* The trace of completed requests: bounded, only while it is on, and complete with several threads. */
#include "check.h"

#include <string.h>
#include <unistd.h>

#include "session/trace.h"

enum {
    THREADS = 4,
    EACH = 5000
};

struct seen {
    size_t count;
    uint64_t cookies;
    struct aiod_trace_event first;
};

static void visit(const struct aiod_trace_event *events, size_t count, void *argument)
{
    struct seen *seen = argument;

    *seen = (struct seen){.count = count};
    for (size_t i = 0; i < count; i++) {
        seen->cookies += events[i].cookie;
    }
    if (count > 0) {
        seen->first = events[0];
    }
}

static void record(const struct aiod_request *request, uint64_t cookie, bool inlined)
{
    struct aiod_timing timing = {
        .latency_ns = 30, .service_ns = 20, .ended_ns = inlined ? 1000 : 0, .inlined = inlined, .started = true};

    aiod_trace_done(request, &timing, "12345678", cookie, AIOD_WRITE, 4096, 5);
}

static void an_event_has_the_times_of_its_request(void)
{
    struct aiod_request request = {.queued_ns = 10, .started_ns = 20, .done_ns = 30, .tid = 77};
    struct seen seen;
    uint64_t dropped;

    record(&request, 1, false); /* the trace is off */
    CHECK(aiod_trace_begin() == 0);
    record(&request, 2, false);
    aiod_trace_end(visit, &seen, &dropped);
    CHECK(seen.count == 1 && dropped == 0 && seen.cookies == 2);
    CHECK(seen.first.submitted_ns == 10 && seen.first.started_ns == 20 && seen.first.done_ns == 30);
    CHECK(seen.first.worker_tid == 77 && seen.first.reporter_tid == gettid() && seen.first.inlined == 0);
    CHECK(seen.first.bytes == 4096 && seen.first.error == 5 && seen.first.op == AIOD_WRITE);
    CHECK(memcmp(seen.first.client, "12345678", 8) == 0);
}

static void an_inline_request_has_the_times_of_its_execution(void)
{
    struct seen seen;
    uint64_t dropped;

    CHECK(aiod_trace_begin() == 0);
    record(NULL, 1, true);
    aiod_trace_end(visit, &seen, &dropped);
    CHECK(seen.first.done_ns - seen.first.submitted_ns == 30 && seen.first.done_ns - seen.first.started_ns == 20);
    CHECK(seen.first.worker_tid == gettid() && seen.first.inlined == 1);
}

static void what_finds_no_room_is_counted_and_a_new_trace_begins_empty(void)
{
    struct seen seen;
    uint64_t dropped;

    CHECK(aiod_trace_begin() == 0);
    for (unsigned i = 0; i < AIOD_TRACE_EVENTS_MAX + 3; i++) {
        record(NULL, 1, true);
    }
    aiod_trace_end(visit, &seen, &dropped);
    CHECK(seen.count == AIOD_TRACE_EVENTS_MAX && dropped == 3);
    CHECK(aiod_trace_begin() == 0);
    aiod_trace_end(visit, &seen, &dropped);
    CHECK(seen.count == 0 && dropped == 0);
}

static void *record_many(void *unused)
{
    (void)unused;
    for (unsigned i = 0; i < EACH; i++) {
        record(NULL, 1, true);
    }
    return NULL;
}

static void several_threads_lose_nothing(void)
{
    pthread_t threads[THREADS];
    struct seen seen;
    uint64_t dropped;

    CHECK(aiod_trace_begin() == 0);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, record_many, NULL) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    aiod_trace_end(visit, &seen, &dropped);
    CHECK(seen.count == THREADS * EACH && seen.cookies == THREADS * EACH && dropped == 0);
}

int main(void)
{
    an_event_has_the_times_of_its_request();
    an_inline_request_has_the_times_of_its_execution();
    what_finds_no_room_is_counted_and_a_new_trace_begins_empty();
    several_threads_lose_nothing();
    return 0;
}
