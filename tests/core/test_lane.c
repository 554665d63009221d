/* Lanes: one request of a lane is carried out at a time, and the others wait without a worker. */
#include "check.h"

#include "pool/fair_queue.h"

enum {
    KIB = 1024,
    COUNT = 8,
};

static struct job jobs[COUNT];
static struct job others[COUNT];
static struct gate gate;

struct ordered_job {
    struct job job; /* first */
    unsigned turn;
};

/* Submit `count` jobs as one batch of `lane` and `flow`. */
static void submit_to(struct aiod_pool *pool, struct job *list, size_t count, struct aiod_lane *lane,
                      struct aiod_flow *flow)
{
    for (size_t i = 0; i < count; i++) {
        list[i].request.lane = lane;
        list[i].request.flow = flow;
        list[i].request.cost = (uint64_t)4 * KIB;
        list[i].request.queued_ns = aiod_now_ns();
        list[i].request.next = i + 1 < count ? &list[i + 1].request : NULL;
    }
    aiod_pool_submit(pool, &list[0].request, count);
}

static void wait_active(struct aiod_pool *pool, unsigned count)
{
    struct aiod_pool_stats stats;

    loop_until_waiting(pool, &gate, count);
    do {
        loop_once(pool, 1);
        stats = check_invariants(pool);
        CHECK(gate.waiting <= count); /* nobody passes the gate, so it would not become so again */
    } while (stats.waking_threads + stats.new_threads + stats.pending_threads > 0 || stats.active_threads != count);
    CHECK(gate.waiting == count);
}

static struct aiod_pool *begin(unsigned max_threads)
{
    reaped_total = 0;
    gate_init(&gate, false);
    for (size_t i = 0; i < COUNT; i++) {
        jobs[i].request.deadline_ns = 0;
    }
    prepare_jobs(jobs, COUNT, &gate);
    prepare_jobs(others, COUNT, &gate);
    return make_pool(max_threads, 0, 3600000);
}

static void end(struct aiod_pool *pool, size_t count)
{
    gate_open(&gate);
    loop_until_reaped(pool, count);
    CHECK(check_invariants(pool).in_lanes == 0);
    end_pool(pool);
}

static void one_request_of_a_lane_is_active(void)
{
    struct aiod_pool *pool = begin(4);
    struct aiod_lane lane = {0};

    submit_to(pool, jobs, COUNT, &lane, NULL);
    wait_active(pool, 1);
    CHECK(check_invariants(pool).threads_created == 1 && check_invariants(pool).in_lanes == COUNT - 1);
    CHECK(aiod_lane_taken(&lane));
    end(pool, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == 1);
    }
    CHECK(!aiod_lane_taken(&lane));
}

static void lanes_do_not_wait_for_each_other(void)
{
    struct aiod_pool *pool = begin(4);
    struct aiod_lane one = {0}, other = {0};

    submit_to(pool, jobs, COUNT, &one, NULL);
    submit_to(pool, others, COUNT, &other, NULL);
    wait_active(pool, 2);
    end(pool, 2 * COUNT);
}

static void requests_without_a_lane_pass_one_that_hangs(void)
{
    struct aiod_pool *pool = begin(4);
    struct aiod_lane lane = {0};

    submit_to(pool, jobs, COUNT, &lane, NULL);
    submit_to(pool, others, 2, NULL, NULL);
    wait_active(pool, 3);
    end(pool, COUNT + 2);
}

static void waiting_requests_can_be_cancelled(void)
{
    struct aiod_pool *pool = begin(1);
    struct aiod_lane lane = {0};

    submit_to(pool, others, 1, NULL, NULL);
    wait_active(pool, 1);
    submit_to(pool, jobs, COUNT, &lane, NULL); /* the first one has the turn, and is queued */
    CHECK(aiod_pool_cancel(pool, &jobs[3].request));
    CHECK(aiod_pool_cancel(pool, &jobs[0].request));
    CHECK(aiod_pool_cancel(pool, &jobs[7].request));
    CHECK(check_invariants(pool).in_lanes == COUNT - 4);
    end(pool, COUNT + 1);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(jobs[i].runs == (i != 0 && i != 3 && i != 7));
    }
}

static void deadlines_end_waiting_requests(void)
{
    struct aiod_pool *pool = begin(1);
    struct aiod_lane lane = {0};

    jobs[1].request.deadline_ns = 1;
    submit_to(pool, jobs, COUNT, &lane, NULL);
    loop_until_reaped(pool, 1);
    CHECK(jobs[1].reaps == 1 && jobs[1].runs == 0);
    end(pool, COUNT);
}

static bool see(const struct aiod_active_request *active, void *argument)
{
    (void)active;
    (void)argument;
    return true;
}

static void a_slow_request_passes_the_turn_on(void)
{
    struct aiod_pool *pool = begin(2);
    struct aiod_lane lane = {0};

    submit_to(pool, jobs, 2, &lane, NULL);
    wait_active(pool, 1);
    aiod_pool_set_slow_limits(pool, 1, 1);
    aiod_pool_find_slow(pool, see, NULL);
    wait_active(pool, 2);
    end(pool, 2);
}

static void waiting_requests_are_cancelled_when_the_pool_stops(void)
{
    struct aiod_pool *pool = begin(1);
    struct aiod_lane lane = {0};

    submit_to(pool, jobs, COUNT, &lane, NULL);
    wait_active(pool, 1);
    CHECK(!aiod_pool_stop(pool, 1));
    loop_until_reaped(pool, COUNT - 1);
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

/* The first request of the flow waits for a rate, and the next one of its lane does so in its place. */
static void a_request_that_gets_the_turn_waits_for_the_rate(void)
{
    struct aiod_pool *pool = begin(1);
    struct aiod_rate *rate = aiod_rate_create();
    struct aiod_flow flow = {.rates = {rate}};
    struct aiod_lane lane = {0};

    aiod_pool_set_rate(pool, rate, &(struct aiod_rate_limits){.per_second = 5});
    gate_open(&gate);
    submit_to(pool, jobs, 3, &lane, &flow);
    loop_until_reaped(pool, 1);
    aiod_pool_cancel(pool, &jobs[1].request);
    end(pool, 3);
    CHECK(jobs[2].runs == 1 && flow.queued == 0 && flow.waits_for == NULL);
    aiod_rate_unref(rate);
}

static _Atomic unsigned turns;
static _Atomic unsigned turns_done;

static int64_t take_turn(struct aiod_request *request)
{
    ((struct ordered_job *)(void *)request)->turn = turns++;
    turns_done++;
    return 0;
}

/* Neither does a lane, whose flow leaves the round after each request, starve other flows, nor they it. */
static void a_lane_shares_one_worker_with_another_flow(void)
{
    enum {
        MANY = 64,
    };
    static struct ordered_job in_lane[MANY], in_flow[MANY];
    struct aiod_flow writer = {0}, reader = {0};
    struct aiod_pool *pool = begin(1);
    struct aiod_lane lane = {0};
    unsigned early = 0;

    turns = turns_done = 0;
    submit_to(pool, others, 1, NULL, NULL);
    wait_active(pool, 1);
    for (size_t i = 0; i < MANY; i++) {
        in_lane[i].job.request = (struct aiod_request){
            .run = take_turn, .lane = &lane, .flow = &writer, .cost = 4 * KIB, .queued_ns = aiod_now_ns()};
        in_flow[i].job.request =
            (struct aiod_request){.run = take_turn, .flow = &reader, .cost = 4 * KIB, .queued_ns = aiod_now_ns()};
        aiod_pool_submit(pool, &in_lane[i].job.request, 1);
        aiod_pool_submit(pool, &in_flow[i].job.request, 1);
    }
    gate_open(&gate);
    while (turns_done < 2 * MANY) {
        loop_wait(pool, 1);
    }
    for (size_t i = 0; i < MANY; i++) {
        early += in_lane[i].turn < MANY;
        CHECK(i == 0 || in_lane[i].turn > in_lane[i - 1].turn);
    }
    CHECK(early >= MANY / 2 - 16 && early <= MANY / 2 + 16); /* one turn of the round is 8 of them */
    end_pool(pool);
}

/* A worker may announce short requests of a lane together: not later than it has no more of them. */
static void what_ended_before_a_request_that_hangs_is_on_the_list(void)
{
    struct aiod_pool *pool = begin(1);
    struct aiod_lane lane = {0};
    struct aiod_request *done;

    for (size_t i = 0; i + 1 < COUNT; i++) {
        jobs[i].gate = NULL;
    }
    submit_to(pool, jobs, COUNT, &lane, NULL);
    loop_until_waiting(pool, &gate, 1); /* the last one hangs; some of the others may have been announced */
    done = aiod_pool_reap(pool);        /* the engine's timer does so */
    for (; done != NULL; done = done->next) {
        reaped_total++;
    }
    CHECK(reaped_total == COUNT - 1);
    end(pool, COUNT);
}

static void every_lane_ends_with_an_announcement(void)
{
    enum {
        ROUNDS = 200
    };
    struct aiod_pool *pool = begin(2);
    struct aiod_lane one = {0}, other = {0};

    for (size_t round = 1; round <= ROUNDS; round++) {
        prepare_jobs(jobs, COUNT, NULL);
        prepare_jobs(others, COUNT, NULL);
        submit_to(pool, jobs, COUNT, &one, NULL);
        submit_to(pool, others, round % COUNT + 1, round % 2 == 0 ? &other : &one, NULL);
        loop_until_reaped(pool, reaped_total + COUNT + round % COUNT + 1); /* reaps only when the doorbell rings */
    }
    end(pool, reaped_total);
}

int main(void)
{
    faults_install();
    one_request_of_a_lane_is_active();
    lanes_do_not_wait_for_each_other();
    requests_without_a_lane_pass_one_that_hangs();
    waiting_requests_can_be_cancelled();
    deadlines_end_waiting_requests();
    a_slow_request_passes_the_turn_on();
    waiting_requests_are_cancelled_when_the_pool_stops();
    a_request_that_gets_the_turn_waits_for_the_rate();
    a_lane_shares_one_worker_with_another_flow();
    what_ended_before_a_request_that_hangs_is_on_the_list();
    every_lane_ends_with_an_announcement();
    return 0;
}
