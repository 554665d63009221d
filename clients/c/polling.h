/*
 * polling.h - whether and how long a thread polls for a completion before it sleeps (polling.c).
 */
#ifndef LIBAIOD_POLLING_H
#define LIBAIOD_POLLING_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;

/* How long the next leader polls. All but max_ns is 0 at first. Protected by the client's lock. */
struct aiod_polling {
    uint64_t max_ns; /* 0: never poll */
    uint64_t now_ns;
    unsigned failed; /* polls in a row that found nothing */
    unsigned skip;   /* how many more times to sleep without polling */
};

/*
 * May the calling thread poll? Not if polling keeps the engine from running: in a real-time thread, or where the
 * thread and the engine are bound to the same single CPU.
 */
bool aiod_may_poll(const struct aiod_client *client);

/* Returns how long to poll before sleeping; 0: sleep at once. */
uint64_t aiod_polling_begin(struct aiod_polling *polling);

/*
 * Adapt to the outcome: the thread polled for `polled_ns` at most, `found` a completion while it polled, and waited
 * for `waited_ns` in all, polling and sleeping.
 */
void aiod_polling_end(struct aiod_polling *polling, uint64_t polled_ns, bool found, uint64_t waited_ns);

#endif
