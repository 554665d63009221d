/*
 * polling.h - whether and how long a thread polls for a completion before it sleeps (polling.c).
 */
#ifndef LIBAIOD_POLLING_H
#define LIBAIOD_POLLING_H

#include <stdbool.h>
#include <stdint.h>

struct aiod_client;

/* How long the next poll takes. All but max_ns is 0 at first. Protected by the client's lock. */
struct aiod_polling {
    uint64_t max_ns; /* 0: never poll */
    uint64_t now_ns;
    unsigned failed;         /* polls in a row that found nothing */
    unsigned skip;           /* how many more times to sleep without polling */
    uint64_t yields_from_ns; /* no poll by yielding before then: a thread that computes shares the only CPU */
    unsigned near;           /* how sure it is that answers come before the first yield; 0: they do not */
    unsigned far;            /* polls since then that did not try */
    unsigned burst;          /* polls in a row that were answered before the first yield */
};

/* How the calling thread may poll. */
enum aiod_polling_way {
    AIOD_POLL_NOT,      /* a real-time thread: the engine may be waiting for this very CPU */
    AIOD_POLL_YIELDING, /* the thread and the engine are bound to the same single CPU: the engine runs while it yields */
    AIOD_POLL_SPINNING, /* the engine may run on another CPU meanwhile */
};

enum aiod_polling_way aiod_polling_way(const struct aiod_client *client);

/* One poll. */
struct aiod_poll {
    enum aiod_polling_way way;
    uint64_t limit_ns;   /* of the thread's own CPU time; 0: sleep at once */
    unsigned looks;      /* before the first yield */
    bool gives_way;      /* yield before the first look: other clients have waited for long enough */
    bool yielded;        /* it was not answered before the first yield */
    uint64_t own_ns;     /* so far */
    unsigned turns;      /* of other threads meanwhile */
    uint64_t crowded_ns; /* for so long another thread has kept the CPU, too long */
};

/* Begin a poll, now. */
struct aiod_poll aiod_polling_begin(struct aiod_polling *polling, enum aiod_polling_way way, uint64_t now_ns);

/* The thread has given way for `yield_ns`. */
void aiod_poll_gave_way(struct aiod_poll *poll, uint64_t yield_ns);

/*
 * The thread has looked for `own_ns`, found nothing, and called sched_yield(), which took `yield_ns`. False: the poll
 * is over.
 */
bool aiod_poll_goes_on(struct aiod_poll *poll, uint64_t own_ns, uint64_t yield_ns);

/*
 * Adapt to the outcome, now: the thread `found` a completion while it polled, or not, and waited for `waited_ns` in all,
 * polling and sleeping.
 */
void aiod_polling_end(struct aiod_polling *polling, const struct aiod_poll *poll, bool found, uint64_t waited_ns,
                      uint64_t now_ns);

#endif
