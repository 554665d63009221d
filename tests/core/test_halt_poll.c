/* When it is looked on, and for how long. */
#include "check.h"
#include "ring/halt_poll.h"

#define US UINT64_C(1000)
#define MAX_NS (200 * US)

/* One time without anything to do: something would come `after_ns` if nobody looked. Returns how long was looked. */
static uint64_t idle(struct aiod_halt_poll *poll, uint64_t after_ns)
{
    uint64_t look_ns = aiod_halt_poll_begin(poll);
    bool found = look_ns >= after_ns;

    aiod_halt_poll_end(poll, look_ns, look_ns > 0 && found, after_ns);
    return look_ns;
}

static void what_comes_soon_is_looked_for(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};

    CHECK(idle(&poll, 100 * US) == 0);
    for (unsigned i = 0; i < 20; i++) {
        idle(&poll, 100 * US);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t looked_ns = idle(&poll, 100 * US);

        CHECK(looked_ns >= 100 * US && looked_ns <= MAX_NS);
    }
}

static void what_comes_late_is_not(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};
    uint64_t looked_ns = 0;

    for (unsigned i = 0; i < 20; i++) {
        idle(&poll, 100 * US);
    }
    for (unsigned i = 0; i < 100; i++) {
        looked_ns += idle(&poll, 10000 * US);
    }
    CHECK(looked_ns < 3 * MAX_NS && idle(&poll, 10000 * US) == 0);
}

/* A client that cannot run while it is looked for: it comes as soon as nobody looks. */
static void what_looking_keeps_away_is_not(void)
{
    struct aiod_halt_poll poll = {.max_ns = MAX_NS};
    unsigned looks = 0;

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t look_ns = aiod_halt_poll_begin(&poll);

        looks += look_ns > 0;
        aiod_halt_poll_end(&poll, look_ns, false, look_ns + 7 * US);
    }
    CHECK(looks < 30);

    /* Once it can, it is looked for again. */
    for (unsigned i = 0; i < 2000; i++) {
        idle(&poll, 7 * US);
    }
    CHECK(idle(&poll, 7 * US) > 0);
}

static void never(void)
{
    struct aiod_halt_poll poll = {.max_ns = 0};

    for (unsigned i = 0; i < 100; i++) {
        CHECK(idle(&poll, 1) == 0);
    }
}

int main(void)
{
    what_comes_soon_is_looked_for();
    what_comes_late_is_not();
    what_looking_keeps_away_is_not();
    never();
    return 0;
}
