/*
 * A client that scribbles over its ring while the engine uses it, for AIOD_FUZZ_SECONDS (3), beside one that behaves.
 *
 * The engine must survive (under the sanitizers), end the sessions that break a rule, answer the other client rightly all
 * the time, and get everything back.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define ENTRIES 16u
#define AREA_BYTES (64u << 10)
#define FILE_BYTES (1u << 20)

static const char *path;
static uint64_t end_ns;
static char contents[FILE_BYTES];

struct attached {
    int socket;
    int doorbell;
    char *base;
    size_t bytes;
    struct aiod_ring_header *header;
    struct aiod_ring_sqe *sqes;
    uint32_t handle;
};

/* xorshift64*: each thread its own row. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

/* ---- the hostile client ------------------------------------------------------------------------------------------------ */

static void receive_fds(struct attached *ring)
{
    struct aiod_ring_attached answer;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    int fds[2];

    CHECK(recvmsg(ring->socket, &message, 0) == sizeof(answer));
    memcpy(fds, CMSG_DATA(&control.header), sizeof(fds));
    ring->doorbell = fds[1];
    ring->bytes = answer.memory_bytes;
    ring->base = mmap(NULL, ring->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    CHECK(ring->base != MAP_FAILED);
    /* What is sealed stays. */
    CHECK(ftruncate(fds[0], 4096) < 0 && ftruncate(fds[0], 1 << 30) < 0 &&
          fcntl(fds[0], F_ADD_SEALS, F_SEAL_WRITE) < 0);
    close(fds[0]);
}

static void attach(struct attached *ring)
{
    struct aiod_ring_attach attach = {
        .type = AIOD_RING_ATTACH, .version = AIOD_RING_VERSION, .entries = ENTRIES, .area_bytes = AREA_BYTES};
    struct {
        struct aiod_ring_open open;
        char path[6];
    } open = {.open = {.type = AIOD_RING_OPEN, .flags = AIOD_OPEN_READ | AIOD_OPEN_WRITE},
              .path = {'x', '/', 'p', 'r', 'e', 'y'}};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct aiod_ring_reply reply;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ring->socket = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    CHECK(connect(ring->socket, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(send(ring->socket, &attach, sizeof(attach), 0) == sizeof(attach));
    receive_fds(ring);
    ring->header = (struct aiod_ring_header *)(void *)ring->base;
    ring->sqes = (struct aiod_ring_sqe *)(void *)(ring->base + ring->header->sq_offset);
    CHECK(send(ring->socket, &open, sizeof(open.open) + sizeof(open.path), 0) > 0);
    CHECK(recv(ring->socket, &reply, sizeof(reply), 0) == sizeof(reply) && reply.result > 0);
    ring->handle = (uint32_t)reply.result;
}

static void detach(struct attached *ring)
{
    close(ring->socket);
    close(ring->doorbell);
    munmap(ring->base, ring->bytes);
}

/* Entries that are nearly right get furthest. */
static struct aiod_ring_sqe strange_entry(const struct attached *ring, uint64_t *state)
{
    static const uint16_t ops[] = {1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255, 77};
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

    return entry;
}

/* Word by word: the scribbler writes there too. */
static void put_entry(const struct attached *ring, uint32_t tail, uint64_t *state)
{
    struct aiod_ring_sqe entry = strange_entry(ring, state);
    uint64_t *to = (uint64_t *)(void *)&ring->sqes[tail % ENTRIES];
    uint64_t words[sizeof(entry) / sizeof(uint64_t)];

    memcpy(words, &entry, sizeof(entry));
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        __atomic_store_n(&to[i], words[i], __ATOMIC_RELAXED);
    }
}

/* Another thread of the same client: it writes where it may not, at any moment. */
static void *scribble(void *argument)
{
    const struct attached *ring = argument;
    uint64_t state = (uintptr_t)ring->base | 1;
    uint64_t *words = (uint64_t *)(void *)ring->base;
    /* ThreadSanitizer would see two writers of a completion, which is what we are here for. */
#ifdef __SANITIZE_THREAD__
    size_t queues = ring->header->cq_offset / sizeof(uint64_t);
#else
    size_t queues = ring->header->area_offset / sizeof(uint64_t);
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

static bool ended(const struct attached *ring)
{
    char byte;
    ssize_t got = recv(ring->socket, &byte, 1, MSG_DONTWAIT);

    return got == 0 || (got < 0 && errno != EAGAIN);
}

/* One session, until the engine ends it or it has done its worst. */
static void attack(uint64_t *state)
{
    struct attached ring;
    pthread_t scribbler;
    uint64_t one = 1;
    uint32_t tail = 0;
    bool scribbles = (next_random(state) & 1) != 0;

    attach(&ring);
    if (scribbles) {
        CHECK(pthread_create(&scribbler, NULL, scribble, &ring) == 0);
    }
    for (unsigned i = 0; i < 500 && !ended(&ring); i++) {
        uint64_t dice = next_random(state);

        put_entry(&ring, tail, state);
        tail += (dice & 255) == 0 ? (uint32_t)next_random(state) : 1;
        if ((dice >> 8 & 63) != 0) { /* take its completions, mostly */
            __atomic_store_n(&ring.header->cq_head, __atomic_load_n(&ring.header->cq_tail, __ATOMIC_ACQUIRE),
                             __ATOMIC_RELEASE);
        }
        __atomic_store_n(&ring.header->client_waits, (uint32_t)(dice >> 16 & 3), __ATOMIC_RELAXED);
        __atomic_store_n(&ring.header->sq_tail, tail, __ATOMIC_SEQ_CST);
        CHECK(write(ring.doorbell, &one, sizeof(one)) == sizeof(one));
    }
    if (scribbles) {
        pthread_join(scribbler, NULL);
    }
    detach(&ring);
}

static void *attack_on(void *argument)
{
    uint64_t state = (uintptr_t)argument;

    while (aiod_now_ns() < end_ns) {
        attack(&state);
    }
    return NULL;
}

/* ---- the other client -------------------------------------------------------------------------------------------------- */

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
    path = engine_start(
        &(struct engine_config){.inline_read_max = 16384, .poll_max_ns = 50000, .max_threads = 4, .handles_max = 16});
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
    close(file);
    close(prey);
    return 0;
}
