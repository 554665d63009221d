/*
 * Completions of a lane's writes are announced together: whoever waits for them is woken, also if the next write hangs.
 */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#include "aiod.h"
#include "check.h"
#include "pool/lane.h"
#include "ring_engine.h"
#include "scratch.h"

enum {
    BYTES = 4096,
    WRITES = 32,
    HANGS = 10,
};

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

static struct job jobs[WRITES];
static _Thread_local unsigned unannounced;
static _Atomic unsigned all_unannounced;
static _Atomic unsigned ended;

static void end_job(struct aiod_request *request)
{
    unannounced += request->more_follow;
    all_unannounced += request->more_follow;
    ended++;
}

static void announce(void)
{
    CHECK(unannounced > 0);
    all_unannounced -= unannounced;
    unannounced = 0;
}

/* How many are announced together depends on the time that they take. */
static void every_request_is_announced(void)
{
    struct aiod_idle_polling polling = {.announce = announce};
    struct aiod_pool *pool = make_pool(4, 0, 3600000);
    struct aiod_lane lane = {0};

    aiod_pool_set_polling(pool, &polling);
    for (unsigned round = 0; round < rounds(50); round++) {
        ended = 0;
        prepare_jobs(jobs, WRITES, NULL);
        for (size_t i = 0; i < WRITES; i++) {
            jobs[i].request.lane = &lane;
            jobs[i].request.complete = end_job;
        }
        aiod_pool_submit(pool, &jobs[0].request, WRITES);
        while (ended < WRITES || all_unannounced > 0) {
            loop_once(pool, 1);
        }
    }
    end_pool(pool);
}

/* ---- the ring ---------------------------------------------------------------------------------------------------- */

static struct aiod_client *client;
static uint32_t handle;
static struct aiod_op ops[WRITES];

static void submit_writes(char *area)
{
    struct aiod_op *batch[WRITES];

    for (unsigned i = 0; i < WRITES; i++) {
        ops[i] = (struct aiod_op){.op = AIOD_RING_WRITE,
                                  .handle = handle,
                                  .offset = (uint64_t)i * BYTES,
                                  .length = BYTES,
                                  .buffer = area + (size_t)i * BYTES};
        batch[i] = &ops[i];
    }
    CHECK(aiod_submit(client, batch, WRITES) == WRITES);
}

/* As an event loop does, which sleeps without a limit of its own. */
static void reap_writes(unsigned count)
{
    struct pollfd woken = {.fd = aiod_fd(client), .events = POLLIN};

    while (count > 0) {
        struct aiod_op *done[WRITES];
        unsigned reaped;

        if (aiod_arm(client)) {
            CHECK(poll(&woken, 1, (int)WAIT_MS) == 1);
        }
        aiod_disarm(client);
        reaped = aiod_reap(client, done, count);
        for (unsigned i = 0; i < reaped; i++) {
            CHECK(done[i]->result == BYTES);
        }
        count -= reaped;
    }
}

/* Where the first write waits until the client sleeps, and where one behind it hangs. */
struct gates {
    struct gate first;
    struct gate second;
    unsigned good; /* writes before that */
};

static struct gates hangs[HANGS]; /* not used again: a thread may be about to leave one */

static bool main_thread_sleeps(void)
{
    char state = '?';
    FILE *file = fopen("/proc/self/stat", "r");

    CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state == 'S';
}

static void *let_one_hang(void *argument)
{
    struct gates *gates = argument;

    gate_wait_for(&gates->first, 1);
    while (!main_thread_sleeps()) {
        sched_yield();
    }
    faults.writes_good = (int)gates->good - 1;
    faults.writes_gate = &gates->second;
    gate_open(&gates->first);
    return NULL;
}

/*
 * The first write took long, and wakes the client at once, which has time to sleep again before the write that hangs: those in
 * between have not been announced then.
 */
static void hang_behind(struct gates *gates, char *area)
{
    pthread_t thread;

    gate_init(&gates->first, false);
    gate_init(&gates->second, false);
    faults.writes_good = 0;
    faults.writes_gate = &gates->first;
    CHECK(pthread_create(&thread, NULL, let_one_hang, gates) == 0);
    submit_writes(area);
    reap_writes(gates->good);
    CHECK(pthread_join(thread, NULL) == 0);
    gate_open(&gates->second);
    reap_writes(WRITES - gates->good);
    faults_reset();
}

static void a_write_that_hangs_keeps_no_completion_back(void)
{
    struct engine_config config = {.max_threads = 1, .handles_max = 16};
    struct aiod_options options = {.never_spin = true};
    int file = scratch_file(O_RDWR);
    char *area;

    CHECK(aiod_attach(&client, engine_start(&config), &options) == 0);
    engine_add_file("file", file);
    handle = (uint32_t)aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    area = aiod_alloc(client, WRITES * BYTES);
    CHECK(handle > 0 && area != NULL);
    memset(area, 'a', WRITES * BYTES);
    submit_writes(area); /* the first write finds out that those of the file are a lane */
    reap_writes(WRITES);
    for (unsigned i = 0; i < HANGS; i++) {
        hangs[i].good = 8;
        hang_behind(&hangs[i], area);
    }
    aiod_free(client, area);
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

int main(void)
{
    faults_install();
    every_request_is_announced();
    a_write_that_hangs_keeps_no_completion_back();
    return 0;
}
