/*
 * clock.h - times and deadlines: nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef LIBAIOD_CLOCK_H
#define LIBAIOD_CLOCK_H

#include <stdint.h>
#include <time.h>

#define AIOD_NEVER ((uint64_t)INT64_MAX) /* a deadline that does not come */
#define AIOD_NS_PER_MS UINT64_C(1000000)
#define AIOD_NS_PER_S UINT64_C(1000000000)

static inline uint64_t aiod_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * AIOD_NS_PER_S + (uint64_t)now.tv_nsec;
}

/* `timeout_ns` from now; AIOD_NEVER for a timeout of AIOD_NEVER. */
static inline uint64_t aiod_deadline(uint64_t timeout_ns)
{
    uint64_t now = aiod_clock_ns();

    return timeout_ns < AIOD_NEVER - now ? now + timeout_ns : AIOD_NEVER;
}

static inline struct timespec aiod_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / AIOD_NS_PER_S), .tv_nsec = (long)(ns % AIOD_NS_PER_S)};
}

#endif
