/* A thread that delivers several completions wakes each client once, after the last of them. */
#include <string.h>

#include "check.h"
#include "ring/client_wakes.h"
#include "ring/polled.h"

enum {
    RINGS = 100, /* more than a thread notes */
};

struct fake_ring {
    struct aiod_polled polled; /* first */
    unsigned refs;
    unsigned wakes;
};

static struct fake_ring rings[RINGS];

static void get(struct aiod_polled *polled)
{
    ((struct fake_ring *)polled)->refs++;
}

static void put(struct aiod_polled *polled)
{
    ((struct fake_ring *)polled)->refs--;
}

static void wake_client(struct aiod_polled *polled)
{
    ((struct fake_ring *)polled)->wakes++;
}

static const struct aiod_polled_operations operations = {.get = get, .put = put, .wake_client = wake_client};

/* The test has one reference to each. */
static void begin(void)
{
    memset(rings, 0, sizeof(rings));
    for (unsigned i = 0; i < RINGS; i++) {
        rings[i].polled.operations = &operations;
        rings[i].refs = 1;
    }
}

static bool was_woken(unsigned number)
{
    CHECK(rings[number].wakes <= 1);
    return rings[number].wakes == 1;
}

/* As a request's end: with a reference. */
static bool note(unsigned number)
{
    bool noted;

    get(&rings[number].polled);
    noted = aiod_client_wakes_note(&rings[number].polled);
    if (!noted) {
        put(&rings[number].polled);
    }
    return noted;
}

static void a_client_is_woken_at_the_end(void)
{
    begin();
    aiod_client_wakes_begin();
    CHECK(note(0) && note(1) && note(0) && note(0));
    CHECK(!was_woken(0) && !was_woken(1));
    CHECK(rings[0].refs == 2 && rings[1].refs == 2);
    CHECK(aiod_client_wakes_end());
    CHECK(was_woken(0) && was_woken(1) && !was_woken(2));
    CHECK(rings[0].refs == 1 && rings[1].refs == 1);
    CHECK(!aiod_client_wakes_end());
}

static void no_ring_is_noted_before_or_after(void)
{
    begin();
    CHECK(!note(0));
    aiod_client_wakes_begin();
    CHECK(note(0));
    CHECK(aiod_client_wakes_end());
    CHECK(!note(0));
}

/* What is not noted is left to the caller, and nothing is forgotten. */
static void there_may_be_too_many(void)
{
    bool noted[RINGS];

    begin();
    aiod_client_wakes_begin();
    for (unsigned i = 0; i < RINGS; i++) {
        noted[i] = note(i);
    }
    CHECK(noted[0] && !noted[RINGS - 1]);
    CHECK(note(0)); /* it is noted already */
    CHECK(aiod_client_wakes_end());
    for (unsigned i = 0; i < RINGS; i++) {
        CHECK(was_woken(i) == noted[i] && rings[i].refs == 1);
    }
}

int main(void)
{
    a_client_is_woken_at_the_end();
    no_ring_is_noted_before_or_after();
    there_may_be_too_many();
    return 0;
}
