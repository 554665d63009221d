/* Every value has a bucket, and its error is at most 1/32. */
#include "check.h"

#include "util/histogram.h"

static void check_value(uint64_t value)
{
    size_t index = aiod_histogram_index(value);
    uint64_t upper = aiod_histogram_upper(index);

    CHECK(index < AIOD_HISTOGRAM_BUCKETS);
    CHECK(value <= upper);
    CHECK(upper - value <= value / 32);
    CHECK(aiod_histogram_index(upper) == index);
    CHECK(index + 1 == AIOD_HISTOGRAM_BUCKETS || aiod_histogram_index(upper + 1) == index + 1);
}

int main(void)
{
    static struct aiod_histogram histogram;

    for (uint64_t value = 0; value < 100000; value++) {
        check_value(value);
    }
    for (unsigned bit = 17; bit <= AIOD_HISTOGRAM_TOP_BIT; bit++) {
        check_value((UINT64_C(1) << bit) - 1);
        check_value(UINT64_C(1) << bit);
        check_value((UINT64_C(1) << bit) + 12345);
    }
    check_value((UINT64_C(1) << (AIOD_HISTOGRAM_TOP_BIT + 1)) - 1);
    CHECK(aiod_histogram_index(UINT64_MAX) == AIOD_HISTOGRAM_BUCKETS - 1);
    CHECK(aiod_histogram_index(UINT64_C(1) << 43) == AIOD_HISTOGRAM_BUCKETS - 1);
    for (size_t index = 1; index < AIOD_HISTOGRAM_BUCKETS; index++) {
        CHECK(aiod_histogram_upper(index) > aiod_histogram_upper(index - 1));
    }
    aiod_histogram_record(&histogram, 1000);
    aiod_histogram_record(&histogram, 1000);
    CHECK(histogram.counts[aiod_histogram_index(1000)] == 2 && histogram.sum == 2000);
    aiod_histogram_add(&histogram, &histogram);
    CHECK(histogram.counts[aiod_histogram_index(1000)] == 4 && histogram.sum == 4000);
    return 0;
}
