/*
 * vcpu - a pinned vcpu in user space: a thread of SCHED_OTHER that submits a burst of reads at once, and then runs a busy
 * loop that measures its own interruptions, as a guest's program would.
 *
 *     vcpu WAY TARGET FILE CPU READS WINDOW_MS SEED BLOCKS
 *
 * WAY is idle, pool (TARGET: the file), vhost (TARGET: the socket) or ring (TARGET: the endpoint; FILE: EXPORT/PATH). The
 * loop runs for WINDOW_MS, and until the burst is done. Prints one JSON object; "threads" are the other threads of this
 * process, "confined" those of them that may run on the vcpu's CPU only.
 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ways.h"

/* A longer turn of the loop is an interruption. A turn without one takes 0.1 us. */
#define GAP_NS UINT64_C(2000)

struct seen {
    uint64_t submit_ns;
    uint64_t done_ns;
    uint64_t longest_gap_ns;
    uint64_t stolen_ns; /* sum of all interruptions */
    uint64_t gaps;
    uint64_t window_ns;
    unsigned threads;
    unsigned confined;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t mask;

    CPU_ZERO(&mask);
    CPU_SET((size_t)cpu, &mask);
    if (sched_setaffinity(0, sizeof(mask), &mask) != 0) {
        die("pin", "sched_setaffinity");
    }
}

static bool is_confined(pid_t thread, int cpu)
{
    cpu_set_t mask;

    return sched_getaffinity(thread, sizeof(mask), &mask) == 0 && CPU_COUNT(&mask) == 1 &&
           CPU_ISSET((size_t)cpu, &mask);
}

static void count_threads(struct seen *seen, int cpu)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;

    if (tasks == NULL) {
        die("threads", "/proc/self/task");
    }
    while ((task = readdir(tasks)) != NULL) {
        pid_t thread = atoi(task->d_name);

        if (thread > 0 && thread != getpid()) {
            seen->threads++;
            seen->confined += is_confined(thread, cpu) ? 1 : 0;
        }
    }
    closedir(tasks);
}

static void choose_blocks(uint64_t *blocks, unsigned count, uint64_t of, unsigned seed)
{
    uint64_t state = seed;

    for (unsigned i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        blocks[i] = (state >> 33) % of;
    }
}

static void count_gap(struct seen *seen, uint64_t gap_ns)
{
    seen->gaps++;
    seen->stolen_ns += gap_ns;
    seen->longest_gap_ns = gap_ns > seen->longest_gap_ns ? gap_ns : seen->longest_gap_ns;
}

/* The burst, and the loop. */
static struct seen run(const struct way *way, unsigned reads, uint64_t window_ns)
{
    struct seen seen = {0};
    uint64_t began_ns = now_ns();
    uint64_t last_ns;
    uint64_t at_ns;

    way->submit();
    last_ns = at_ns = now_ns();
    seen.submit_ns = at_ns - began_ns;
    while (seen.done_ns == 0 || at_ns - began_ns < window_ns) {
        at_ns = now_ns();
        if (at_ns - last_ns > GAP_NS) {
            count_gap(&seen, at_ns - last_ns);
        }
        last_ns = at_ns;
        if (seen.done_ns == 0 && way->done() == reads) {
            seen.done_ns = at_ns - began_ns;
        }
    }
    seen.window_ns = at_ns - began_ns;
    return seen;
}

static const struct way *way_named(const char *name)
{
    static const struct way *const ways[] = {&way_idle, &way_pool, &way_vhost, &way_ring};

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(ways[i]->name, name) == 0) {
            return ways[i];
        }
    }
    errno = EINVAL;
    die(name, "the way");
}

int main(int argc, char **argv)
{
    uint64_t blocks[BURST_MAX];
    const struct way *way;
    struct seen seen;
    unsigned reads;

    if (argc != 9 || strtoul(argv[5], NULL, 10) > BURST_MAX) {
        fputs("usage: vcpu WAY TARGET FILE CPU READS WINDOW_MS SEED BLOCKS\n", stderr);
        return 2;
    }
    way = way_named(argv[1]);
    reads = (unsigned)strtoul(argv[5], NULL, 10);
    pin(atoi(argv[4]));
    choose_blocks(blocks, reads, strtoull(argv[8], NULL, 10), (unsigned)strtoul(argv[7], NULL, 10));
    way->start(argv[2], argv[3], blocks, reads);
    seen = run(way, reads, strtoull(argv[6], NULL, 10) * 1000000u);
    count_threads(&seen, atoi(argv[4]));
    printf("{\"submit_us\": %.3f, \"done_us\": %.3f, \"longest_gap_us\": %.3f, \"stolen_us\": %.3f, \"gaps\": %llu, "
           "\"window_us\": %.3f, \"threads\": %u, \"confined\": %u}\n",
           (double)seen.submit_ns / 1e3, (double)seen.done_ns / 1e3, (double)seen.longest_gap_ns / 1e3,
           (double)seen.stolen_ns / 1e3, (unsigned long long)seen.gaps, (double)seen.window_ns / 1e3, seen.threads,
           seen.confined);
    return 0;
}
