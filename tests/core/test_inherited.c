/*
 * A worker inherits its affinity, blocked signals and name from the main loop, not from a submitter: the patch's claim.
 */
#include "check.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

static int cpus_of(pid_t tid)
{
    cpu_set_t set;

    CHECK(sched_getaffinity(tid, sizeof(set), &set) == 0);
    return CPU_COUNT(&set);
}

static void pin_to_one(pid_t tid)
{
    cpu_set_t set;
    cpu_set_t one;

    CHECK(sched_getaffinity(tid, sizeof(set), &set) == 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    CHECK(sched_setaffinity(tid, sizeof(one), &one) == 0);
}

struct pinned {
    struct aiod_pool *pool;
    struct job *jobs;
    size_t count;
    struct gate *gate;
};

/* A submitter that is pinned to one CPU, like a vCPU thread. */
static void *submit_pinned(void *argument)
{
    struct pinned *pinned = argument;

    pin_to_one(0);
    submit_jobs(pinned->pool, pinned->jobs, pinned->count, pinned->gate);
    return NULL;
}

static void workers_inherit_the_main_loops_affinity(void)
{
    enum {
        COUNT = 16
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 10000);
    struct job jobs[COUNT] = {0};
    struct gate gate;
    struct pinned pinned = {pool, jobs, COUNT, &gate};
    int all = cpus_of(0);
    pthread_t thread;

    gate_init(&gate, false);
    CHECK(pthread_create(&thread, NULL, submit_pinned, &pinned) == 0);
    pthread_join(thread, NULL);
    loop_until_waiting(pool, &gate, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(cpus_of(jobs[i].worker) == all);
    }
    gate_open(&gate);
    loop_until_reaped(pool, COUNT);
    end_pool(pool);
}

static void workers_inherit_the_current_affinity(void)
{
    struct aiod_pool *pool = make_pool(4, 0, 10000);
    struct job jobs[2] = {0};
    struct gate gate;
    cpu_set_t before;

    CHECK(sched_getaffinity(0, sizeof(before), &before) == 0);
    gate_init(&gate, false);
    submit_jobs(pool, &jobs[0], 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    pin_to_one(0); /* as a later `taskset -p` of the main thread */
    submit_jobs(pool, &jobs[1], 1, &gate);
    loop_until_waiting(pool, &gate, 2);
    CHECK(cpus_of(jobs[0].worker) == CPU_COUNT(&before));
    CHECK(cpus_of(jobs[1].worker) == 1);
    CHECK(sched_setaffinity(0, sizeof(before), &before) == 0);
    gate_open(&gate);
    loop_until_reaped(pool, 2);
    end_pool(pool);
}

static struct {
    struct job job;
    sigset_t blocked;
    char name[32];
} seen;

static int64_t look(struct aiod_request *request)
{
    (void)request;
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &seen.blocked) == 0);
    CHECK(pthread_getname_np(pthread_self(), seen.name, sizeof(seen.name)) == 0);
    return 0;
}

static void look_in_pool(const char *name)
{
    struct aiod_pool_config config = {.name = name, .max_threads = 1, .idle_timeout_ns = 1000000000};
    struct aiod_pool *pool;

    reaped_total = 0;
    memset(&seen, 0, sizeof(seen));
    seen.job.request.run = look;
    seen.job.request.queued_ns = aiod_now_ns();
    CHECK(aiod_pool_create(&pool, &config) == 0);
    aiod_pool_submit(pool, &seen.job.request, 1);
    loop_until_reaped(pool, 1);
    end_pool(pool);
}

static void workers_block_signals(void)
{
    sigset_t mine;

    look_in_pool("main");
    CHECK(sigismember(&seen.blocked, SIGTERM) && sigismember(&seen.blocked, SIGINT));
    CHECK(sigismember(&seen.blocked, SIGUSR1) && sigismember(&seen.blocked, SIGCHLD));
    CHECK(!sigismember(&seen.blocked, SIGSEGV) && !sigismember(&seen.blocked, SIGBUS));
    CHECK(!sigismember(&seen.blocked, SIGFPE) && !sigismember(&seen.blocked, SIGILL));
    CHECK(pthread_sigmask(SIG_BLOCK, NULL, &mine) == 0);
    CHECK(!sigismember(&mine, SIGTERM)); /* the main loop's own signal mask is unchanged */
}

static void long_names_keep_the_number(void)
{
    look_in_pool("main");
    CHECK(strcmp(seen.name, "aiod-w/main/0") == 0);
    look_in_pool("a-long-engine-name");
    CHECK(strcmp(seen.name, "aiod-w/a-long/0") == 0);
}

enum {
    NAMED = 12
};

struct named {
    struct job job;
    char name[32];
};

static struct gate all_named;

static int64_t note_name(struct aiod_request *request)
{
    struct named *named = (struct named *)request;

    CHECK(pthread_getname_np(pthread_self(), named->name, sizeof(named->name)) == 0);
    gate_pass(&all_named);
    return 0;
}

/* Twelve workers have twelve numbers, and the second digit is not cut off. */
static void workers_have_distinct_numbers(void)
{
    struct aiod_pool_config config = {.name = "database", .max_threads = NAMED, .idle_timeout_ns = 1000000000};
    struct named named[NAMED] = {0};
    struct aiod_pool *pool;
    unsigned seen_numbers = 0;

    gate_init(&all_named, false);
    reaped_total = 0;
    CHECK(aiod_pool_create(&pool, &config) == 0);
    for (size_t i = 0; i < NAMED; i++) {
        named[i].job.request = (struct aiod_request){.run = note_name, .queued_ns = aiod_now_ns()};
        aiod_pool_submit(pool, &named[i].job.request, 1);
    }
    loop_until_waiting(pool, &all_named, NAMED);
    gate_open(&all_named);
    loop_until_reaped(pool, NAMED);
    for (size_t i = 0; i < NAMED; i++) {
        const char *number = strrchr(named[i].name, '/');

        CHECK(number != NULL && strlen(named[i].name) == 15);
        CHECK(strncmp(named[i].name, "aiod-w/database", (size_t)(number - named[i].name)) == 0);
        seen_numbers |= 1u << strtoul(number + 1, NULL, 10);
    }
    CHECK(seen_numbers == (1u << NAMED) - 1);
    end_pool(pool);
}

static bool eight_asleep(const struct aiod_pool_stats *stats)
{
    return stats->idle_threads == 8 && stats->waking_threads == 0;
}

static size_t confined_workers(struct aiod_pool *pool)
{
    pid_t tids[AIOD_THREADS_MAX];
    size_t count = aiod_pool_worker_tids(pool, tids);
    size_t confined = 0;

    for (size_t i = 0; i < count; i++) {
        confined += cpus_of(tids[i]) == 1;
    }
    return confined;
}

/* Living workers follow the main loop to another CPU and back; only those with another affinity are changed. */
static void living_workers_follow_the_main_loop(void)
{
    enum {
        COUNT = 8
    };
    struct aiod_pool *pool = make_pool(COUNT, COUNT, 10000);
    cpu_set_t all;

    loop_until_stats(pool, eight_asleep);
    CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
    CHECK(aiod_pool_follow_affinity(pool) == 0);
    if (CPU_COUNT(&all) > 1) {
        pin_to_one(0);
        CHECK(confined_workers(pool) == 0);
        CHECK(aiod_pool_follow_affinity(pool) == COUNT);
        CHECK(confined_workers(pool) == COUNT);
        CHECK(aiod_pool_follow_affinity(pool) == 0);
        CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
        CHECK(aiod_pool_follow_affinity(pool) == COUNT);
        CHECK(confined_workers(pool) == 0);
    }
    end_pool(pool);
}

/*
 * Hundreds of workers exit and are created during the moves: no thread id of an ended worker is used, and no deadlock.
 */
static void following_is_safe_while_workers_exit(void)
{
    enum {
        COUNT = 4,
        TURNS = 300
    };
    struct aiod_pool *pool = make_pool(COUNT, 0, 0);
    struct job *jobs = calloc((size_t)TURNS * COUNT, sizeof(*jobs));

    for (size_t turn = 0; turn < TURNS; turn++) {
        submit_jobs(pool, jobs + turn * COUNT, COUNT, NULL);
        loop_once(pool, 0);
        CHECK(aiod_pool_follow_affinity(pool) >= 0); /* ESRCH would be the thread id of an ended worker */
    }
    loop_until_reaped(pool, (size_t)TURNS * COUNT);
    end_pool(pool);
    free(jobs);
}

int main(void)
{
    faults_install();
    workers_inherit_the_main_loops_affinity();
    workers_inherit_the_current_affinity();
    workers_block_signals();
    long_names_keep_the_number();
    workers_have_distinct_numbers();
    living_workers_follow_the_main_loop();
    following_is_safe_while_workers_exit();
    return 0;
}
