/*
 * aiod-bench - a load generator for aiod's ring, after fio: one thread keeps a number of requests in flight.
 *
 * Prints operations per second, bytes per second, and the latency of requests from submission to reaping.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "aiod.h"

#define SUB_BITS 6
#define BUCKETS (64u << SUB_BITS)
#define MIXED_READS_PERCENT 70u
#define HANDLES_MAX 65535u

struct options {
    const char *endpoint;
    const char *file;
    const char *pattern;
    uint64_t block_bytes;
    uint64_t size_bytes; /* 0: the size of the file */
    unsigned depth;
    unsigned handles;
    double seconds;
    bool flush;
    bool json;
    bool no_spin;
};

struct run {
    struct aiod_client *client;
    uint32_t *handles;
    unsigned handle_count;
    unsigned next_handle;
    uint64_t block_bytes;
    uint64_t blocks;
    uint64_t next_block;
    uint64_t random;
    struct aiod_op *ops; /* one for each slot */
    void **buffers;      /* of the slots */
    unsigned reads_percent;
    bool flush; /* after each write, before the slot's next */
    bool random_order;
    uint64_t operations;
    uint64_t bytes;
    uint64_t max_ns;
    uint64_t latency[BUCKETS]; /* buckets as in the core's histogram: powers of two, each in 64 parts */
};

static const char usage[] =
    "usage: aiod-bench --file EXPORT/PATH [OPTION]...\n"
    "Read or write a file through aiod's shared-memory ring, and print rates and latencies.\n"
    "\n"
    "  --file PATH     the file, EXPORT/PATH; or EXPORT alone if the export is a file or a device\n"
    "  --endpoint EP   the daemon, as ipc:///run/aiod/aiod.sock (default: AIOD_ENDPOINT, else the usual places)\n"
    "  --rw KIND       randread, read, randwrite, write, randrw or rw (default: randread)\n"
    "                  randrw and rw read in 70 % of the requests\n"
    "  --bs BYTES      size of a request (default: 4096)\n"
    "  --depth N       number of requests in flight (default: 1)\n"
    "  --flush         flush after each write; both count as one operation, with the latency of the flush\n"
    "  --handles N     open the file N times, and use the handles in turn (default: 1)\n"
    "  --size BYTES    use the first BYTES of the file only (default: all of it)\n"
    "  --seconds S     duration (default: 3)\n"
    "  --no-spin       sleep at once while waiting, without polling\n"
    "  --json          print one JSON document\n"
    "  --help          print this help\n"
    "\n"
    "All kinds but randread and read overwrite the file. Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const char *step)
{
    fprintf(stderr, "aiod-bench: %s: %s\n", step, aiod_error());
    exit(1);
}

static void die_of_memory(void)
{
    fprintf(stderr, "aiod-bench: out of memory\n");
    exit(1);
}

static void die_of_usage(const char *problem)
{
    fprintf(stderr, "aiod-bench: %s\n%s", problem, usage);
    exit(2);
}

/* ---- latencies --------------------------------------------------------------------------------------------------- */

static size_t bucket_of(uint64_t ns)
{
    unsigned top = ns == 0 ? 0 : 63u - (unsigned)__builtin_clzll(ns);

    if (top < SUB_BITS) {
        return (size_t)ns;
    }
    return ((size_t)(top - SUB_BITS + 1) << SUB_BITS) + (size_t)((ns >> (top - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

static double bucket_us(size_t bucket)
{
    size_t group = bucket >> SUB_BITS;
    uint64_t within = bucket & ((1u << SUB_BITS) - 1);
    uint64_t ns = group == 0 ? within : ((1u << SUB_BITS) + within) << (group - 1);

    return (double)ns / 1000.0;
}

static double percentile_us(const struct run *run, double share)
{
    uint64_t wanted = (uint64_t)((double)run->operations * share);
    uint64_t seen = 0;

    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += run->latency[bucket];
        if (seen > wanted) {
            return bucket_us(bucket);
        }
    }
    return (double)run->max_ns / 1000.0;
}

/* ---- the load ---------------------------------------------------------------------------------------------------- */

/* xorshift64*, Marsaglia 2003 and Vigna 2016. */
static uint64_t next_random(struct run *run)
{
    run->random ^= run->random >> 12;
    run->random ^= run->random << 25;
    run->random ^= run->random >> 27;
    return run->random * UINT64_C(2685821657736338717);
}

static bool next_is_read(struct run *run)
{
    return run->reads_percent == 100 || (run->reads_percent > 0 && next_random(run) % 100 < run->reads_percent);
}

/* Set the next request of a slot: the flush after its write, or another block. */
static void fill_in(struct run *run, struct aiod_op *op)
{
    uint64_t block;

    if (run->flush && op->op == AIOD_RING_WRITE) {
        op->op = AIOD_RING_FLUSH;
        op->buffer = NULL;
        op->offset = op->length = 0;
        return;
    }
    block = run->random_order ? next_random(run) % run->blocks : run->next_block++ % run->blocks;
    op->op = next_is_read(run) ? AIOD_RING_READ : AIOD_RING_WRITE;
    op->handle = run->handles[run->next_handle++ % run->handle_count];
    op->offset = block * run->block_bytes;
    op->length = run->block_bytes;
    op->buffer = run->buffers[op - run->ops];
}

static void submit(struct run *run, struct aiod_op *const *ops, unsigned count, uint64_t at_ns)
{
    for (unsigned i = 0; i < count; i++) {
        fill_in(run, ops[i]);
        ops[i]->user = (void *)(uintptr_t)at_ns;
    }
    if (aiod_submit(run->client, ops, count) != (int)count) {
        die("submit");
    }
}

static void count(struct run *run, const struct aiod_op *op, uint64_t at_ns)
{
    uint64_t latency_ns = at_ns - (uint64_t)(uintptr_t)op->user;

    if (op->result < 0 || (uint64_t)op->result != op->length) {
        fprintf(stderr, "aiod-bench: %lld of %llu bytes at %llu: %s\n", (long long)op->result,
                (unsigned long long)op->length, (unsigned long long)op->offset, aiod_reason_text(op->reason));
        exit(1);
    }
    run->bytes += op->length;
    if (run->flush && op->op == AIOD_RING_WRITE) {
        return;
    }
    run->operations++;
    run->latency[bucket_of(latency_ns)]++;
    run->max_ns = latency_ns > run->max_ns ? latency_ns : run->max_ns;
}

static double measure(struct run *run, const struct options *options)
{
    uint64_t started_ns = now_ns();
    uint64_t end_ns = started_ns + (uint64_t)(options->seconds * 1e9);
    uint64_t at_ns = started_ns;
    unsigned inflight = options->depth;

    for (unsigned i = 0; i < options->depth; i++) {
        struct aiod_op *op = &run->ops[i];

        submit(run, &op, 1, at_ns);
    }
    while (inflight > 0) {
        struct aiod_op *done[64];
        unsigned taken;

        if (aiod_wait_any(run->client, AIOD_NO_TIMEOUT) < 0) {
            die("wait");
        }
        taken = aiod_reap(run->client, done, 64);
        at_ns = now_ns();
        for (unsigned i = 0; i < taken; i++) {
            count(run, done[i], at_ns);
        }
        if (at_ns < end_ns) {
            submit(run, done, taken, at_ns);
        } else {
            inflight -= taken;
        }
    }
    return (double)(at_ns - started_ns) / 1e9;
}

static void make_slots(struct run *run, const struct options *options)
{
    run->ops = calloc(options->depth, sizeof(*run->ops));
    run->buffers = calloc(options->depth, sizeof(*run->buffers));
    if (run->ops == NULL || run->buffers == NULL) {
        die_of_memory();
    }
    for (unsigned i = 0; i < options->depth; i++) {
        run->buffers[i] = aiod_alloc(run->client, options->block_bytes);
        if (run->buffers[i] == NULL) {
            fprintf(stderr, "aiod-bench: no room in the ring for --depth %u buffers of --bs %llu\n", options->depth,
                    (unsigned long long)options->block_bytes);
            exit(1);
        }
        if (run->reads_percent < 100) {
            memset(run->buffers[i], (int)i + 1, options->block_bytes);
        }
    }
}

static void open_handles(struct run *run, const struct options *options)
{
    uint32_t flags = AIOD_OPEN_READ | (run->reads_percent < 100 ? AIOD_OPEN_WRITE : 0);

    run->handles = calloc(options->handles, sizeof(*run->handles));
    if (run->handles == NULL) {
        die_of_memory();
    }
    for (; run->handle_count < options->handles; run->handle_count++) {
        int64_t handle = aiod_open(run->client, options->file, flags, 0);

        if (handle < 0) {
            die(options->file);
        }
        run->handles[run->handle_count] = (uint32_t)handle;
    }
}

static void connect_to(struct run *run, const struct options *options)
{
    uint64_t wanted = options->block_bytes < 4096 ? 4096 : options->block_bytes;
    struct aiod_options how = {
        .never_spin = options->no_spin, .endpoint = options->endpoint, .entries = 1, .software = "aiod-bench"};
    char name[256];

    while (how.entries < options->depth) {
        how.entries *= 2;
    }
    how.area_bytes = 4096;
    while (how.area_bytes < wanted) {
        how.area_bytes *= 2; /* a block of libaiod's allocator */
    }
    how.area_bytes *= how.entries;
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(options->file, "/"), options->file);
    if (aiod_connect(&run->client, name, &how) < 0) {
        die("connect");
    }
    open_handles(run, options);
}

static void find_size(struct run *run, const struct options *options)
{
    struct aiod_op size = {.op = AIOD_RING_SIZE, .handle = run->handles[0]};
    uint64_t bytes = options->size_bytes;
    struct aiod_op *one = &size;

    if (aiod_submit(run->client, &one, 1) != 1 || aiod_wait(run->client, &size, AIOD_NO_TIMEOUT) < 0 ||
        size.result < 0) {
        die("size");
    }
    if (bytes == 0 || bytes > (uint64_t)size.result) {
        bytes = (uint64_t)size.result;
    }
    run->block_bytes = options->block_bytes;
    run->blocks = bytes / options->block_bytes;
    if (run->blocks == 0) {
        fprintf(stderr, "aiod-bench: %s is smaller than one block of --bs %llu\n", options->file,
                (unsigned long long)options->block_bytes);
        exit(1);
    }
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

/* CPU seconds and context switches of this process. */
struct usage {
    double cpu_s;
    long switches;
};

static struct usage usage_now(void)
{
    struct rusage now;

    getrusage(RUSAGE_SELF, &now);
    return (struct usage){.cpu_s = (double)(now.ru_utime.tv_sec + now.ru_stime.tv_sec) +
                                   (double)(now.ru_utime.tv_usec + now.ru_stime.tv_usec) / 1e6,
                          .switches = now.ru_nvcsw + now.ru_nivcsw};
}

static void print_json(const struct run *run, double seconds, struct usage used)
{
    const char *comma = "";

    printf("{\"operations\": %llu, \"seconds\": %.6f, \"iops\": %.1f, \"bandwidth_bytes\": %.1f, \"p50_us\": %.3f, "
           "\"p99_us\": %.3f, \"p999_us\": %.3f, \"max_us\": %.3f, \"cpu_s\": %.6f, \"switches\": %ld, "
           "\"latency_ns\": {",
           (unsigned long long)run->operations, seconds, (double)run->operations / seconds,
           (double)run->bytes / seconds, percentile_us(run, 0.5), percentile_us(run, 0.99), percentile_us(run, 0.999),
           (double)run->max_ns / 1000.0, used.cpu_s, used.switches);
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        if (run->latency[bucket] > 0) {
            printf("%s\"%.0f\": %llu", comma, bucket_us(bucket) * 1000.0, (unsigned long long)run->latency[bucket]);
            comma = ", ";
        }
    }
    printf("}}\n");
}

static void print(const struct run *run, double seconds)
{
    printf("%llu operations in %.3f s: %.0f IOPS, %.1f MiB/s\n", (unsigned long long)run->operations, seconds,
           (double)run->operations / seconds, (double)run->bytes / seconds / 1048576.0);
    printf("latency (us): p50 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", percentile_us(run, 0.5),
           percentile_us(run, 0.99), percentile_us(run, 0.999), (double)run->max_ns / 1000.0);
}

static uint64_t number_of(const char *text, const char *name)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0) {
        fprintf(stderr, "aiod-bench: --%s %s is not a number\n", name, text);
        exit(2);
    }
    return value;
}

static struct options parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"endpoint", required_argument, NULL, 'e'},
        {"file", required_argument, NULL, 'f'},
        {"rw", required_argument, NULL, 'r'},
        {"bs", required_argument, NULL, 'b'},
        {"depth", required_argument, NULL, 'd'},
        {"size", required_argument, NULL, 'z'},
        {"seconds", required_argument, NULL, 's'},
        {"flush", no_argument, NULL, 'F'},
        {"handles", required_argument, NULL, 'H'},
        {"json", no_argument, NULL, 'j'},
        {"no-spin", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct options options = {.pattern = "randread", .block_bytes = 4096, .depth = 1, .handles = 1, .seconds = 3.0};
    int option;

    while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        switch (option) {
        case 'e':
            options.endpoint = optarg;
            break;
        case 'f':
            options.file = optarg;
            break;
        case 'r':
            options.pattern = optarg;
            break;
        case 'b':
            options.block_bytes = number_of(optarg, "bs");
            break;
        case 'd':
            options.depth = (unsigned)number_of(optarg, "depth");
            break;
        case 'z':
            options.size_bytes = number_of(optarg, "size");
            break;
        case 's':
            options.seconds = strtod(optarg, NULL);
            break;
        case 'F':
            options.flush = true;
            break;
        case 'H':
            options.handles = (unsigned)number_of(optarg, "handles");
            break;
        case 'j':
            options.json = true;
            break;
        case 'n':
            options.no_spin = true;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (options.file == NULL || optind != argc) {
        die_of_usage("--file EXPORT/PATH is required, and no other arguments are allowed");
    }
    if (options.block_bytes == 0 || options.depth == 0 || options.depth > AIOD_RING_ENTRIES_MAX ||
        !(options.seconds > 0)) {
        die_of_usage("--bs and --seconds must be greater than 0, --depth from 1 to 4096");
    }
    if (options.handles == 0 || options.handles > HANDLES_MAX) {
        die_of_usage("--handles must be from 1 to 65535");
    }
    return options;
}

/* The percentage of requests that read. */
static unsigned reads_percent(const char *pattern)
{
    const char *way = strncmp(pattern, "rand", 4) == 0 ? pattern + 4 : pattern;

    if (strcmp(way, "read") == 0) {
        return 100;
    }
    if (strcmp(way, "write") == 0) {
        return 0;
    }
    if (strcmp(way, "rw") != 0) {
        die_of_usage("--rw must be randread, read, randwrite, write, randrw or rw");
    }
    return MIXED_READS_PERCENT;
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    static struct run run = {.random = UINT64_C(0x9e3779b97f4a7c15)};
    struct usage before;
    struct usage after;
    double seconds;

    run.random_order = strncmp(options.pattern, "rand", 4) == 0;
    run.reads_percent = reads_percent(options.pattern);
    run.flush = options.flush;
    connect_to(&run, &options);
    find_size(&run, &options);
    make_slots(&run, &options);
    before = usage_now();
    seconds = measure(&run, &options);
    after = usage_now();
    if (options.json) {
        print_json(&run, seconds,
                   (struct usage){.cpu_s = after.cpu_s - before.cpu_s, .switches = after.switches - before.switches});
    } else {
        print(&run, seconds);
    }
    free(run.ops);
    free(run.buffers);
    free(run.handles);
    aiod_disconnect(run.client);
    return 0;
}
