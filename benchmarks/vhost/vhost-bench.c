/*
 * vhost-bench - a load generator for vhost-user-blk: a virtio-blk driver in user space, in the place of a guest and its
 * VMM. Its options and its output are those of aiod-bench.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "load.h"

#define MIXED_READS_PERCENT 70u
#define QUEUES_MAX 64u
#define DEPTH_MAX 1024u
#define SECTOR_BYTES 512u

struct arguments {
    struct front_options front;
    struct load_options load;
    const char *pattern;
    bool json;
};

static const char usage[] =
    "usage: vhost-bench --socket PATH [OPTION]...\n"
    "Drive a vhost-user-blk server as a virtio-blk driver does, and print rates and latencies.\n"
    "\n"
    "  --socket PATH     the server's socket\n"
    "  --rw KIND         randread, read, randwrite, write, randrw or rw (default: randread)\n"
    "                    randrw and rw read in 70 % of the requests\n"
    "  --verify          instead: write, zero, flush and read blocks, and verify each; ends with a read of all\n"
    "  --bs BYTES        size of a request, a multiple of 512 (default: 4096)\n"
    "  --depth N         number of requests in flight in each queue (default: 1)\n"
    "  --queues N        number of queues, each with a thread (default: 1)\n"
    "  --size BYTES      use the first BYTES of the disk only (default: all of it)\n"
    "  --seconds S       duration (default: 3)\n"
    "  --poll            look for completions in a loop (default: sleep on the call eventfd)\n"
    "  --no-event-index  do not offer VIRTIO_RING_F_EVENT_IDX\n"
    "  --indirect        each request has a table of indirect descriptors\n"
    "  --reconnect S     wait S seconds for a lost server, and carry on (default: end)\n"
    "  --json            print one JSON document\n"
    "  --help            print this help\n"
    "\n"
    "SIGTERM ends it early. All kinds but randread and read overwrite the disk. Exit status: 0 done, 1 failed, 2 wrong "
    "usage.\n";

static void die_of_usage(const char *problem)
{
    fprintf(stderr, "vhost-bench: %s\n%s", problem, usage);
    exit(2);
}

static void die(const struct front *front)
{
    fprintf(stderr, "vhost-bench: %s: %s: %s\n", front->options.socket, front->failed, strerror(errno));
    exit(1);
}

static uint64_t number_of(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0') {
        die_of_usage("numbers have digits only");
    }
    return value;
}

static void parse_one(struct arguments *arguments, int option)
{
    switch (option) {
    case 'S':
        arguments->front.socket = optarg;
        break;
    case 'r':
        arguments->pattern = optarg;
        break;
    case 'v':
        arguments->load.verify = true;
        break;
    case 'b':
        arguments->load.block_bytes = number_of(optarg);
        break;
    case 'd':
        arguments->front.queue.depth = (unsigned)number_of(optarg);
        break;
    case 'q':
        arguments->front.queue_count = (unsigned)number_of(optarg);
        break;
    case 'z':
        arguments->load.size_bytes = number_of(optarg);
        break;
    case 's':
        arguments->load.seconds = strtod(optarg, NULL);
        break;
    case 'p':
        arguments->front.queue.polls = true;
        break;
    case 'E':
        arguments->front.queue.event_index = false;
        break;
    case 'i':
        arguments->front.queue.indirect = true;
        break;
    case 'R':
        arguments->load.reconnect_s = strtod(optarg, NULL);
        break;
    case 'j':
        arguments->json = true;
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static void parse_pattern(struct arguments *arguments)
{
    const char *pattern = arguments->pattern;
    const char *way = strncmp(pattern, "rand", 4) == 0 ? pattern + 4 : pattern;

    arguments->load.random_order = way != pattern;
    if (strcmp(way, "read") == 0) {
        arguments->load.reads_percent = 100;
    } else if (strcmp(way, "rw") == 0) {
        arguments->load.reads_percent = MIXED_READS_PERCENT;
    } else if (strcmp(way, "write") != 0) {
        die_of_usage("--rw must be randread, read, randwrite, write, randrw or rw");
    }
}

static struct arguments parse(int argc, char **argv)
{
    static const struct option names[] = {
        {"socket", required_argument, NULL, 'S'},
        {"rw", required_argument, NULL, 'r'},
        {"verify", no_argument, NULL, 'v'},
        {"bs", required_argument, NULL, 'b'},
        {"depth", required_argument, NULL, 'd'},
        {"queues", required_argument, NULL, 'q'},
        {"size", required_argument, NULL, 'z'},
        {"seconds", required_argument, NULL, 's'},
        {"poll", no_argument, NULL, 'p'},
        {"no-event-index", no_argument, NULL, 'E'},
        {"indirect", no_argument, NULL, 'i'},
        {"reconnect", required_argument, NULL, 'R'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct arguments arguments = {
        .front = {.queue_count = 1, .queue = {.depth = 1, .event_index = true}},
        .load = {.block_bytes = 4096, .seconds = 3.0},
        .pattern = "randread",
    };
    int option;

    while ((option = getopt_long(argc, argv, "h", names, NULL)) != -1) {
        parse_one(&arguments, option);
    }
    if (arguments.front.socket == NULL || optind != argc) {
        die_of_usage("--socket PATH is required, and no other arguments are allowed");
    }
    if (arguments.load.block_bytes == 0 || arguments.load.block_bytes % SECTOR_BYTES != 0 ||
        arguments.front.queue.depth == 0 || arguments.front.queue.depth > DEPTH_MAX ||
        arguments.front.queue_count == 0 || arguments.front.queue_count > QUEUES_MAX || !(arguments.load.seconds > 0)) {
        die_of_usage("--bs must be a multiple of 512, --depth from 1 to 1024, --queues from 1 to 64, --seconds not 0");
    }
    parse_pattern(&arguments);
    arguments.front.queue.block_bytes = arguments.load.block_bytes;
    return arguments;
}

static double cpu_seconds(void)
{
    struct rusage now;

    getrusage(RUSAGE_SELF, &now);
    return (double)(now.ru_utime.tv_sec + now.ru_stime.tv_sec) +
           (double)(now.ru_utime.tv_usec + now.ru_stime.tv_usec) / 1e6;
}

static void print(const struct load_result *result, double cpu_s, bool json)
{
    const struct latency *latency = &result->latency;
    double rate = (double)latency->count / result->seconds;
    double bandwidth = (double)result->bytes / result->seconds;

    if (json) {
        printf("{\"operations\": %llu, \"seconds\": %.6f, \"iops\": %.1f, \"bandwidth_bytes\": %.1f, \"p50_us\": %.3f, "
               "\"p99_us\": %.3f, \"p999_us\": %.3f, \"max_us\": %.3f, \"cpu_s\": %.6f, \"kicks\": %llu, "
               "\"waits\": %llu, \"reconnects\": %u}\n",
               (unsigned long long)latency->count, result->seconds, rate, bandwidth, latency_us(latency, 0.5),
               latency_us(latency, 0.99), latency_us(latency, 0.999), (double)latency->max_ns / 1000.0, cpu_s,
               (unsigned long long)result->kicks, (unsigned long long)result->waits, result->reconnects);
        return;
    }
    printf("%llu operations in %.3f s: %.0f IOPS, %.1f MiB/s\n", (unsigned long long)latency->count, result->seconds,
           rate, bandwidth / 1048576.0);
    printf("latency (us): p50 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", latency_us(latency, 0.5),
           latency_us(latency, 0.99), latency_us(latency, 0.999), (double)latency->max_ns / 1000.0);
    printf("%llu kicks, %llu waits, %u reconnects\n", (unsigned long long)result->kicks,
           (unsigned long long)result->waits, result->reconnects);
}

static void end_early(int signal_number)
{
    (void)signal_number;
    load_end();
}

/* The bytes of the disk that are used: --size, at most its capacity. */
static uint64_t size_of(const struct front *front, uint64_t wanted)
{
    uint64_t capacity = front->config.capacity * SECTOR_BYTES;

    return wanted == 0 || wanted > capacity ? capacity : wanted;
}

int main(int argc, char **argv)
{
    struct arguments arguments = parse(argc, argv);
    static struct load_result result;
    static struct front front;
    double before_s;

    signal(SIGTERM, end_early);
    if (!front_init(&front, &arguments.front) || !front_start(&front)) {
        die(&front);
    }
    if (front_has(&front, VIRTIO_BLK_F_RO) && (arguments.load.verify || arguments.load.reads_percent < 100)) {
        fprintf(stderr, "vhost-bench: the disk is read-only\n");
        return 1;
    }
    arguments.load.size_bytes = size_of(&front, arguments.load.size_bytes);
    before_s = cpu_seconds();
    if (!load_run(&front, &arguments.load, &result)) {
        return 1;
    }
    print(&result, cpu_seconds() - before_s, arguments.json);
    if (!front_stop(&front)) {
        die(&front);
    }
    front_close(&front);
    return 0;
}
