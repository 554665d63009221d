/* faults.c - counts the requests that a fault is for, and waits. */
#include "ops/faults.h"

#include <errno.h>
#include <time.h>

static void wait_ms(uint32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

/* Is it the fault's turn? */
static bool strikes(struct aiod_faults *faults, unsigned index, unsigned op)
{
    const struct aiod_fault *fault = &faults->items[index];

    return (fault->operations & 1u << op) != 0 &&
           (__atomic_add_fetch(&faults->seen[index], 1, __ATOMIC_RELAXED) % fault->every) == 0;
}

int aiod_faults_apply(struct aiod_faults *faults, unsigned op, uint64_t *after_bytes)
{
    int error = 0;

    for (unsigned i = 0; i < faults->count; i++) {
        if (!strikes(faults, i, op)) {
            continue;
        }
        wait_ms(faults->items[i].delay_ms);
        if (error == 0 && faults->items[i].error != 0) {
            error = faults->items[i].error;
            *after_bytes = faults->items[i].after_bytes;
        }
    }
    return error;
}
