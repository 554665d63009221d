/*
 * A client thread under SCHED_FIFO, as by chrt -f, on the CPU of the engine's threads sleeps at once when it waits: the engine
 * does not run while it polls. A poll calls sched_yield(), which this program counts.
 */
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define READS 2000u
#define SKIPPED 77

static const char *path;
static _Thread_local unsigned yields;

/* In place of libc's. */
int sched_yield(void)
{
    yields++;
    return (int)syscall(SYS_sched_yield);
}

static void *read_under_fifo(void *cpus)
{
    const struct sched_param lowest = {.sched_priority = 1};
    struct aiod_client *client;
    int64_t handle;
    char data[512];

    CHECK(sched_setaffinity(0, sizeof(cpu_set_t), cpus) == 0);
    CHECK(aiod_attach(&client, path, NULL) == 0);
    handle = aiod_open(client, "x/file", AIOD_OPEN_READ, 0);
    CHECK(handle > 0);
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &lowest) < 0) {
        puts("SCHED_FIFO is not permitted");
        exit(SKIPPED);
    }
    yields = 0;
    for (unsigned i = 0; i < READS; i++) {
        CHECK(aiod_pread(client, (uint32_t)handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == sizeof(data));
    }
    CHECK(yields == 0);
    aiod_disconnect(client);
    return NULL;
}

int main(void)
{
    cpu_set_t all, one;
    pthread_t thread;
    int file;

    faults_install();
    CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0); /* inherited by the engine's threads */
    path = engine_start(
        &(struct engine_config){.inline_read_max = 4096, .poll_max_ns = 200000, .max_threads = 2, .handles_max = 16});
    file = scratch_file(O_RDWR);
    CHECK(ftruncate(file, 4096) == 0);
    engine_add_file("file", file);
    /* the client takes this thread's affinity for the engine's: it must notice by the policy alone */
    CHECK(sched_setaffinity(0, sizeof(all), &all) == 0);
    CHECK(pthread_create(&thread, NULL, read_under_fifo, &one) == 0);
    pthread_join(thread, NULL);
    engine_stop();
    close(file);
    return 0;
}
