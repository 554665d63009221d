/* client_wakes.c - a thread's list of rings whose clients it has to wake (client_wakes.h). */
#include "ring/client_wakes.h"

#include "ring/polled.h"

#define NOTED_MAX 64u

static _Thread_local struct {
    bool noting;
    unsigned count;
    struct aiod_polled *rings[NOTED_MAX];
} noted;

static bool is_noted(const struct aiod_polled *ring)
{
    for (unsigned i = 0; i < noted.count; i++) {
        if (noted.rings[i] == ring) {
            return true;
        }
    }
    return false;
}

void aiod_client_wakes_begin(void)
{
    noted.noting = true;
}

bool aiod_client_wakes_note(struct aiod_polled *ring)
{
    return noted.noting && aiod_client_wakes_defer(ring);
}

bool aiod_client_wakes_defer(struct aiod_polled *ring)
{
    if (is_noted(ring)) {
        ring->operations->put(ring);
        return true;
    }
    if (noted.count == NOTED_MAX) {
        return false;
    }
    noted.rings[noted.count++] = ring;
    return true;
}

bool aiod_client_wakes_end(void)
{
    bool any = noted.count > 0;

    noted.noting = false;
    while (noted.count > 0) {
        struct aiod_polled *ring = noted.rings[--noted.count];

        ring->operations->wake_client(ring);
        ring->operations->put(ring);
    }
    return any;
}
