/*
 * A hostile client writes to its ring and punches holes in it while the engine uses it, for AIOD_FUZZ_SECONDS (3),
 * beside a well-behaved client. It rewrites paths while the engine copies them.
 *
 * The engine must survive (under the sanitizers), end the sessions that break a rule, answer the other client correctly
 * all the time, and release everything. Nothing beside the export's directory changes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "aiod.h"
#include "check.h"
#include "count_names.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define ENTRIES 16u
#define AREA_BYTES (64u << 10)
#define FILE_BYTES (1u << 20)

static const char *path;
static uint64_t end_ns;
static char contents[FILE_BYTES];

/* xorshift64*, with a state per thread. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* ---- the hostile client ------------------------------------------------------------------------------------------ */

/* Paths of these lengths lie there all the time, and change all the time. */
static const char *const paths[] = {
    "a", "../secret", "out/secret", "/etc/passwd", "fifo", "sock", "b", ".", "..", "a/b", "\xff\xfe", "",
};
#define PATHS (sizeof(paths) / sizeof(paths[0]))
#define PATHS_AT 8192u

static void make_strange_path(struct aiod_ring_sqe *entry, uint32_t names, uint64_t dice)
{
    static const uint32_t lengths[] = {1, 1, 9, 9, 10, 11, 4, 0, 4095, 4096, UINT32_MAX};

    entry->source = lengths[dice % (sizeof(lengths) / sizeof(lengths[0]))];
    entry->source_offset = 0;
    entry->offset = 0;
    entry->reserved = 0;
    entry->handle = (dice & 7) != 0 ? names : entry->handle;
    entry->buffer = (dice & 3) != 0 ? PATHS_AT : entry->buffer;
    entry->length = (dice & 8) != 0 ? 4096 : entry->length;
    entry->flags &= entry->op == 17 ? 8u : 0u; /* durable ones would be slow */
}

/* A record of any verb, with any lengths, before bytes that are paths in part. The other thread rewrites it. */
static void make_strange_name(char *area, struct aiod_ring_sqe *entry, uint32_t names, uint64_t dice)
{
    static const uint32_t lengths[] = {0, 1, 1, 4, 9, 10, 4095, 4096, UINT32_MAX};
    const unsigned count = sizeof(lengths) / sizeof(lengths[0]);
    struct aiod_ring_name name = {
        .verb = (uint16_t)(dice % (AIOD_RING_RMTREE + 2)),
        .flags = (uint16_t)(dice >> 8 & 7 & dice >> 11),
        .mode = (dice >> 14 & 3) == 0 ? UINT32_MAX : 0755,
        .path_bytes = lengths[(dice >> 16) % count],
        .to_bytes = lengths[(dice >> 24) % count],
        .value_bytes = (dice >> 32 & 3) == 0 ? lengths[(dice >> 34) % count] : 0,
        .cursor = (dice >> 40 & 1) == 0 ? 0 : INT64_MIN,
    };

    entry->buffer = (dice >> 41 & 3) != 0 ? PATHS_AT - sizeof(name) : entry->buffer;
    entry->source = (uint32_t)sizeof(name) + name.path_bytes + name.to_bytes + name.value_bytes;
    entry->source_offset = entry->offset = entry->reserved = entry->flags = 0;
    entry->length = (dice >> 43 & 3) != 0 ? 40960 : entry->length;
    entry->handle = (dice >> 45 & 7) != 0 ? names : entry->handle;
    memcpy(area + PATHS_AT - sizeof(name), &name, sizeof(name));
}

static void make_strange_open(char *area, struct aiod_ring_sqe *entry, uint32_t names, uint64_t dice)
{
    const struct aiod_ring_open_file wanted = {
        .flags = (uint32_t)((dice & 127) | ((dice >> 7 & 7) != 0 ? AIOD_OPEN_WRITE : 0)),
        .mode = (dice >> 10 & 7) == 0 ? UINT32_MAX : 0600,
    };

    make_strange_path(entry, names, dice >> 16);
    entry->source += (dice >> 40 & 7) != 0 ? (uint32_t)sizeof(wanted) : 0;
    entry->flags = 0;
    if ((dice >> 43 & 3) != 0) {
        entry->buffer = PATHS_AT - sizeof(wanted);
        memcpy(area + PATHS_AT - sizeof(wanted), &wanted, sizeof(wanted));
    }
}

/* Entries that are almost valid get furthest. */
static struct aiod_ring_sqe strange_entry(const struct raw_ring *ring, char *area, uint32_t names, uint64_t *state)
{
    static const uint16_t ops[] = {1,  1,  1,  2,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,  13,
                                   14, 15, 16, 17, 15, 16, 17, 18, 18, 19, 19, 20, 20, 21, 255, 77};
    static const uint64_t numbers[] = {
        0, 1, 511, 4096, 65536, AREA_BYTES, AREA_BYTES - 4096, INT64_MAX, UINT64_MAX, UINT32_MAX, 1u << 20, 12345};
    uint64_t dice = next_random(state);
    struct aiod_ring_sqe entry = {
        .cookie = dice & 15,
        .op = ops[(dice >> 8) % (sizeof(ops) / sizeof(ops[0]))],
        .flags = (uint16_t)(dice >> 16 & 7 & (dice >> 19)),
        .handle = (dice >> 24 & 15) == 0 ? (uint32_t)next_random(state) : ring->handle,
        .offset = numbers[(dice >> 28) % (sizeof(numbers) / sizeof(numbers[0]))],
        .length = numbers[(dice >> 33) % (sizeof(numbers) / sizeof(numbers[0]))],
        .buffer = numbers[(dice >> 38) % (sizeof(numbers) / sizeof(numbers[0]))],
        .source = (dice >> 43 & 7) == 0 ? ring->handle : 0,
        .source_offset = (dice >> 46 & 7) == 0 ? next_random(state) : 0,
        .deadline_ms = (dice >> 49 & 3) == 0 ? 1 : 0,
        .reserved = (dice >> 52 & 15) == 0,
    };

    if (entry.op == AIOD_RING_OPEN_WRITABLE) {
        make_strange_open(area, &entry, names, next_random(state));
    } else if (entry.op == AIOD_RING_NAME) {
        make_strange_name(area, &entry, names, next_random(state));
    } else if (entry.op >= 15 && entry.op <= 18) {
        make_strange_path(&entry, names, dice >> 56);
    }
    if (dice >> 60 == 0 && entry.op != 18 &&
        entry.op != AIOD_RING_OPEN_WRITABLE) { /* a file that the ring may have opened */
        entry.handle = (uint32_t)(dice >> 20 & 0xf) << 16 | (uint32_t)(dice >> 12 & 0xf);
    }
    return entry;
}

/* Another thread of the same client, which writes to forbidden places at any moment. */
static void *scribble(void *argument)
{
    const struct raw_ring *ring = argument;
    uint64_t state = (uintptr_t)ring->base | 1;
    uint64_t *words = (uint64_t *)(void *)ring->base;
    /* ThreadSanitizer would report two writers of a completion, which this test causes on purpose. */
#ifdef __SANITIZE_THREAD__
    size_t queues = (size_t)((char *)ring->cqes - ring->base) / sizeof(uint64_t);
#else
    size_t queues = (size_t)((char *)(ring->cqes + ring->entries) - ring->base) / sizeof(uint64_t);
#endif

    for (unsigned i = 0; i < 2000; i++) {
        uint64_t dice = next_random(&state);
        size_t at = (dice >> 8) % queues;

        if (at * sizeof(uint64_t) != offsetof(struct aiod_ring_header, sq_tail)) {
            __atomic_store_n(&words[at], (dice & 1) != 0 ? next_random(&state) : dice & 255, __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

struct rewriting {
    char *area;
    atomic_bool stop;
};

static void *rewrite_paths(void *argument)
{
    struct rewriting *rewriting = argument;
    char *to = rewriting->area + PATHS_AT;

    for (unsigned i = 0; !atomic_load(&rewriting->stop); i++) {
        const char *from = paths[i % PATHS];

        for (size_t at = 0; at <= strlen(from); at++) {
            __atomic_store_n(&to[at], from[at], __ATOMIC_RELAXED);
        }
    }
    return NULL;
}

/*
 * Punch a hole anywhere: in memory that the engine reads or writes, and in buffers. The next access creates a page of
 * zeroes.
 */
static void punch(const struct raw_ring *ring, uint64_t dice)
{
    off_t page = (off_t)(dice % (ring->bytes / 4096)) * 4096;

    CHECK(fallocate(ring->memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, 4096) == 0);
}

/* Check that the sealed size cannot be changed. */
static void check_seals(int memory)
{
    CHECK(ftruncate(memory, 4096) < 0 && ftruncate(memory, 1 << 30) < 0 &&
          fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE) < 0);
}

/* One session, until the engine ends it or it has tried everything. */
static void attack(uint64_t *state)
{
    struct raw_ring ring;
    pthread_t scribbler;
    pthread_t rewriter;
    struct rewriting rewriting = {.stop = false};
    uint32_t names;
    uint32_t tail = 0;
    bool scribbles = (next_random(state) & 1) != 0;
    bool punches = (next_random(state) & 1) != 0;

    raw_attach(&ring, path, ENTRIES, AREA_BYTES, "prey");
    check_seals(ring.memory);
    names = raw_open_names(&ring);
    rewriting.area = ring.base + ring.header->area_offset;
    CHECK(pthread_create(&rewriter, NULL, rewrite_paths, &rewriting) == 0);
    if (scribbles) {
        CHECK(pthread_create(&scribbler, NULL, scribble, &ring) == 0);
    }
    for (unsigned i = 0; i < 500 && !raw_has_ended(&ring); i++) {
        uint64_t dice = next_random(state);
        struct aiod_ring_sqe entry = strange_entry(&ring, rewriting.area, names, state);

        raw_put(&ring, tail, &entry);
        tail += (dice & 255) == 0 ? (uint32_t)next_random(state) : 1;
        if ((dice >> 8 & 63) != 0) { /* usually take its completions */
            __atomic_store_n(&ring.header->cq_head, __atomic_load_n(&ring.header->cq_tail, __ATOMIC_ACQUIRE),
                             __ATOMIC_RELEASE);
        }
        __atomic_store_n(&ring.header->client_waits, (uint32_t)(dice >> 16 & 3), __ATOMIC_RELAXED);
        raw_submit(&ring, tail);
        if (punches && (dice >> 20 & 7) == 0) {
            punch(&ring, dice >> 24);
        }
        raw_ring_doorbell(&ring);
    }
    if (scribbles) {
        pthread_join(scribbler, NULL);
    }
    atomic_store(&rewriting.stop, true);
    pthread_join(rewriter, NULL);
    raw_detach(&ring);
}

static void *attack_on(void *argument)
{
    uint64_t state = (uintptr_t)argument;

    while (aiod_now_ns() < end_ns) {
        attack(&state);
    }
    return NULL;
}

/* ---- the well-behaved client ------------------------------------------------------------------------------------- */

static uint64_t behave(void)
{
    struct aiod_client *client;
    char data[4096];
    uint64_t count = 0;
    int64_t handle;

    CHECK(aiod_attach(&client, path, NULL) == 0);
    handle = aiod_open(client, "x/file", AIOD_OPEN_READ, 0);
    CHECK(handle > 0);
    while (aiod_now_ns() < end_ns) {
        uint64_t at = count * 4099 % (FILE_BYTES - sizeof(data));

        CHECK(aiod_pread(client, (uint32_t)handle, data, sizeof(data), at, AIOD_NO_TIMEOUT) == sizeof(data));
        CHECK(memcmp(data, contents + at, sizeof(data)) == 0);
        count++;
    }
    aiod_disconnect(client);
    return count;
}

/* ---- the export ---------------------------------------------------------------------------------------------------- */

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";

static char *in_base(const char *name)
{
    static char full[2][256];
    static int turn;

    turn = !turn;
    CHECK(snprintf(full[turn], sizeof(full[0]), "%s/%s", base, name) < (int)sizeof(full[0]));
    return full[turn];
}

static const char *make_export(void)
{
    static char root[256];
    int fd;

    CHECK(mkdtemp(base) != NULL && mkdir(in_base("root"), 0755) == 0 && mkdir(in_base("beside"), 0755) == 0);
    CHECK(symlink("../beside", in_base("root/out")) == 0 && mkfifo(in_base("root/fifo"), 0644) == 0);
    CHECK(mknod(in_base("root/sock"), S_IFSOCK | 0644, 0) == 0);
    fd = open(in_base("secret"), O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
    snprintf(root, sizeof(root), "%s/root", base);
    return root;
}

static void check_nothing_outside(void)
{
    struct stat status;

    CHECK(stat(in_base("secret"), &status) == 0 && status.st_size == 5);
    CHECK(count_names(base) == 3 && count_names(in_base("beside")) == 0);
}

int main(void)
{
    const char *seconds = getenv("AIOD_FUZZ_SECONDS");
    const char *seed = getenv("AIOD_FUZZ_SEED");
    uintptr_t first = seed != NULL ? strtoul(seed, NULL, 10) : (uintptr_t)getpid() * 2 + 1;
    pthread_t attackers[2];
    uint64_t count;
    int file;
    int prey;

    faults_install();
    printf("AIOD_FUZZ_SEED=%lu\n", (unsigned long)first);
    path = engine_start(&(struct engine_config){.inline_read_max = 16384,
                                                .poll_max_ns = 50000,
                                                .max_threads = 4,
                                                .handles_max = 16,
                                                .root = make_export(),
                                                .lent = 8});
    file = scratch_file(O_RDWR);
    prey = scratch_file(O_RDWR);
    for (size_t i = 0; i < FILE_BYTES; i++) {
        contents[i] = pattern(i);
    }
    CHECK(pwrite(file, contents, FILE_BYTES, 0) == FILE_BYTES && ftruncate(prey, FILE_BYTES) == 0);
    engine_add_file("file", file);
    engine_add_file("prey", prey);
    end_ns = aiod_now_ns() + strtoul(seconds != NULL ? seconds : "3", NULL, 10) * UINT64_C(1000000000);
    for (uintptr_t i = 0; i < 2; i++) {
        CHECK(pthread_create(&attackers[i], NULL, attack_on, (void *)(first + i * 1000003)) == 0);
    }
    count = behave();
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(attackers[i], NULL);
    }
    engine_wait_empty();
    printf("%lu reads beside it, %u sessions ended\n", (unsigned long)count, engine_broken());
    CHECK(count > 0 && engine_broken() > 0);
    engine_stop();
    check_nothing_outside();
    scratch_remove_tree(base);
    close(file);
    close(prey);
    return 0;
}
