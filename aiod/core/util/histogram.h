/*
 * histogram.h - log-linear buckets, after HdrHistogram: 32 linear buckets in each power of two.
 *
 * A value is off by at most 1/32 (3.1 %). One thread records and reads; no locks.
 */
#ifndef AIOD_HISTOGRAM_H
#define AIOD_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#define AIOD_HISTOGRAM_SUB_BITS 5
#define AIOD_HISTOGRAM_TOP_BIT 42 /* values from 2^43 ns (2.4 hours) on count in the last bucket */
#define AIOD_HISTOGRAM_BUCKETS ((AIOD_HISTOGRAM_TOP_BIT - AIOD_HISTOGRAM_SUB_BITS + 2) << AIOD_HISTOGRAM_SUB_BITS)

struct aiod_histogram {
    uint64_t counts[AIOD_HISTOGRAM_BUCKETS];
};

/* Count `value` (nanoseconds). */
void aiod_histogram_record(struct aiod_histogram *histogram, uint64_t value);

/* Count all that `from` counted. */
void aiod_histogram_add(struct aiod_histogram *histogram, const struct aiod_histogram *from);

/* The bucket that `value` counts in. */
size_t aiod_histogram_index(uint64_t value);

/* The highest value that counts in bucket `index`. */
uint64_t aiod_histogram_upper(size_t index);

#endif
