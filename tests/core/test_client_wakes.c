/* A thread that delivers several completions wakes each client once, after the last of them. */
#include <string.h>

#include "aiod_ring.h"
#include "check.h"
#include "ring/client_wakes.h"
#include "ring/ring.h"

enum {
    RINGS = 100, /* more than a thread notes */
};

static struct aiod_ring rings[RINGS];
static struct aiod_ring_header headers[RINGS];

/* Rings whose clients sleep. The test has one reference to each. */
static void begin(void)
{
    memset(headers, 0, sizeof(headers));
    for (unsigned i = 0; i < RINGS; i++) {
        rings[i].memory.header = &headers[i];
        atomic_store(&rings[i].refs, 1);
        headers[i].client_waits = AIOD_RING_WAITS_FUTEX;
    }
}

static bool was_woken(unsigned number)
{
    return headers[number].client_waits == AIOD_RING_AWAKE;
}

/* As a request's end: with a reference. */
static bool note(unsigned number)
{
    bool noted;

    aiod_ring_get(&rings[number]);
    noted = aiod_client_wakes_note(&rings[number]);
    if (!noted) {
        aiod_ring_put(&rings[number]);
    }
    return noted;
}

static void a_client_is_woken_at_the_end(void)
{
    begin();
    aiod_client_wakes_begin();
    CHECK(note(0) && note(1) && note(0) && note(0));
    CHECK(!was_woken(0) && !was_woken(1));
    CHECK(atomic_load(&rings[0].refs) == 2 && atomic_load(&rings[1].refs) == 2);
    CHECK(aiod_client_wakes_end());
    CHECK(was_woken(0) && was_woken(1) && !was_woken(2));
    CHECK(atomic_load(&rings[0].refs) == 1 && atomic_load(&rings[1].refs) == 1);
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
        CHECK(was_woken(i) == noted[i] && atomic_load(&rings[i].refs) == 1);
    }
}

int main(void)
{
    a_client_is_woken_at_the_end();
    no_ring_is_noted_before_or_after();
    there_may_be_too_many();
    return 0;
}
