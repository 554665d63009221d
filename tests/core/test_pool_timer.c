/* The main loop's timer, and the doorbell that threads beside the main loop ring when it is set too late. */
#include <poll.h>
#include <sched.h>

#include "check.h"

static struct aiod_pool *pool;
static struct job jobs[3];

/* Does the submission ring? The doorbell is cleared. */
static bool rings(struct job *job)
{
    struct pollfd doorbell = {.fd = aiod_pool_doorbell_fd(pool), .events = POLLIN};
    bool rang;

    prepare_jobs(job, 1, NULL);
    aiod_pool_submit_beside_main_loop(pool, &job->request, 1);
    rang = poll(&doorbell, 1, 0) == 1;
    aiod_pool_spawn(pool);
    return rang;
}

/* The main loop's timer must not fire meanwhile. */
static void wait_until_two_sleep(void)
{
    struct aiod_pool_stats stats = check_invariants(pool);

    while (stats.idle_threads != 2 || stats.waking_threads != 0 || stats.queued != 0) {
        sched_yield();
        stats = check_invariants(pool);
    }
}

/*
 * A submission that wakes one of two sleepers wants the timer, in case the wake-up is lost. The timer stays set when the
 * request has ended, and further submissions ring no more until it has fired.
 */
static void a_doorbell_rings_once_for_a_timer(void)
{
    pool = make_pool(2, 2, 10000);
    aiod_pool_spawn(pool);
    wait_until_two_sleep();
    aiod_pool_tick(pool);
    CHECK(rings(&jobs[0]));
    CHECK(aiod_pool_tick_wanted(pool) != AIOD_POOL_NEVER);
    wait_until_two_sleep();
    CHECK(aiod_pool_tick_wanted(pool) != AIOD_POOL_NEVER);
    CHECK(!rings(&jobs[1]));
    wait_until_two_sleep();
    CHECK(aiod_pool_tick(pool) == AIOD_POOL_NEVER);
    CHECK(rings(&jobs[2]));
    loop_until_reaped(pool, 3);
    end_pool(pool);
}

int main(void)
{
    faults_install();
    faults_reset();
    a_doorbell_rings_once_for_a_timer();
    return 0;
}
