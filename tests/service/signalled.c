/*
 * signalled.c - a program with libaiod under a timer whose handler does nothing: no call fails, no request is lost, and no
 * descriptor is left open.
 *
 *     signalled INTERVAL_US restart|interrupt ROUNDS
 */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "../patience.h"
#include "aiod.h"

#define BATCH 20u
#define BYTES 16384u

static volatile sig_atomic_t fired;

static void die(const char *step)
{
    printf("%s: %s\n", step, aiod_error());
    fflush(stdout);
    _exit(1);
}

static void count(int signal_number)
{
    (void)signal_number;
    fired++;
}

static void start_timer(long interval_us, int flags)
{
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    struct itimerval timer = {.it_interval = {.tv_usec = interval_us}, .it_value = {.tv_usec = interval_us}};

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static unsigned descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    unsigned found = 0;

    while (readdir(directory) != NULL) {
        found++;
    }
    closedir(directory);
    return found;
}

static void fill(char *data, unsigned round)
{
    memset(data, 'a' + (int)(round % 26), BYTES);
}

/* Write or read BATCH blocks, all in flight at once. */
static void batch(struct aiod_client *client, uint16_t code, uint32_t handle, unsigned round)
{
    struct aiod_op ops[BATCH];
    char expected[BYTES];

    fill(expected, round);
    for (unsigned i = 0; i < BATCH; i++) {
        struct aiod_op *op = &ops[i];

        *op = (struct aiod_op){.op = code,
                               .handle = handle,
                               .offset = i * BYTES,
                               .length = BYTES,
                               .buffer = aiod_alloc(client, BYTES),
                               .awaited = true};
        if (code == AIOD_RING_WRITE) {
            memcpy(op->buffer, expected, BYTES);
        }
        if (aiod_submit(client, &op, 1) != 1) {
            die("submit");
        }
    }
    for (unsigned i = 0; i < BATCH; i++) {
        if (aiod_wait(client, &ops[i], scaled_ms(30000) * 1000000LL) < 0 || ops[i].result != BYTES ||
            memcmp(ops[i].buffer, expected, BYTES) != 0) {
            die("batch");
        }
        aiod_free(client, ops[i].buffer);
    }
}

static void use(unsigned round)
{
    /* Sleep at once in every other round, so that futexes are interrupted, too. */
    struct aiod_options options = {.never_spin = round % 2 == 0, .area_bytes = 1 << 20};
    static char data[4 * BYTES];
    struct aiod_client *client;
    int64_t handle;

    if (aiod_connect(&client, "scratch", &options) < 0) {
        die("connect");
    }
    handle = aiod_open(client, "scratch/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, 0644);
    if (handle < 0) {
        die("open");
    }
    batch(client, AIOD_RING_WRITE, (uint32_t)handle, round);
    if (aiod_flush(client, (uint32_t)handle, AIOD_NO_TIMEOUT) != 0) {
        die("flush");
    }
    batch(client, AIOD_RING_READ, (uint32_t)handle, round);
    if (aiod_pwrite(client, (uint32_t)handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) != sizeof(data) ||
        aiod_pread(client, (uint32_t)handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) != sizeof(data)) {
        die("transfer");
    }
    if (aiod_close(client, (uint32_t)handle) < 0) {
        die("close");
    }
    aiod_disconnect(client);
}

int main(int argc, char **argv)
{
    unsigned before = descriptors();

    if (argc != 4) {
        return 2;
    }
    start_timer(atol(argv[1]), strcmp(argv[2], "restart") == 0 ? SA_RESTART : 0);
    for (int round = 0; round < atoi(argv[3]) || fired == 0; round++) {
        use((unsigned)round);
    }
    if (descriptors() != before) {
        printf("descriptors: %u, %u before\n", descriptors(), before);
        return 1;
    }
    printf("done\n");
    return 0;
}
