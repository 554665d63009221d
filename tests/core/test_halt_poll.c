/* Whether and how long the poller polls before it sleeps. */
#include "check.h"
#include "ring/halt_poll.h"

#define US UINT64_C(1000)
#define MAX_NS (200 * US)

/* One idle period: work would arrive after `after_ns` without polling. The time that was spent polling. */
static uint64_t idle(struct aiod_halt_poll *poll, uint64_t after_ns)
{
    uint64_t look_ns = aiod_halt_poll_begin(poll);
    bool found = look_ns >= after_ns;

    aiod_halt_poll_end(poll, look_ns, look_ns > 0 && found, after_ns);
    return look_ns;
}

static void frequent_work_is_polled_for(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};

    CHECK(idle(&poll, 100 * US) == 0);
    for (unsigned i = 0; i < 20; i++) {
        idle(&poll, 100 * US);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t polled_ns = idle(&poll, 100 * US);

        CHECK(polled_ns >= 100 * US && polled_ns <= MAX_NS);
    }
}

static void rare_work_is_not_polled_for(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};
    uint64_t polled_ns = 0;

    for (unsigned i = 0; i < 20; i++) {
        idle(&poll, 100 * US);
    }
    for (unsigned i = 0; i < 100; i++) {
        polled_ns += idle(&poll, 10000 * US);
    }
    CHECK(polled_ns < 3 * MAX_NS && idle(&poll, 10000 * US) == 0);
}

/* A client that cannot run while the poller polls: it submits as soon as polling ends. */
static void polls_that_delay_the_client_are_skipped(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};
    unsigned looks = 0;

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t look_ns = aiod_halt_poll_begin(&poll);

        looks += look_ns > 0;
        aiod_halt_poll_end(&poll, look_ns, false, look_ns + 7 * US);
    }
    CHECK(looks < 30);

    /* When the client can run again, polling resumes. */
    for (unsigned i = 0; i < 2000; i++) {
        idle(&poll, 7 * US);
    }
    CHECK(idle(&poll, 7 * US) > 0);
}

static void no_polling_with_a_limit_of_zero(void)
{
    struct aiod_halt_poll poll = {.max_ns = 0};

    for (unsigned i = 0; i < 100; i++) {
        CHECK(idle(&poll, 1) == 0);
    }
}

int main(void)
{
    frequent_work_is_polled_for();
    rare_work_is_not_polled_for();
    polls_that_delay_the_client_are_skipped();
    no_polling_with_a_limit_of_zero();
    return 0;
}
