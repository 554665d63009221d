/*
 * fleet.c - many clients of one engine: busy ones, each a process that reads 4 KiB at a time, and idle ones.
 *
 *     fleet ENDPOINT EXPORT/PATH SECONDS BUSY IDLE
 *
 * Prints the line "go" when all clients have attached their rings, and the measurement begins; then one JSON document:
 * operations per second, and CPU microseconds and context switches of the busy clients for each operation.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "aiod.h"

#define BLOCK_BYTES 4096u
#define LATENCIES_MAX 4096u
#define POLL_NS 1000000 /* how often the starting of processes is checked */

/* What one busy client did. */
struct outcome {
    uint64_t operations;
    double cpu_s;
    uint64_t switches;
    uint64_t latency_ns[LATENCIES_MAX]; /* of every nth operation */
    unsigned latencies;
};

/* Shared by all processes. */
struct shared {
    unsigned ready; /* clients with a ring; the members up to `stop` are atomic */
    bool go;
    bool stop;
    struct outcome outcomes[];
};

static struct shared *shared;

static void nap(uint64_t ns)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)}, NULL);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void fail(const char *step)
{
    fprintf(stderr, "fleet: %s: %s\n", step, aiod_error());
    _exit(1);
}

/* ---- a client ---------------------------------------------------------------------------------------------------- */

struct reader {
    struct aiod_client *client;
    struct aiod_op op;
    uint64_t blocks;
    uint64_t random;
};

static void perform(struct reader *reader)
{
    struct aiod_op *op = &reader->op;

    if (aiod_submit(reader->client, &op, 1) != 1 || aiod_wait(reader->client, op, AIOD_NO_TIMEOUT) < 0 ||
        op->result < 0) {
        fail("request");
    }
}

static void read_block(struct reader *reader)
{
    reader->random = reader->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    reader->op.offset = (reader->random >> 33) % reader->blocks * BLOCK_BYTES;
    perform(reader);
}

static void attach(struct reader *reader, const char *endpoint, const char *path)
{
    struct aiod_options options = {.endpoint = endpoint, .entries = 1, .area_bytes = BLOCK_BYTES, .software = "fleet"};
    char name[256];
    int64_t handle;

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(path, "/"), path);
    if (aiod_connect(&reader->client, name, &options) < 0) {
        fail("connect");
    }
    handle = aiod_open(reader->client, path, AIOD_OPEN_READ, 0);
    if (handle < 0) {
        fail(path);
    }
    reader->op = (struct aiod_op){.op = AIOD_RING_SIZE, .handle = (uint32_t)handle, .awaited = true};
    perform(reader);
    reader->blocks = (uint64_t)reader->op.result / BLOCK_BYTES;
    reader->random = (uint64_t)getpid();
    reader->op.op = AIOD_RING_READ;
    reader->op.length = BLOCK_BYTES;
    reader->op.buffer = aiod_alloc(reader->client, BLOCK_BYTES);
}

static void add_usage(struct outcome *outcome, int sign)
{
    struct rusage now;

    getrusage(RUSAGE_SELF, &now);
    outcome->cpu_s += sign * ((double)(now.ru_utime.tv_sec + now.ru_stime.tv_sec) +
                              (double)(now.ru_utime.tv_usec + now.ru_stime.tv_usec) / 1e6);
    outcome->switches += (uint64_t)(sign * (now.ru_nvcsw + now.ru_nivcsw));
}

static void run_busy(const char *endpoint, const char *path, struct outcome *outcome)
{
    struct reader reader = {0};
    uint64_t step = 1;

    attach(&reader, endpoint, path);
    __atomic_fetch_add(&shared->ready, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&shared->go, __ATOMIC_SEQ_CST)) {
        nap(POLL_NS);
    }
    add_usage(outcome, -1);
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        uint64_t began_ns = now_ns();

        read_block(&reader);
        if (outcome->operations % step == 0) {
            outcome->latency_ns[outcome->latencies++] = now_ns() - began_ns;
        }
        if (outcome->latencies == LATENCIES_MAX) { /* keep every second one, and take half as many from now on */
            for (unsigned i = 0; i < LATENCIES_MAX / 2; i++) {
                outcome->latency_ns[i] = outcome->latency_ns[2 * i];
            }
            outcome->latencies = LATENCIES_MAX / 2;
            step *= 2;
        }
        outcome->operations++;
    }
    add_usage(outcome, 1);
    aiod_disconnect(reader.client);
    _exit(0);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static int compare(const void *one, const void *other)
{
    const uint64_t *a = one;
    const uint64_t *b = other;

    return (*a > *b) - (*a < *b);
}

/* The p-th percentile over the clients' own: each client counts as much as another. */
static double percentile_us(struct outcome *outcomes, unsigned busy, unsigned percent)
{
    double sum = 0;

    for (unsigned i = 0; i < busy; i++) {
        qsort(outcomes[i].latency_ns, outcomes[i].latencies, sizeof(uint64_t), compare);
        sum += (double)outcomes[i].latency_ns[outcomes[i].latencies * percent / 100];
    }
    return sum / busy / 1e3;
}

static void report(unsigned busy, double seconds)
{
    struct outcome sum = {0};
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < busy; i++) {
        const struct outcome *one = &shared->outcomes[i];

        if (one->operations == 0) {
            fprintf(stderr, "fleet: a client made no request\n");
            exit(1);
        }
        sum.operations += one->operations;
        sum.cpu_s += one->cpu_s;
        sum.switches += one->switches;
        least = one->operations < least ? one->operations : least;
    }
    printf("{\"operations\": %llu, \"rate\": %.1f, \"least_rate\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"client_cpu_us\": %.3f, \"client_switches\": %.4f}\n",
           (unsigned long long)sum.operations, (double)sum.operations / seconds, (double)least / seconds,
           percentile_us(shared->outcomes, busy, 50), percentile_us(shared->outcomes, busy, 99),
           sum.cpu_s * 1e6 / (double)sum.operations, (double)sum.switches / (double)sum.operations);
}

/* Wait until all busy clients are ready, or one has failed. */
static void wait_ready(unsigned busy)
{
    while (__atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST) < busy) {
        if (waitpid(-1, NULL, WNOHANG) > 0) {
            exit(1);
        }
        nap(POLL_NS);
    }
}

int main(int argc, char **argv)
{
    unsigned busy = argc == 6 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
    unsigned idle = argc == 6 ? (unsigned)strtoul(argv[5], NULL, 10) : 0;
    struct reader *sleepers = calloc(idle + 1, sizeof(*sleepers));
    bool failed = false;
    uint64_t began_ns;
    double seconds;
    int status;

    if (busy == 0 || sleepers == NULL) {
        fprintf(stderr, "usage: fleet ENDPOINT EXPORT/PATH SECONDS BUSY IDLE\n");
        return 2;
    }
    shared = mmap(NULL, sizeof(*shared) + busy * sizeof(struct outcome), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        perror("fleet: mmap");
        return 1;
    }
    for (unsigned i = 0; i < busy; i++) {
        pid_t pid = fork();

        if (pid == 0) {
            run_busy(argv[1], argv[2], &shared->outcomes[i]);
        } else if (pid < 0) {
            perror("fleet: fork");
            __atomic_store_n(&shared->go, true, __ATOMIC_SEQ_CST);
            __atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
            return 1;
        }
    }
    for (unsigned i = 0; i < idle; i++) {
        attach(&sleepers[i], argv[1], argv[2]);
        read_block(&sleepers[i]);
    }
    wait_ready(busy);
    puts("go");
    fflush(stdout);
    began_ns = now_ns();
    __atomic_store_n(&shared->go, true, __ATOMIC_SEQ_CST);
    nap((uint64_t)(strtod(argv[3], NULL) * 1e9));
    __atomic_store_n(&shared->stop, true, __ATOMIC_SEQ_CST);
    seconds = (double)(now_ns() - began_ns) / 1e9;
    while (wait(&status) > 0) {
        failed |= status != 0;
    }
    if (!failed) {
        report(busy, seconds);
    }
    for (unsigned i = 0; i < idle; i++) {
        aiod_disconnect(sleepers[i].client);
    }
    return failed;
}
