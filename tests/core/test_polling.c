/* A thread of libaiod polls for completions that come soon, and not where polling would keep the engine from running. */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "../../clients/c/client.h"
#include "check.h"

#define US UINT64_C(1000)
#define MAX_NS (200 * US)

/* Wait once for a completion that comes after `after_ns`. Returns how long the thread may poll. */
static uint64_t idle(struct aiod_polling *polling, uint64_t after_ns)
{
    struct aiod_poll poll = aiod_polling_begin(polling, AIOD_POLL_SPINNING, 0);

    aiod_polling_end(polling, &poll, poll.limit_ns >= after_ns, after_ns, 0);
    return poll.limit_ns;
}

static void it_polls_for_completions_that_come_soon(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};

    CHECK(idle(&polling, 100 * US) < 10 * US);
    for (unsigned i = 0; i < 20; i++) {
        idle(&polling, 100 * US);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t polled_ns = idle(&polling, 100 * US);

        CHECK(polled_ns >= 100 * US && polled_ns <= MAX_NS);
    }
}

static void it_sleeps_for_completions_that_come_late(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};
    uint64_t polled_ns = 0;

    for (unsigned i = 0; i < 20; i++) {
        idle(&polling, 100 * US);
    }
    for (unsigned i = 0; i < 100; i++) {
        polled_ns += idle(&polling, 10000 * US);
    }
    CHECK(polled_ns < 3 * MAX_NS);

    /* Short polls go on, and are rare: polling may become worth while again. */
    polled_ns = 0;
    for (unsigned i = 0; i < 10000; i++) {
        polled_ns += idle(&polling, 10000 * US);
    }
    CHECK(polled_ns > 0 && polled_ns < MAX_NS);
}

/* The engine cannot run while a thread polls: it answers as soon as the thread sleeps. */
static void it_stops_polling_that_keeps_the_engine_away(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};
    unsigned polls = 0;

    for (unsigned i = 0; i < 10000; i++) {
        struct aiod_poll poll = aiod_polling_begin(&polling, AIOD_POLL_SPINNING, 0);

        polls += poll.limit_ns > 0;
        aiod_polling_end(&polling, &poll, false, poll.limit_ns + 7 * US, 0);
    }
    CHECK(polls < 30);

    /* The engine can run again. */
    for (unsigned i = 0; i < 2000; i++) {
        idle(&polling, 7 * US);
    }
    CHECK(idle(&polling, 7 * US) > 0);
}

/*
 * On a machine with more clients than CPUs a completion takes long, because other threads have the CPUs. The time says
 * nothing, and the poll that finds the completion between the others' turns is worth while.
 */
static void it_polls_on_among_many_clients(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};

    for (unsigned i = 0; i < 1000; i++) {
        struct aiod_poll poll = aiod_polling_begin(&polling, AIOD_POLL_SPINNING, 0);

        CHECK(poll.limit_ns > 0);
        CHECK(aiod_poll_goes_on(&poll, US / 2, 900 * US));
        aiod_polling_end(&polling, &poll, true, 900 * US, 0);
    }
}

/* A poll ends when it has taken the thread's own time, however long other threads have had the CPU. */
static void a_poll_is_limited_by_its_own_time(void)
{
    struct aiod_poll poll = {.way = AIOD_POLL_SPINNING, .limit_ns = 10 * US};

    for (unsigned i = 0; i < 9; i++) {
        CHECK(aiod_poll_goes_on(&poll, 1 * US, 100 * US));
    }
    CHECK(poll.turns == 9 && !aiod_poll_goes_on(&poll, 1 * US, 100 * US));

    poll = (struct aiod_poll){.way = AIOD_POLL_SPINNING, .limit_ns = 10 * US};
    CHECK(aiod_poll_goes_on(&poll, 4 * US, US / 2) && aiod_poll_goes_on(&poll, 4 * US, US / 2));
    CHECK(!aiod_poll_goes_on(&poll, 1 * US, US / 2) && poll.turns == 0);
}

/* The other threads have run many times, or one for long, and the engine has not answered. */
static void a_poll_is_limited_by_the_turns_of_others(void)
{
    struct aiod_poll poll = {.way = AIOD_POLL_SPINNING, .limit_ns = MAX_NS};
    unsigned turns = 1;

    while (aiod_poll_goes_on(&poll, 0, 100 * US)) {
        CHECK(++turns < 100);
    }
    poll = (struct aiod_poll){.way = AIOD_POLL_SPINNING, .limit_ns = MAX_NS};
    CHECK(!aiod_poll_goes_on(&poll, 0, 4000 * US) && poll.crowded_ns == 4000 * US);
}

/* A thread that computes has the only CPU: there are no polls for a while. Where there are more CPUs, polls go on. */
static void it_does_not_yield_again_and_again_to_a_thread_that_computes(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};
    uint64_t now_ns = 1000000 * US;
    struct aiod_poll poll = aiod_polling_begin(&polling, AIOD_POLL_YIELDING, now_ns);

    CHECK(poll.limit_ns > 0 && !aiod_poll_goes_on(&poll, 0, 4000 * US));
    aiod_polling_end(&polling, &poll, true, 4000 * US, now_ns);
    now_ns += 100000 * US;
    poll = aiod_polling_begin(&polling, AIOD_POLL_YIELDING, now_ns);
    CHECK(poll.limit_ns == 0);
    poll = aiod_polling_begin(&polling, AIOD_POLL_SPINNING, now_ns);
    CHECK(poll.limit_ns > 0);
    now_ns += 1000000 * US;
    poll = aiod_polling_begin(&polling, AIOD_POLL_YIELDING, now_ns);
    CHECK(poll.limit_ns > 0);
}

/* On the only CPU, a sched_yield() that returns at once says that the engine sleeps. */
static void a_poll_on_the_only_cpu_ends_when_no_thread_runs_meanwhile(void)
{
    struct aiod_poll poll = {.way = AIOD_POLL_YIELDING, .limit_ns = MAX_NS};

    CHECK(aiod_poll_goes_on(&poll, US / 10, 5 * US));
    CHECK(!aiod_poll_goes_on(&poll, US / 10, US / 5));
}

/* One poll, answered before its first yield or after it. */
static struct aiod_poll answer(struct aiod_polling *polling, bool at_once, uint64_t now_ns)
{
    struct aiod_poll poll = aiod_polling_begin(polling, AIOD_POLL_SPINNING, now_ns);

    if (!at_once) {
        CHECK(aiod_poll_goes_on(&poll, US / 2, 5 * US));
    }
    aiod_polling_end(polling, &poll, true, 5 * US, now_ns);
    return poll;
}

/* The engine gets time to answer before the first yield while it does so; if it does not, it is tried now and then. */
static void it_gives_an_engine_time_that_answers_before_the_first_yield(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};
    unsigned tries = 0;

    for (unsigned i = 0; i < 100; i++) {
        CHECK(answer(&polling, true, 0).looks > 1);
    }
    answer(&polling, false, 0);
    CHECK(answer(&polling, true, 0).looks > 1); /* one late answer says nothing */
    for (unsigned i = 0; i < 100; i++) {
        tries += answer(&polling, false, 0).looks > 1;
    }
    CHECK(tries > 0 && tries < 15);
    for (unsigned i = 0; i < 100; i++) {
        answer(&polling, true, 0);
    }
    CHECK(answer(&polling, true, 0).looks > 1);
}

/* A client that is always answered at once would never yield to those on its CPU. */
static void it_gives_way_now_and_then(void)
{
    struct aiod_polling polling = {.max_ns = MAX_NS};
    uint64_t now_ns = 1000000 * US;
    struct aiod_poll poll;
    unsigned times = 0;

    for (unsigned i = 0; i < 1000; i++) {
        CHECK(!answer(&polling, false, now_ns).gives_way); /* it yields anyway */
    }
    for (unsigned i = 0; i < 1000; i++) {
        times += answer(&polling, true, now_ns).gives_way;
    }
    CHECK(times > 30 && times < 250);

    /* It has given way to a thread that computes: not again for a while. */
    do {
        poll = aiod_polling_begin(&polling, AIOD_POLL_SPINNING, now_ns);
        aiod_poll_gave_way(&poll, poll.gives_way ? 4000 * US : 0);
        aiod_polling_end(&polling, &poll, true, 5 * US, now_ns);
    } while (!poll.gives_way);
    CHECK(!aiod_poll_goes_on(&poll, US / 2, US / 2)); /* nor does it poll on */
    for (unsigned i = 0; i < 1000; i++) {
        CHECK(!answer(&polling, true, now_ns + 100000 * US).gives_way);
    }
    CHECK(answer(&polling, true, now_ns + 1000000 * US).gives_way);
}

static void it_never_polls_with_max_ns_0(void)
{
    struct aiod_polling polling = {.max_ns = 0};

    for (unsigned i = 0; i < 100; i++) {
        CHECK(idle(&polling, 1) == 0);
    }
}

static void run_on(pid_t pid, size_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(pid, sizeof(set), &set) == 0);
}

/* By two clients in turn: the answer is cached for the thread and its last client. */
static enum aiod_polling_way way(pid_t engine_pid)
{
    static struct aiod_client clients[2];
    static unsigned calls;
    struct aiod_client *client = &clients[++calls % 2];

    client->engine_pid = engine_pid;
    return aiod_polling_way(client);
}

static void it_does_not_spin_on_the_only_cpu_of_both(void)
{
    cpu_set_t all;
    size_t cpus[2];
    unsigned found = 0;
    pid_t engine;

    CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            cpus[found++] = cpu;
        }
    }
    if (found < 2) {
        return;
    }
    engine = fork();
    CHECK(engine >= 0);
    if (engine == 0) {
        while (true) {
            pause();
        }
    }
    CHECK(way(engine) == AIOD_POLL_SPINNING);
    run_on(0, cpus[0]);
    CHECK(way(engine) == AIOD_POLL_SPINNING);
    run_on(engine, cpus[1]);
    CHECK(way(engine) == AIOD_POLL_SPINNING);
    run_on(engine, cpus[0]);
    CHECK(way(engine) == AIOD_POLL_YIELDING && way(0) == AIOD_POLL_YIELDING);
    CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
    CHECK(way(engine) == AIOD_POLL_SPINNING && way(0) == AIOD_POLL_SPINNING);
    kill(engine, SIGKILL);
    waitpid(engine, NULL, 0);
}

static void it_does_not_poll_in_a_real_time_thread(void)
{
    const struct sched_param usual = {0};
    const struct sched_param lowest = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) < 0) {
        return;
    }
    CHECK(way(0) == AIOD_POLL_NOT);
    CHECK(sched_setscheduler(0, SCHED_RR, &lowest) == 0 && way(0) == AIOD_POLL_NOT);
    CHECK(sched_setscheduler(0, SCHED_OTHER, &usual) == 0 && way(0) != AIOD_POLL_NOT);
}

int main(void)
{
    it_does_not_spin_on_the_only_cpu_of_both();
    it_does_not_poll_in_a_real_time_thread();
    it_polls_for_completions_that_come_soon();
    it_sleeps_for_completions_that_come_late();
    it_stops_polling_that_keeps_the_engine_away();
    it_polls_on_among_many_clients();
    a_poll_is_limited_by_its_own_time();
    a_poll_is_limited_by_the_turns_of_others();
    a_poll_on_the_only_cpu_ends_when_no_thread_runs_meanwhile();
    it_does_not_yield_again_and_again_to_a_thread_that_computes();
    it_gives_an_engine_time_that_answers_before_the_first_yield();
    it_gives_way_now_and_then();
    it_never_polls_with_max_ns_0();
    return 0;
}
