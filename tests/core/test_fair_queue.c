/* The fair queue: which request is next, how much of a flow is active, and workers reserved for other flows. */
#include "check.h"

#include <string.h>

#include "pool/fair_queue.h"

enum {
    KIB = 1024,
    MIB = 1024 * 1024
};

struct piece {
    struct aiod_request request; /* first */
    struct gate *gate;
    _Atomic unsigned *clock;
    unsigned turn; /* its position in the order of execution */
    _Atomic bool reaped;
};

static int64_t run(struct aiod_request *request)
{
    struct piece *piece = (struct piece *)request;

    piece->turn = atomic_fetch_add(piece->clock, 1);
    if (piece->gate != NULL) {
        gate_pass(piece->gate);
    }
    return 0;
}

static void submit(struct aiod_pool *pool, struct piece *pieces, size_t count, struct aiod_flow *flow, uint64_t cost,
                   struct gate *gate, _Atomic unsigned *order)
{
    for (size_t i = 0; i < count; i++) {
        pieces[i] = (struct piece){.request = {.run = run, .flow = flow, .cost = cost, .queued_ns = aiod_now_ns()},
                                   .gate = gate,
                                   .clock = order};
        pieces[i].request.next = i + 1 < count ? &pieces[i + 1].request : NULL;
    }
    aiod_pool_submit(pool, &pieces[0].request, count);
}

static size_t reap(struct aiod_pool *pool)
{
    size_t count = 0;

    for (struct aiod_request *request = aiod_pool_reap(pool); request != NULL; count++) {
        struct aiod_request *next = request->next;

        ((struct piece *)request)->reaped = true;
        request = next;
    }
    return count;
}

static void reap_all(struct aiod_pool *pool, size_t count)
{
    while (count > 0) {
        size_t done;

        loop_wait(pool, 1);
        aiod_pool_spawn(pool);
        done = reap(pool);
        CHECK(done <= count);
        count -= done;
    }
}

/* Wait until `count` requests are at the gate, and no more arrive: then all other workers are asleep. */
static void wait_until_at(struct aiod_pool *pool, struct gate *gate, unsigned count)
{
    while (gate->waiting < count) {
        loop_wait(pool, 1);
        aiod_pool_spawn(pool);
    }
    for (;;) {
        struct aiod_pool_stats stats;

        aiod_pool_spawn(pool);
        aiod_pool_get_stats(pool, &stats);
        if (stats.waking_threads + stats.new_threads + stats.pending_threads == 0 && stats.active_threads == count) {
            break;
        }
    }
    CHECK(gate->waiting == count);
}

static void a_single_request_does_not_wait_for_a_flood(void)
{
    static struct piece first, many[100], one, mine[3];
    struct aiod_flow flood = {0}, reader = {0};
    struct aiod_pool *pool = make_pool(1, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;

    gate_init(&gate, false);
    submit(pool, &first, 1, &flood, MIB, &gate, &order);
    wait_until_at(pool, &gate, 1);
    submit(pool, many, 100, &flood, MIB, NULL, &order);
    submit(pool, &one, 1, &reader, 4 * KIB, NULL, &order);
    submit(pool, mine, 3, NULL, 0, NULL, &order); /* without a flow, as the engine's own requests */
    gate_open(&gate);
    reap_all(pool, 105);
    CHECK(one.turn <= 4);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(mine[i].turn < 10);
    }
    for (unsigned i = 1; i < 100; i++) {
        CHECK(many[i].turn > many[i - 1].turn); /* the order within a flow is kept */
    }
    end_pool(pool);
}

static void flows_share_bytes_evenly(void)
{
    static struct piece first, large[64], small[1024];
    struct aiod_flow a = {0}, b = {0}, c = {0};
    struct aiod_pool *pool = make_pool(1, 0, 1000);
    _Atomic unsigned order = 0;
    uint64_t bytes = 0;
    struct gate gate;

    gate_init(&gate, false);
    submit(pool, &first, 1, &c, 0, &gate, &order);
    wait_until_at(pool, &gate, 1);
    submit(pool, large, 64, &a, MIB, NULL, &order);
    submit(pool, small, 1024, &b, 60 * KIB, NULL, &order);
    gate_open(&gate);
    reap_all(pool, 1089);
    /* When the small requests are done, the large ones have moved the same number of bytes, give or take one turn. */
    for (unsigned i = 0; i < 64; i++) {
        bytes += large[i].turn < small[511].turn ? MIB : 0;
    }
    CHECK(bytes > 512 * UINT64_C(60) * KIB - 4 * MIB && bytes < 512 * UINT64_C(64) * KIB + 4 * MIB);
    end_pool(pool);
}

static void a_flow_alone_uses_all_workers(void)
{
    static struct piece many[8];
    struct aiod_flow flow = {0};
    struct aiod_pool *pool = make_pool(8, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;

    gate_init(&gate, false);
    aiod_pool_set_shares(pool, 4, 0, MIB);
    submit(pool, many, 8, &flow, MIB, &gate, &order);
    wait_until_at(pool, &gate, 8);
    gate_open(&gate);
    reap_all(pool, 8);
    end_pool(pool);
}

static void concurrent_flows_are_limited(void)
{
    static struct piece first, many[8], again, three[3];
    struct aiod_flow flood = {0}, reader = {0};
    struct aiod_pool *pool = make_pool(8, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;
    struct gate gate_of_three;

    gate_init(&gate, false);
    gate_init(&gate_of_three, false);
    aiod_pool_set_shares(pool, 0, 0, 2 * MIB);
    submit(pool, &first, 1, &reader, 4 * KIB, &gate, &order);
    submit(pool, many, 8, &flood, MIB, &gate, &order);
    wait_until_at(pool, &gate, 3);
    submit(pool, &again, 1, &reader, 4 * KIB, &gate, &order); /* does not wait for the flood */
    wait_until_at(pool, &gate, 4);
    gate_open(&gate);
    reap_all(pool, 10);

    aiod_pool_set_shares(pool, 0, 1, 0); /* limited by requests */
    submit(pool, &first, 1, &reader, 0, NULL, &order);
    submit(pool, three, 3, &flood, 0, &gate_of_three, &order);
    wait_until_at(pool, &gate_of_three, 1);
    gate_open(&gate_of_three);
    reap_all(pool, 4);
    end_pool(pool);
}

static void lifted_limits_release_requests(void)
{
    static struct piece first, many[8];
    struct aiod_flow flood = {0}, reader = {0};
    struct aiod_pool *pool = make_pool(8, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;

    gate_init(&gate, false);
    aiod_pool_set_shares(pool, 0, 1, 0);
    submit(pool, &first, 1, &reader, 0, NULL, &order);
    submit(pool, many, 7, &flood, 0, &gate, &order);
    wait_until_at(pool, &gate, 1);
    aiod_pool_set_shares(pool, 0, 0, 0);
    wait_until_at(pool, &gate, 7);
    gate_open(&gate);
    reap_all(pool, 8);
    end_pool(pool);
}

static void reserved_workers_serve_idle_flows(void)
{
    static struct piece many[40], one;
    struct aiod_flow flood = {0}, reader = {0};
    struct aiod_pool *pool = make_pool(32, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;

    gate_init(&gate, false);
    aiod_pool_set_shares(pool, 2, 0, 0);
    submit(pool, many, 40, &flood, 0, &gate, &order);
    wait_until_at(pool, &gate, 30);
    submit(pool, &one, 1, &reader, 0, &gate, &order);
    wait_until_at(pool, &gate, 31);
    gate_open(&gate);
    reap_all(pool, 41);
    end_pool(pool);
}

static void a_cancelled_request_leaves_its_flow(void)
{
    static struct piece first, many[8], one;
    struct aiod_flow flood = {0}, reader = {0};
    struct aiod_pool *pool = make_pool(1, 0, 1000);
    _Atomic unsigned order = 0;
    struct gate gate;

    gate_init(&gate, false);
    submit(pool, &first, 1, &reader, 0, &gate, &order);
    wait_until_at(pool, &gate, 1);
    submit(pool, many, 8, &flood, MIB, NULL, &order);
    for (unsigned i = 0; i < 8; i += 2) {
        CHECK(aiod_pool_cancel(pool, &many[i].request));
    }
    for (unsigned i = 1; i < 8; i += 2) {
        CHECK(aiod_pool_cancel(pool, &many[i].request));
    }
    submit(pool, &one, 1, &flood, 0, NULL, &order);
    gate_open(&gate);
    reap_all(pool, 10);
    CHECK(flood.queued == 0 && flood.active == 0 && flood.active_bytes == 0 && flood.first == NULL);
    end_pool(pool);
}

int main(void)
{
    faults_install();
    a_single_request_does_not_wait_for_a_flood();
    flows_share_bytes_evenly();
    a_flow_alone_uses_all_workers();
    concurrent_flows_are_limited();
    lifted_limits_release_requests();
    reserved_workers_serve_idle_flows();
    a_cancelled_request_leaves_its_flow();
    return 0;
}
