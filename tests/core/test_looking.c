/* When a thread of libaiod looks for a completion, and for how long; and when its looking would keep the engine away. */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "../../clients/c/client.h"
#include "check.h"

#define US UINT64_C(1000)
#define MAX_NS (200 * US)

/* One time without anything to do: something would come `after_ns` if nobody looked. Returns how long was looked. */
static uint64_t idle(struct aiod_looking *looking, uint64_t after_ns)
{
    uint64_t look_ns = aiod_look_begin(looking);
    bool found = look_ns >= after_ns;

    aiod_look_end(looking, look_ns, look_ns > 0 && found, after_ns);
    return look_ns;
}

static void what_comes_soon_is_looked_for(void)
{
    struct aiod_looking looking = {.max_ns = MAX_NS};

    CHECK(idle(&looking, 100 * US) == 0);
    for (unsigned i = 0; i < 20; i++) {
        idle(&looking, 100 * US);
    }
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t looked_ns = idle(&looking, 100 * US);

        CHECK(looked_ns >= 100 * US && looked_ns <= MAX_NS);
    }
}

static void what_comes_late_is_not(void)
{
    struct aiod_looking looking = {.max_ns = MAX_NS};
    uint64_t looked_ns = 0;

    for (unsigned i = 0; i < 20; i++) {
        idle(&looking, 100 * US);
    }
    for (unsigned i = 0; i < 100; i++) {
        looked_ns += idle(&looking, 10000 * US);
    }
    CHECK(looked_ns < 3 * MAX_NS && idle(&looking, 10000 * US) == 0);
}

/* An engine that cannot run meanwhile: it answers as soon as nobody looks. */
static void what_looking_keeps_away_is_not(void)
{
    struct aiod_looking looking = {.max_ns = MAX_NS};
    unsigned looks = 0;

    for (unsigned i = 0; i < 10000; i++) {
        uint64_t look_ns = aiod_look_begin(&looking);

        looks += look_ns > 0;
        aiod_look_end(&looking, look_ns, false, look_ns + 7 * US);
    }
    CHECK(looks < 30);

    /* Once it can, it is looked for again. */
    for (unsigned i = 0; i < 2000; i++) {
        idle(&looking, 7 * US);
    }
    CHECK(idle(&looking, 7 * US) > 0);
}

static void never(void)
{
    struct aiod_looking looking = {.max_ns = 0};

    for (unsigned i = 0; i < 100; i++) {
        CHECK(idle(&looking, 1) == 0);
    }
}

static void run_on(pid_t pid, size_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    CHECK(sched_setaffinity(pid, sizeof(set), &set) == 0);
}

/* By two clients in turn: what is known of a thread is of the last one. */
static bool may_look(pid_t engine_pid)
{
    static struct aiod_client clients[2];
    static unsigned asked;
    struct aiod_client *client = &clients[++asked % 2];

    client->engine_pid = engine_pid;
    return aiod_may_look(client);
}

static void where_both_have_one_cpu(void)
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
    CHECK(may_look(engine));
    run_on(0, cpus[0]);
    CHECK(may_look(engine));
    run_on(engine, cpus[1]);
    CHECK(may_look(engine));
    run_on(engine, cpus[0]);
    CHECK(!may_look(engine) && !may_look(0));
    CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
    CHECK(may_look(engine) && may_look(0));
    kill(engine, SIGKILL);
    waitpid(engine, NULL, 0);
}

static void in_a_real_time_thread(void)
{
    const struct sched_param usual = {0};
    const struct sched_param lowest = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) < 0) {
        return;
    }
    CHECK(!may_look(0));
    CHECK(sched_setscheduler(0, SCHED_RR, &lowest) == 0 && !may_look(0));
    CHECK(sched_setscheduler(0, SCHED_OTHER, &usual) == 0 && may_look(0));
}

int main(void)
{
    where_both_have_one_cpu();
    in_a_real_time_thread();
    what_comes_soon_is_looked_for();
    what_comes_late_is_not();
    what_looking_keeps_away_is_not();
    never();
    return 0;
}
