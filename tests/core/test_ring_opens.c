/* Files that a ring opens and closes by itself, and what the main loop has to do with them. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define AREA_BYTES 65536u
#define DATA_AT 4096u
#define LENT 8u
#define CYCLES 3000u

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static const char *socket_path;

struct opener {
    struct raw_ring ring;
    uint32_t names;
};

static void create_file(const char *name, const char *text)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", base, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void begin(struct opener *opener)
{
    raw_attach(&opener->ring, socket_path, 16, AREA_BYTES, "open");
    opener->names = raw_open_names(&opener->ring);
}

static char *area_of(const struct opener *opener)
{
    return opener->ring.base + opener->ring.header->area_offset;
}

static int64_t try_to_open(struct opener *opener, const char *path, struct aiod_ring_opened *opened)
{
    struct aiod_ring_sqe entry = {.op = AIOD_RING_OPEN_FILE,
                                  .handle = opener->names,
                                  .source = (uint32_t)strlen(path),
                                  .length = sizeof(*opened)};
    struct aiod_ring_cqe end;

    memcpy(area_of(opener), path, strlen(path));
    end = raw_carry_out(&opener->ring, entry);
    CHECK(end.result != -EAGAIN || end.reason == AIOD_RING_LIMIT);
    if (end.result >= 0) {
        CHECK(end.result == sizeof(*opened));
        memcpy(opened, area_of(opener), sizeof(*opened));
    }
    return end.result;
}

/* A number is free, or will be when the main loop has collected. */
static struct aiod_ring_opened open_file(struct opener *opener)
{
    struct aiod_ring_opened opened;
    int64_t result;

    do {
        result = try_to_open(opener, "file", &opened);
    } while (result == -EAGAIN);
    CHECK(result > 0);
    return opened;
}

static int64_t close_file(struct opener *opener, uint64_t handle)
{
    return raw_carry_out(&opener->ring, (struct aiod_ring_sqe){.op = AIOD_RING_CLOSE_FILE, .handle = (uint32_t)handle})
        .result;
}

static int64_t read_5(struct opener *opener, uint64_t handle)
{
    return raw_carry_out(
               &opener->ring,
               (struct aiod_ring_sqe){.op = AIOD_RING_READ, .handle = (uint32_t)handle, .length = 5, .buffer = DATA_AT})
        .result;
}

static void check_closed(struct opener *opener, uint64_t handle)
{
    CHECK(read_5(opener, handle) == -EBADF && close_file(opener, handle) == -EBADF);
}

/* There are fewer numbers than cycles, and each is used again with another generation. */
static void files_are_opened_read_and_closed(struct opener *opener)
{
    struct stat status;
    char path[256];
    unsigned closed = 0;
    uint64_t generation = open_file(opener).generation; /* found by a worker, as those of messages */

    snprintf(path, sizeof(path), "%s/file", base);
    CHECK(stat(path, &status) == 0 && generation != 0);
    while (closed < CYCLES) {
        struct aiod_ring_opened opened = open_file(opener);

        CHECK(opened.size == 5 && opened.device == status.st_dev && opened.inode == status.st_ino);
        CHECK(opened.generation == generation);
        CHECK(read_5(opener, opened.handle) == 5 && memcmp(area_of(opener) + DATA_AT, "12345", 5) == 0);
        CHECK(close_file(opener, opened.handle) == 0);
        check_closed(opener, opened.handle);
        closed++;
    }
}

static void handles_of_one_file_are_closed_in_any_order(struct opener *opener)
{
    for (unsigned round = 0; round < 3; round++) {
        struct aiod_ring_opened opened[3];

        for (unsigned i = 0; i < 3; i++) {
            opened[i] = open_file(opener);
        }
        for (unsigned i = 0; i < 3; i++) {
            uint64_t handle = opened[(i + round) % 3].handle;

            CHECK(read_5(opener, handle) == 5);
            CHECK(close_file(opener, handle) == 0);
        }
    }
}

static void what_cannot_be_opened_is_refused(struct opener *opener)
{
    struct aiod_ring_sqe short_room = {.op = AIOD_RING_OPEN_FILE, .handle = opener->names, .source = 4, .length = 79};
    struct aiod_ring_sqe no_names = {
        .op = AIOD_RING_OPEN_FILE, .handle = opener->ring.handle, .source = 4, .length = 80};
    struct aiod_ring_opened opened;

    CHECK(try_to_open(opener, "missing", &opened) == -ENOENT && try_to_open(opener, "", &opened) == -EISDIR);
    CHECK(try_to_open(opener, "fifo", &opened) == -EINVAL && try_to_open(opener, "../x", &opened) == -EACCES);
    CHECK(try_to_open(opener, "\xff", &opened) == -EINVAL);
    CHECK(raw_carry_out(&opener->ring, short_room).result == -EINVAL &&
          raw_carry_out(&opener->ring, no_names).result == -EBADF);
    CHECK(close_file(opener, opener->names) == -EBADF && close_file(opener, 12345) == -EBADF);
}

static void open_until_collected(struct opener *opener, struct aiod_ring_opened *opened, unsigned count)
{
    unsigned before = engine_collected();

    for (unsigned i = 0; i < count; i++) {
        opened[i] = open_file(opener);
    }
    while (engine_collected() < before + count) {
        CHECK(read_5(opener, opened[0].handle) == 5);
    }
}

/* The main loop closes what it knows, and the ring refuses what only a message closes. */
static void files_that_stay_open_are_collected(struct opener *opener)
{
    struct aiod_ring_opened opened[LENT + 1];

    CHECK(close_file(opener, opener->ring.handle) == -EAGAIN);
    open_until_collected(opener, opened, LENT + 1); /* the last one needs a number that was lent meanwhile */
    for (unsigned i = 0; i <= LENT; i++) {
        CHECK(read_5(opener, opened[i].handle) == 5 && close_file(opener, opened[i].handle) == 0);
        check_closed(opener, opened[i].handle);
    }
}

static int64_t receive_result(const struct opener *opener)
{
    struct aiod_ring_reply reply;

    CHECK(recv(opener->ring.socket, &reply, sizeof(reply), 0) == sizeof(reply) && reply.type == AIOD_RING_REPLY);
    return reply.result;
}

/* Asked for twice by the ring and once by a message, all at once: each is answered, and one of them has closed the file. */
static void a_file_is_closed_once(struct opener *opener)
{
    for (unsigned round = 0; round < 20; round++) {
        const struct raw_ring *raw = &opener->ring;
        struct aiod_ring_opened opened;
        uint32_t tail;
        struct aiod_ring_close message = {.type = AIOD_RING_CLOSE, .cookie = round};
        unsigned closed = 0;

        open_until_collected(opener, &opened, 1);
        tail = raw->header->sq_tail;
        message.handle = (uint32_t)opened.handle;
        for (unsigned i = 0; i < 2; i++) {
            raw_put(raw, tail + i,
                    &(struct aiod_ring_sqe){
                        .op = AIOD_RING_CLOSE_FILE, .handle = (uint32_t)opened.handle, .cookie = tail + i});
        }
        if (round % 2 == 0) {
            CHECK(send(raw->socket, &message, sizeof(message), 0) == sizeof(message));
        }
        raw_submit(raw, tail + 2);
        raw_ring_doorbell(raw);
        if (round % 2 == 1) {
            CHECK(send(raw->socket, &message, sizeof(message), 0) == sizeof(message));
        }
        raw_wait_completed(raw, tail + 2);
        for (unsigned i = 0; i < 2; i++) {
            int64_t result = raw->cqes[(tail + i) % raw->entries].result;

            CHECK(result == 0 || result == -EBADF);
            closed += result == 0;
        }
        __atomic_store_n(&raw->header->cq_head, tail + 2, __ATOMIC_RELEASE);
        closed += receive_result(opener) == 0;
        CHECK(closed == 1);
    }
}

/* The client leaves while the main loop closes a file for it. */
static void a_client_leaves_as_a_file_is_closed(void)
{
    for (unsigned round = 0; round < 10; round++) {
        struct opener opener;
        struct aiod_ring_opened opened;
        uint32_t tail;

        begin(&opener);
        open_until_collected(&opener, &opened, 1);
        tail = opener.ring.header->sq_tail;
        raw_put(&opener.ring, tail,
                &(struct aiod_ring_sqe){.op = AIOD_RING_CLOSE_FILE, .handle = (uint32_t)opened.handle});
        raw_submit(&opener.ring, tail + 1);
        raw_ring_doorbell(&opener.ring);
        raw_detach(&opener.ring);
    }
}

static void *open_and_close(void *unused)
{
    struct opener opener;

    begin(&opener);
    files_are_opened_read_and_closed(&opener);
    raw_detach(&opener.ring);
    return unused;
}

/* Handles of one file, which all sessions share, come and go in several threads. */
static void several_clients_at_once(void)
{
    pthread_t threads[2];

    for (unsigned i = 0; i < 2; i++) {
        CHECK(pthread_create(&threads[i], NULL, open_and_close, NULL) == 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

int main(void)
{
    struct engine_config config = {.inline_read_max = 65536,
                                   .poll_max_ns = 50000,
                                   .max_threads = 2,
                                   .handles_max = 64,
                                   .root = base,
                                   .lent = LENT};
    struct opener opener;
    char fifo[256];
    int file;

    faults_install();
    CHECK(mkdtemp(base) != NULL);
    create_file("file", "12345");
    snprintf(fifo, sizeof(fifo), "%s/fifo", base);
    CHECK(mkfifo(fifo, 0600) == 0);
    file = scratch_file(O_RDWR);
    socket_path = engine_start(&config);
    engine_add_file("open", file);
    begin(&opener);
    files_are_opened_read_and_closed(&opener);
    handles_of_one_file_are_closed_in_any_order(&opener);
    what_cannot_be_opened_is_refused(&opener);
    files_that_stay_open_are_collected(&opener);
    a_file_is_closed_once(&opener);
    a_client_leaves_as_a_file_is_closed();
    several_clients_at_once();
    open_file(&opener);
    raw_detach(&opener.ring); /* with files open, of which the main loop does not know one */
    engine_wait_empty();
    engine_stop();
    close(file);
    scratch_remove_tree(base);
    return 0;
}
