/* patience.h - how long tests in C wait and repeat. */
#ifndef PATIENCE_H
#define PATIENCE_H

#include <stdlib.h>

/* A time limit: only a test that fails waits that long. It is `limit_ms` times AIOD_TEST_TIMEOUT_FACTOR, for slow machines (tests/patience.py). */
static inline unsigned scaled_ms(unsigned limit_ms)
{
    const char *factor = getenv("AIOD_TEST_TIMEOUT_FACTOR");

    return factor == NULL ? limit_ms : (unsigned)(limit_ms * strtod(factor, NULL));
}

/* How often a test repeats what fails by chance only: `count` times AIOD_TEST_ROUNDS, which make soak sets. */
static inline unsigned rounds(unsigned count)
{
    const char *factor = getenv("AIOD_TEST_ROUNDS");

    return factor == NULL ? count : count * (unsigned)strtoul(factor, NULL, 10);
}

#endif
