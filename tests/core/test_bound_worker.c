/*
 * A polling worker beside one that is bound: the bound one is to lead, and the other one sleeps apart. The place that workers
 * poll is the test's: each of the two polling workers does what the test tells it. The requests read from pipes.
 */
#include <liburing.h>
#include <poll.h>
#include <string.h>

#include "check.h"
#include "pool/uring.h"
#include "ring/apart.h"
#include "scratch.h"

enum {
    WORKERS_MAX = 8,
};

struct pipe_read {
    struct job job; /* first */
    int fds[2];
    char byte;
};

/* A worker finds a request: is another one to lead, before and after it has called that one? */
struct find {
    struct pipe_read read;
    bool elsewhere;
    bool elsewhere_later;
};

struct command {
    void (*run)(void *argument); /* NULL: the worker has nothing to do */
    void *argument;
};

static struct {
    struct aiod_idle_polling polling; /* first */
    struct aiod_pool *pool;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned workers;
    struct command commands[WORKERS_MAX]; /* by the number that a worker got when it came */
    int event_fds[WORKERS_MAX];           /* by the same number: of its io_uring */
} place;

static _Thread_local unsigned number;
static _Thread_local bool has_number;

static bool lead(struct aiod_idle_polling *polling)
{
    (void)polling;
    return true;
}

static void carry_out(struct command *command)
{
    struct command taken = *command;

    pthread_mutex_unlock(&place.lock);
    taken.run(taken.argument);
    pthread_mutex_lock(&place.lock);
    command->run = NULL;
    pthread_cond_broadcast(&place.changed);
}

static void poll_place(struct aiod_idle_polling *polling, bool leads)
{
    (void)polling;
    (void)leads;
    pthread_mutex_lock(&place.lock);
    if (!has_number) {
        number = place.workers++;
        CHECK(number < WORKERS_MAX);
        has_number = true;
    }
    while (!aiod_pool_keeps_one() && !aiod_pool_recalls(place.pool)) {
        if (place.commands[number].run != NULL) {
            carry_out(&place.commands[number]);
        } else {
            pthread_cond_wait(&place.changed, &place.lock);
        }
    }
    pthread_mutex_unlock(&place.lock);
}

static int watch(struct aiod_idle_polling *polling, int fd, void *data)
{
    (void)polling;
    (void)data;
    place.event_fds[number] = fd;
    return 0;
}

static void wake(struct aiod_idle_polling *polling)
{
    (void)polling;
    pthread_mutex_lock(&place.lock);
    pthread_cond_broadcast(&place.changed);
    pthread_mutex_unlock(&place.lock);
}

/* Have a polling worker call the function. */
static void tell(unsigned worker, void (*run)(void *argument), void *argument)
{
    pthread_mutex_lock(&place.lock);
    place.commands[worker] = (struct command){.run = run, .argument = argument};
    pthread_cond_broadcast(&place.changed);
    pthread_mutex_unlock(&place.lock);
}

/* Wait until it has. */
static void wait_for(unsigned worker)
{
    pthread_mutex_lock(&place.lock);
    while (place.commands[worker].run != NULL) {
        pthread_cond_wait(&place.changed, &place.lock);
    }
    pthread_mutex_unlock(&place.lock);
}

static void have(unsigned worker, void (*run)(void *argument), void *argument)
{
    tell(worker, run, argument);
    wait_for(worker);
}

static bool both_poll(void *argument)
{
    bool both;

    (void)argument;
    pthread_mutex_lock(&place.lock);
    both = place.workers == 2;
    pthread_mutex_unlock(&place.lock);
    return both;
}

static bool is_signalled(unsigned worker)
{
    struct pollfd event = {.fd = place.event_fds[worker], .events = POLLIN};

    return poll(&event, 1, 0) == 1;
}

/* ---- what the workers do ----------------------------------------------------------------------------------------- */

static bool start(struct aiod_request *request, struct io_uring_sqe *sqe)
{
    struct pipe_read *read = (struct pipe_read *)(void *)request;

    io_uring_prep_read(sqe, read->fds[0], &read->byte, 1, 0);
    return true;
}

static int64_t ended(struct aiod_request *request, int result)
{
    (void)request;
    return result;
}

static const struct aiod_uring_operations by_uring = {.start = start, .ended = ended, .also_alone = true};

/* Submit it, and start what may be started. */
static void submit(void *argument)
{
    struct pipe_read *read = argument;

    CHECK(pipe(read->fds) == 0);
    prepare_jobs(&read->job, 1, NULL);
    read->job.request.uring = &by_uring;
    aiod_pool_submit(place.pool, &read->job.request, 1);
    aiod_uring_turn(place.pool);
}

static void create_uring(void *argument)
{
    (void)argument;
    aiod_uring_turn(place.pool);
}

static void sleep_soon(void *argument)
{
    (void)argument;
    aiod_uring_set_sleeping(true);
}

static void be_awake(void *argument)
{
    (void)argument;
    aiod_uring_set_sleeping(false);
}

static void find(void *argument)
{
    struct find *find = argument;

    submit(&find->read);
    find->elsewhere = aiod_uring_is_elsewhere(place.pool);
    aiod_uring_call_bound(place.pool);
    find->elsewhere_later = aiod_uring_is_elsewhere(place.pool);
}

/* A worker goes to sleep beside another one. */
struct nap {
    struct aiod_apart apart;
    bool slept;
};

static void sleep_apart(void *argument)
{
    struct nap *nap = argument;

    nap->slept = aiod_apart_sleep(&nap->apart, place.pool);
}

static bool sleeps(void *argument)
{
    const struct nap *nap = argument;

    return atomic_load(&nap->apart.sleeps);
}

static void turn_until_it_ends(void *argument)
{
    struct pipe_read *read = argument;

    CHECK(write(read->fds[1], "x", 1) == 1);
    while (aiod_uring_inflight() > 0) {
        aiod_uring_turn(place.pool);
    }
    CHECK(read->byte == 'x');
}

/* ---- the tests --------------------------------------------------------------------------------------------------- */

static void begin(void)
{
    memset(&place, 0, sizeof(place));
    place.polling = (struct aiod_idle_polling){.lead = lead, .poll = poll_place, .watch = watch, .wake = wake};
    pthread_mutex_init(&place.lock, NULL);
    pthread_cond_init(&place.changed, NULL);
    place.pool = make_pool(4, 0, 3600000);
    aiod_pool_set_polling(place.pool, &place.polling);
    aiod_uring_want(place.pool);
    CHECK(aiod_pool_start_polling(place.pool) == 0);
    loop_until(place.pool, both_poll, NULL);
    have(0, create_uring, NULL);
    have(1, create_uring, NULL);
}

static void close_pipe(struct pipe_read *read)
{
    close(read->fds[0]);
    close(read->fds[1]);
}

static void end(void)
{
    aiod_pool_stop_polling(place.pool);
    end_pool(place.pool);
}

/* Worker 0 has a request that io_uring has started. */
static void the_bound_worker_is_called_while_it_sleeps(void)
{
    static struct pipe_read started;
    static struct find awake, asleep;

    begin();
    have(0, submit, &started);
    have(1, find, &awake);
    CHECK(!awake.elsewhere && !awake.elsewhere_later && !is_signalled(0));
    loop_until_reaped(place.pool, 1);

    have(0, sleep_soon, NULL);
    have(1, find, &asleep);
    CHECK(asleep.elsewhere && !asleep.elsewhere_later && is_signalled(0));
    loop_until_reaped(place.pool, 2);
    have(0, be_awake, NULL);

    have(0, turn_until_it_ends, &started);
    loop_until_reaped(place.pool, 3);
    CHECK(started.job.runs == 0 && started.job.request.result == 1);
    CHECK(awake.read.job.runs == 1 && asleep.read.job.runs == 1);
    close_pipe(&started);
    close_pipe(&awake.read);
    close_pipe(&asleep.read);
    end();
}

/* Nobody is bound: the finder starts the request itself. */
static void a_worker_that_starts_requests_calls_nobody(void)
{
    static struct find find_first;

    begin();
    have(1, find, &find_first);
    CHECK(!find_first.elsewhere && !find_first.elsewhere_later && !is_signalled(0));
    have(1, turn_until_it_ends, &find_first.read);
    loop_until_reaped(place.pool, 1);
    CHECK(find_first.read.job.runs == 0);
    close_pipe(&find_first.read);
    end();
}

static void a_worker_beside_a_bound_one_sleeps_apart(void)
{
    static struct pipe_read started;
    struct nap nap = {.slept = true};

    begin();
    CHECK(aiod_apart_init(&nap.apart) == 0 && !aiod_apart_wake(&nap.apart));
    aiod_apart_begin_to_poll(&nap.apart);
    aiod_apart_begin_to_poll(&nap.apart);
    have(1, sleep_apart, &nap); /* nobody is bound */
    CHECK(!nap.slept);

    have(0, submit, &started);
    have(0, sleep_apart, &nap); /* nor is another one */
    CHECK(!nap.slept);
    tell(1, sleep_apart, &nap);
    loop_until(place.pool, sleeps, &nap);
    CHECK(aiod_apart_wake(&nap.apart));
    wait_for(1);
    CHECK(nap.slept && !sleeps(&nap) && !aiod_apart_wake(&nap.apart));
    tell(1, sleep_apart, &nap);
    loop_until(place.pool, sleeps, &nap);
    aiod_apart_cease_to_poll(&nap.apart); /* the bound one stops polling */
    wait_for(1);
    have(1, sleep_apart, &nap); /* and would wake nobody any more: it does not sleep */
    CHECK(nap.slept);

    have(0, turn_until_it_ends, &started);
    loop_until_reaped(place.pool, 1);
    close_pipe(&started);
    aiod_apart_destroy(&nap.apart);
    end();
}

int main(void)
{
    int error = aiod_uring_probe();

    if (error < 0) {
        printf("io_uring is not available: %s\n", strerror(-error));
        return STATUS_SKIPPED;
    }
    faults_install();
    the_bound_worker_is_called_while_it_sleeps();
    a_worker_that_starts_requests_calls_nobody();
    a_worker_beside_a_bound_one_sleeps_apart();
    return 0;
}
