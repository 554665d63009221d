/* trace.c - the buffer of traced requests, under a lock of its own, which is held for one copy of an event. */
#include "session/trace.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/os.h"

bool aiod_trace_active;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct aiod_trace_event *events; /* NULL before the first trace */
static size_t event_count;
static uint64_t dropped_count;

static _Thread_local pid_t own_tid;

static pid_t calling_tid(void)
{
    if (own_tid == 0) {
        own_tid = gettid();
    }
    return own_tid;
}

int aiod_trace_begin(void)
{
    int error = 0;

    pthread_mutex_lock(&lock);
    if (events == NULL) {
        events = malloc(AIOD_TRACE_EVENTS_MAX * sizeof(*events));
        error = events == NULL ? -ENOMEM : 0;
    }
    event_count = 0;
    dropped_count = 0;
    __atomic_store_n(&aiod_trace_active, error == 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    return error;
}

void aiod_trace_end(void (*visit)(const struct aiod_trace_event *events, size_t count, void *argument), void *argument,
                    uint64_t *dropped)
{
    pthread_mutex_lock(&lock);
    __atomic_store_n(&aiod_trace_active, false, __ATOMIC_RELAXED);
    visit(events, event_count, argument);
    *dropped = dropped_count;
    event_count = 0;
    pthread_mutex_unlock(&lock);
}

void aiod_trace_record(const struct aiod_request *request, const struct aiod_timing *timing, const char *client,
                       uint64_t cookie, enum aiod_op op, uint64_t bytes, int error)
{
    struct aiod_trace_event event = {
        .reported_ns =
            timing->inlined ? timing->ended_ns : aiod_now_ns(), /* reading the clock costs as much as the rest */
        .cookie = cookie,
        .bytes = bytes,
        .error = error,
        .reporter_tid = calling_tid(),
        .op = (uint16_t)op,
        .inlined = timing->inlined,
    };

    if (timing->inlined) {
        event.submitted_ns = event.reported_ns - timing->latency_ns;
        event.started_ns = event.reported_ns - timing->service_ns;
        event.done_ns = event.reported_ns;
        event.worker_tid = event.reporter_tid;
    } else {
        event.submitted_ns = request->queued_ns;
        event.started_ns = request->started_ns;
        event.done_ns = request->done_ns;
        event.worker_tid = request->tid;
    }
    memcpy(event.client, client, sizeof(event.client));

    pthread_mutex_lock(&lock);
    /* A thread may come late, after the end of the trace: the flag is checked again. */
    if (__atomic_load_n(&aiod_trace_active, __ATOMIC_RELAXED)) {
        if (event_count < AIOD_TRACE_EVENTS_MAX) {
            events[event_count++] = event;
        } else {
            dropped_count++;
        }
    }
    pthread_mutex_unlock(&lock);
}
