/* op_stats.c - counters and histograms per operation. */
#include "session/op_stats.h"

#include <stdlib.h>

static struct aiod_op_stats *of_op(struct aiod_stats *stats, enum aiod_op op)
{
    if (stats->ops[op] == NULL) {
        stats->ops[op] = calloc(1, sizeof(*stats->ops[op]));
    }
    return stats->ops[op];
}

static void count(struct aiod_op_stats *counted, enum aiod_transport transport, int error)
{
    counted->count++;
    counted->by_transport[transport]++;
    if (error != 0) {
        counted->errors++;
        counted->by_errno[error > 0 && (unsigned)error < AIOD_ERRNOS ? error : 0]++;
    }
}

void aiod_stats_refuse(struct aiod_stats *stats, enum aiod_transport transport, enum aiod_op op, int error)
{
    struct aiod_op_stats *counted = of_op(stats, op);

    if (counted != NULL) {
        count(counted, transport, error);
    }
}

void aiod_stats_record(struct aiod_stats *stats, enum aiod_transport transport, enum aiod_op op, uint64_t bytes,
                       int error, const struct aiod_timing *timing)
{
    struct aiod_op_stats *counted = of_op(stats, op);

    if (counted == NULL) {
        return;
    }
    count(counted, transport, error);
    counted->inlined += timing->inlined;
    counted->bytes += bytes;
    aiod_histogram_record(&counted->latency, timing->latency_ns);
    aiod_histogram_record(&counted->queue, timing->queue_ns);
    if (timing->started) {
        aiod_histogram_record(&counted->service, timing->service_ns);
    }
}

struct aiod_timing aiod_timing_of(const struct aiod_request *request)
{
    bool started = request->started_ns != 0;

    return (struct aiod_timing){
        .latency_ns = request->done_ns - request->queued_ns,
        .queue_ns = (started ? request->started_ns : request->done_ns) - request->queued_ns,
        .service_ns = started ? request->done_ns - request->started_ns : 0,
        .started = started,
    };
}

struct aiod_timing aiod_timing_inline(uint64_t started_ns, uint64_t ended_ns)
{
    return (struct aiod_timing){
        .latency_ns = ended_ns - started_ns,
        .service_ns = ended_ns - started_ns,
        .ended_ns = ended_ns,
        .started = true,
        .inlined = true,
    };
}

static void add(uint64_t *counts, const uint64_t *from, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        counts[i] += from[i];
    }
}

void aiod_stats_add(struct aiod_stats *stats, const struct aiod_stats *from)
{
    for (size_t op = 0; op < AIOD_OPS; op++) {
        const struct aiod_op_stats *other = from->ops[op];
        struct aiod_op_stats *counted = other == NULL ? NULL : of_op(stats, (enum aiod_op)op);

        if (counted == NULL) {
            continue;
        }
        counted->count += other->count;
        counted->bytes += other->bytes;
        counted->errors += other->errors;
        counted->inlined += other->inlined;
        add(counted->by_transport, other->by_transport, AIOD_TRANSPORTS);
        add(counted->by_errno, other->by_errno, AIOD_ERRNOS);
        aiod_histogram_add(&counted->latency, &other->latency);
        aiod_histogram_add(&counted->queue, &other->queue);
        aiod_histogram_add(&counted->service, &other->service);
    }
}

void aiod_stats_destroy(struct aiod_stats *stats)
{
    for (size_t op = 0; op < AIOD_OPS; op++) {
        free(stats->ops[op]);
        stats->ops[op] = NULL;
    }
}
