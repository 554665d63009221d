/* histogram.c - the mapping between values and log-linear buckets. */
#include "util/histogram.h"

#define SUB_COUNT (1u << AIOD_HISTOGRAM_SUB_BITS)

size_t aiod_histogram_index(uint64_t value)
{
    unsigned top;
    unsigned shift;

    if (value < SUB_COUNT) {
        return (size_t)value;
    }
    top = 63u - (unsigned)__builtin_clzll(value);
    if (top > AIOD_HISTOGRAM_TOP_BIT) {
        return AIOD_HISTOGRAM_BUCKETS - 1;
    }
    shift = top - AIOD_HISTOGRAM_SUB_BITS;
    return ((size_t)(shift + 1) << AIOD_HISTOGRAM_SUB_BITS) + (size_t)((value >> shift) & (SUB_COUNT - 1));
}

uint64_t aiod_histogram_upper(size_t index)
{
    size_t shift;
    uint64_t base;

    if (index < SUB_COUNT) {
        return index;
    }
    shift = (index >> AIOD_HISTOGRAM_SUB_BITS) - 1;
    base = SUB_COUNT + (index & (SUB_COUNT - 1));
    return ((base + 1) << shift) - 1;
}

void aiod_histogram_record(struct aiod_histogram *histogram, uint64_t value)
{
    histogram->counts[aiod_histogram_index(value)]++;
    histogram->sum += value;
}

void aiod_histogram_add(struct aiod_histogram *histogram, const struct aiod_histogram *from)
{
    for (size_t i = 0; i < AIOD_HISTOGRAM_BUCKETS; i++) {
        histogram->counts[i] += from->counts[i];
    }
    histogram->sum += from->sum;
}
