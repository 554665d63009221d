/* patience.h - time limits of tests in C; only a test that fails waits that long. */
#ifndef PATIENCE_H
#define PATIENCE_H

#include <stdlib.h>

/* `limit_ms` times AIOD_TEST_TIMEOUT_FACTOR, for slow machines (tests/patience.py). */
static inline unsigned scaled_ms(unsigned limit_ms)
{
    const char *factor = getenv("AIOD_TEST_TIMEOUT_FACTOR");

    return factor == NULL ? limit_ms : (unsigned)(limit_ms * strtod(factor, NULL));
}

#endif
