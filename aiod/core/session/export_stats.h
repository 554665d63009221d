/*
 * export_stats.h - the counts of each export, which metrics and aiodctl top show.
 *
 * An export is known by its rate (pool/rate.h), of which each has one. Main loop's thread only, but for the sets of rings
 * (aiod_session_flow.ring_stats), which the lock of their ring protects.
 */
#ifndef AIOD_EXPORT_STATS_H
#define AIOD_EXPORT_STATS_H

#include "pool/rate.h"
#include "session/op_stats.h"

struct aiod_export_stats {
    struct aiod_rate *rate;  /* a reference */
    struct aiod_stats stats; /* without the counts of existing rings */
    struct aiod_stats shown; /* during a snapshot: with them */
    struct aiod_export_stats *next;
};

/* The entry of the list for the export with this rate, which is added if it is missing. NULL: no rate, or no memory. */
struct aiod_export_stats *aiod_export_stats_get(struct aiod_export_stats **list, struct aiod_rate *rate);

/* Begin a snapshot: `shown` of each entry gets its counts. End it: free what they need. */
void aiod_export_stats_begin(struct aiod_export_stats *list);
void aiod_export_stats_end(struct aiod_export_stats *list);

void aiod_export_stats_destroy(struct aiod_export_stats *list);

#endif
