#include "op_stats.h"

#include <stdlib.h>

static struct aiod_op_stats *of_op(struct aiod_stats *stats, enum aiod_op op)
{
    if (stats->ops[op] == NULL) {
        stats->ops[op] = calloc(1, sizeof(*stats->ops[op]));
    }
    return stats->ops[op];
}

void aiod_stats_refuse(struct aiod_stats *stats, enum aiod_op op)
{
    struct aiod_op_stats *counted = of_op(stats, op);

    if (counted != NULL) {
        counted->count++;
        counted->errors++;
    }
}

void aiod_stats_record(struct aiod_stats *stats, enum aiod_op op, uint64_t bytes, bool failed,
                       const struct aiod_timing *timing)
{
    struct aiod_op_stats *counted = of_op(stats, op);

    if (counted == NULL) {
        return;
    }
    counted->count++;
    counted->errors += failed;
    counted->inlined += timing->inlined;
    counted->bytes += bytes;
    aiod_histogram_record(&counted->latency, timing->latency_ns);
    aiod_histogram_record(&counted->queue, timing->queue_ns);
    if (timing->started) {
        aiod_histogram_record(&counted->service, timing->service_ns);
    }
}

void aiod_stats_destroy(struct aiod_stats *stats)
{
    for (size_t op = 0; op < AIOD_OPS; op++) {
        free(stats->ops[op]);
        stats->ops[op] = NULL;
    }
}
