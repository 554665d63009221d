/*
 * op_stats.h - what is counted of each operation. Whoever owns a set sees to it that one thread at a time uses it.
 */
#ifndef AIOD_OP_STATS_H
#define AIOD_OP_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "util/histogram.h"
#include "protocol/records.h"
#include "pool/request.h"

struct aiod_op_stats {
    uint64_t count;
    uint64_t bytes;
    uint64_t errors;
    uint64_t inlined;              /* answered where it was submitted, by no worker */
    struct aiod_histogram latency; /* ns from admission to the end */
    struct aiod_histogram queue;   /* ns of waiting for a worker */
    struct aiod_histogram service; /* ns in the system call */
};

/* One set an operation, made at its first use: a client that only reads has one. */
struct aiod_stats {
    struct aiod_op_stats *ops[AIOD_OPS];
};

/* How one request went. */
struct aiod_timing {
    uint64_t latency_ns;
    uint64_t queue_ns;
    uint64_t service_ns; /* counted only when `started` */
    bool started;
    bool inlined;
};

/* Count one request that moved `bytes`, or `failed`. Without memory for a new set nothing is counted. */
void aiod_stats_record(struct aiod_stats *stats, enum aiod_op op, uint64_t bytes, bool failed,
                       const struct aiod_timing *timing);

/* Count one that was refused, and never was in flight. */
void aiod_stats_refuse(struct aiod_stats *stats, enum aiod_op op);

/* Of a request that is done. */
struct aiod_timing aiod_timing_of(const struct aiod_request *request);

/* Add all that `from` counted. */
void aiod_stats_add(struct aiod_stats *stats, const struct aiod_stats *from);

void aiod_stats_destroy(struct aiod_stats *stats);

#endif
