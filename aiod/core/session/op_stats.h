/*
 * op_stats.h - counters and latency histograms per operation. There is no lock: the owner of a set serialises access.
 *
 * The sets of an engine (export_stats.h): each export has one of the main loop, and one in each ring. A request is counted
 * in the set of its export, and a request by message in its session's set as well.
 */
#ifndef AIOD_OP_STATS_H
#define AIOD_OP_STATS_H

#include <stdbool.h>
#include <stdint.h>

#include "pool/request.h"
#include "protocol/records.h"
#include "util/histogram.h"

/* How a request came. */
enum aiod_transport {
    AIOD_BY_DAEMON, /* the daemon's own: it closes the files of a session that ended, for example */
    AIOD_BY_RING,
    AIOD_BY_SOCKET, /* the socket of a ring, as a message */
    AIOD_BY_IPC,    /* ZeroMQ */
    AIOD_BY_TCP,    /* ZeroMQ */
    AIOD_BY_VHOST,  /* a virtqueue of a guest */
    AIOD_TRANSPORTS,
};

#define AIOD_ERRNOS 134u /* one more than Linux's highest errno */

struct aiod_op_stats {
    uint64_t count;
    uint64_t by_transport[AIOD_TRANSPORTS]; /* their sum is `count` */
    uint64_t bytes;
    uint64_t errors;
    uint64_t inlined;               /* executed inline, where it was submitted */
    struct aiod_histogram latency;  /* ns from admission to completion */
    struct aiod_histogram queue;    /* ns until a worker started it */
    struct aiod_histogram service;  /* ns of execution */
    uint64_t by_errno[AIOD_ERRNOS]; /* their sum is `errors`; [0]: other numbers */
};

/* One entry per operation, allocated at its first use: the set of a client that only reads has one. */
struct aiod_stats {
    struct aiod_op_stats *ops[AIOD_OPS];
};

/* The durations of one request. */
struct aiod_timing {
    uint64_t latency_ns;
    uint64_t queue_ns;
    uint64_t service_ns; /* counted only when `started` */
    uint64_t ended_ns;   /* of a request that was executed inline: when it was done */
    bool started;
    bool inlined;
};

/*
 * Count a request that moved `bytes` bytes, or failed with the errno `error` (0: success). Does nothing if there is no
 * memory for a new entry.
 */
void aiod_stats_record(struct aiod_stats *stats, enum aiod_transport transport, enum aiod_op op, uint64_t bytes,
                       int error, const struct aiod_timing *timing);

/* Count a request that was refused at admission, with the errno `error`. */
void aiod_stats_refuse(struct aiod_stats *stats, enum aiod_transport transport, enum aiod_op op, int error);

/* The durations of a completed request. */
struct aiod_timing aiod_timing_of(const struct aiod_request *request);

/* Those of a request that was carried out where it was taken. */
struct aiod_timing aiod_timing_inline(uint64_t started_ns, uint64_t ended_ns);

/* Add the counts of `from`. */
void aiod_stats_add(struct aiod_stats *stats, const struct aiod_stats *from);

void aiod_stats_destroy(struct aiod_stats *stats);

#endif
