/* halt_poll.c - the polling time: doubled, halved, or suspended. */
#include "ring/halt_poll.h"

#define MIN_NS UINT64_C(10000) /* the smallest polling time but 0 */
/* failed polls in a row after which polls are skipped; each further one doubles the number of skipped polls, up to: */
#define FAILED_MAX 4u
#define SKIPPED_SHIFT_MAX 10u

uint64_t aiod_halt_poll_begin(struct aiod_halt_poll *poll)
{
    if (poll->skipped > 0) {
        poll->skipped--;
        return 0;
    }
    return poll->now_ns;
}

static void count(struct aiod_halt_poll *poll, bool found)
{
    unsigned more;

    poll->failed = found ? 0 : poll->failed + 1;
    if (poll->failed >= FAILED_MAX) {
        more = poll->failed - FAILED_MAX;
        poll->failed -= more > SKIPPED_SHIFT_MAX; /* stay at the maximum */
        poll->skipped = 1u << (more < SKIPPED_SHIFT_MAX ? more : SKIPPED_SHIFT_MAX);
    }
}

/* Grow the polling time if a longer poll would have succeeded, shrink it if it would not. */
static void adapt(struct aiod_halt_poll *poll, uint64_t idle_ns)
{
    if (idle_ns <= poll->now_ns) {
        return;
    }
    if (idle_ns < poll->max_ns) {
        uint64_t grown = poll->now_ns * 2 > MIN_NS ? poll->now_ns * 2 : MIN_NS;

        poll->now_ns = grown < poll->max_ns ? grown : poll->max_ns;
    } else {
        poll->now_ns = poll->now_ns / 2 >= MIN_NS ? poll->now_ns / 2 : 0;
    }
}

void aiod_halt_poll_end(struct aiod_halt_poll *poll, uint64_t polled_ns, bool found, uint64_t idle_ns)
{
    if (polled_ns > 0) {
        count(poll, found);
    }
    adapt(poll, idle_ns);
}
