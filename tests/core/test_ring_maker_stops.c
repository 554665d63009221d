/*
 * An engine that stops while the memory of rings is allocated and freed releases everything once, whether or not the
 * sessions have ended.
 */
#include <errno.h>
#include <poll.h>

#include "check.h"
#include "core.h"

#define ENTRIES 16u
#define AREA_BYTES (1u << 20)

static struct aiod_core *make_core(void)
{
    struct aiod_core_config config = {.pool = {.name = "main", .max_threads = 2, .spawn_retry_ns = 1000000000},
                                      .buffer_cache_max = 1 << 20,
                                      .rings_max = 4};
    struct aiod_core *core;

    CHECK(aiod_core_create(&core, &config) == 0);
    return core;
}

static void attach(struct aiod_core *core, struct aiod_session *session)
{
    uint64_t bytes;

    CHECK(aiod_core_attach(core, session, -1, ENTRIES, AREA_BYTES, &bytes) == 0 && bytes > AREA_BYTES);
    CHECK(aiod_core_attach(core, session, -1, ENTRIES, AREA_BYTES, &bytes) == -EEXIST);
}

/* `ended`: the sessions have ended before. One ring is allocated, one is being allocated, one waits. */
static void a_stop_releases_every_ring_once(bool ended)
{
    struct aiod_core *core = make_core();
    struct aiod_limits limits = {.depth_max = 16, .handles_max = 16, .request_bytes_max = 4096};
    struct aiod_session *sessions[3];
    struct aiod_reaped reaped;
    struct gate gate;

    faults_reset();
    for (unsigned i = 0; i < 3; i++) {
        sessions[i] = aiod_session_create(&limits, NULL);
        sessions[i]->owner = sessions;
    }
    attach(core, sessions[0]);
    do {
        struct pollfd fd = {.fd = aiod_pool_completion_fd(core->pool), .events = POLLIN};

        CHECK(poll(&fd, 1, (int)WAIT_MS) == 1);
        aiod_core_reap(core, &reaped);
    } while (reaped.attached == NULL);
    CHECK(reaped.attached == sessions[0] && sessions[0]->attach_error == 0 && sessions[0]->ring != NULL);
    gate_init(&gate, false);
    faults.allocations_gate = &gate;
    attach(core, sessions[1]);
    gate_wait_for(&gate, 1);
    attach(core, sessions[2]);
    aiod_core_end_session(core, sessions[0]);
    for (unsigned i = 1; i < 3 && ended; i++) {
        aiod_core_end_session(core, sessions[i]);
    }
    CHECK(!aiod_core_stop(core, 1000000)); /* the maker is busy */
    gate_open(&gate);
    CHECK(aiod_core_stop(core, WAIT_MS * UINT64_C(1000000)));
    while (aiod_core_reap(core, &reaped) > 0) {
        CHECK(reaped.attached == NULL); /* the poller has stopped */
    }
    CHECK(core->ring_count == 0 && core->ring_bytes == 0);
    for (unsigned i = 0; i < 3; i++) {
        aiod_session_unref(sessions[i]);
    }
    aiod_core_destroy(core);
}

int main(void)
{
    faults_install();
    a_stop_releases_every_ring_once(true);
    a_stop_releases_every_ring_once(false);
    return 0;
}
