/*
 * trace.h - records completed requests in a bounded buffer, while somebody traces (aiodctl trace).
 *
 * While nobody does, a completion costs one load. The buffer is the process's, so that the record of a completion needs
 * no way to it; it is allocated by the first trace and kept.
 */
#ifndef AIOD_TRACE_H
#define AIOD_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pool/request.h"
#include "session/op_stats.h"

#define AIOD_TRACE_EVENTS_MAX 65536u

/* One request. Times are CLOCK_MONOTONIC (ns). Python unpacks it: engine_api/trace_records.py. */
struct aiod_trace_event {
    uint64_t submitted_ns;
    uint64_t started_ns; /* 0: never */
    uint64_t done_ns;
    uint64_t reported_ns; /* the completion is about to be delivered to the client */
    uint64_t cookie;
    uint64_t bytes;
    char client[8];
    int32_t error;        /* errno; 0: none */
    int32_t worker_tid;   /* the thread that carried it out; 0: none of the pool's */
    int32_t reporter_tid; /* the thread that delivers the completion */
    uint16_t op;
    uint16_t inlined;
};

/* Begin: forget earlier events, and record up to AIOD_TRACE_EVENTS_MAX. Any thread. 0, or -ENOMEM. */
int aiod_trace_begin(void);

/*
 * End: record nothing any more. `visit` gets the events and their number; `dropped` becomes the number of requests that
 * found no room. Any thread.
 */
void aiod_trace_end(void (*visit)(const struct aiod_trace_event *events, size_t count, void *argument), void *argument,
                    uint64_t *dropped);

extern bool aiod_trace_active; /* accessed by atomic operations */

void aiod_trace_record(const struct aiod_request *request, const struct aiod_timing *timing, const char *client,
                       uint64_t cookie, enum aiod_op op, uint64_t bytes, int error);

/*
 * A request is complete, with errno `error` (0: none). `request`: NULL if it was executed inline without one. Any
 * thread.
 */
static inline void aiod_trace_done(const struct aiod_request *request, const struct aiod_timing *timing,
                                   const char *client, uint64_t cookie, enum aiod_op op, uint64_t bytes, int error)
{
    if (__atomic_load_n(&aiod_trace_active, __ATOMIC_RELAXED)) {
        aiod_trace_record(request, timing, client, cookie, op, bytes, error);
    }
}

#endif
