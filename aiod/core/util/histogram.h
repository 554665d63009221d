/*
 * histogram.h - a histogram of durations with log-linear buckets.
 *
 * Algorithm: HdrHistogram's, with 32 linear buckets in each power of two. The relative error of a value is at most 1/32
 * (3.1 %). The histogram has no lock: the caller serialises access.
 */
#ifndef AIOD_HISTOGRAM_H
#define AIOD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define AIOD_HISTOGRAM_SUB_BITS 5
#define AIOD_HISTOGRAM_TOP_BIT 42 /* values of 2^43 ns (2.4 hours) and more share the last bucket */
#define AIOD_HISTOGRAM_BUCKETS ((AIOD_HISTOGRAM_TOP_BIT - AIOD_HISTOGRAM_SUB_BITS + 2) << AIOD_HISTOGRAM_SUB_BITS)

struct aiod_histogram {
    uint64_t counts[AIOD_HISTOGRAM_BUCKETS];
    uint64_t sum; /* of the values themselves, exact */
};

/* Count one value, in nanoseconds. */
void aiod_histogram_record(struct aiod_histogram *histogram, uint64_t value);

/* Add the counts of `from`. */
void aiod_histogram_add(struct aiod_histogram *histogram, const struct aiod_histogram *from);

/* The bucket of `value`. */
size_t aiod_histogram_index(uint64_t value);

/* The highest value of bucket `index`. */
uint64_t aiod_histogram_upper(size_t index);

#endif
