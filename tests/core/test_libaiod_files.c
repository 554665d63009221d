/* aiod_open() and aiod_close() by the ring, with a message where the ring cannot do it. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

#define LENT 8u
#define THREADS 4u
#define CYCLES 300u
#define RDWR (AIOD_OPEN_READ | AIOD_OPEN_WRITE)

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static struct aiod_client *client;
static int known; /* the only file that the engine opens by message, as "x/known" */

static int create_file(const char *name)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", base, name);
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    CHECK(fd >= 0 && write(fd, name, strlen(name)) == (ssize_t)strlen(name));
    return fd;
}

static void remove_file(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", base, name);
    CHECK(unlink(path) == 0);
}

static void begin(const struct aiod_options *options, unsigned max_threads)
{
    struct engine_config config = {.inline_read_max = 65536,
                                   .poll_max_ns = 50000,
                                   .max_threads = max_threads,
                                   .handles_max = 64,
                                   .root = base,
                                   .lent = LENT};

    faults_reset();
    CHECK(aiod_attach(&client, engine_start(&config), options) == 0);
    known = create_file("known");
    engine_add_file("known", known);
    CHECK(close(create_file("file")) == 0);
}

static void end(void)
{
    aiod_disconnect(client);
    engine_stop();
    close(known);
    remove_file("known");
    remove_file("file");
}

static uint32_t open_handle(const char *path, unsigned flags)
{
    int64_t handle = aiod_open(client, path, flags, 0644);

    CHECK(handle > 0);
    return (uint32_t)handle;
}

static void check_contents(uint32_t handle, const char *wanted)
{
    char data[64];

    CHECK(aiod_pread(client, handle, data, sizeof(data), 0, AIOD_NO_TIMEOUT) == (int64_t)strlen(wanted));
    CHECK(memcmp(data, wanted, strlen(wanted)) == 0);
}

/* The first file of an export is opened by message, the others by the ring. */
static void open_first(void)
{
    uint32_t handle = open_handle("x/known", AIOD_OPEN_READ);

    check_contents(handle, "known");
    CHECK(aiod_close(client, handle) == 0);
}

static void test_files(const struct aiod_options *options)
{
    begin(options, 4);
    CHECK(aiod_open(client, "x/file", AIOD_OPEN_READ, 0) == -ENOENT); /* by message */
    for (unsigned i = 0; i < 10 * LENT; i++) {
        uint32_t handle = open_handle("x/file", i % 2 == 0 ? AIOD_OPEN_READ : RDWR);

        check_contents(handle, "file");
        CHECK(aiod_close(client, handle) == 0);
        CHECK(aiod_close(client, handle) == -EBADF);
        CHECK(aiod_pread(client, handle, NULL, 0, 0, AIOD_NO_TIMEOUT) == -EBADF);
    }
    end();
}

static void test_refusals(void)
{
    uint32_t handle;

    begin(NULL, 4);
    open_first();
    CHECK(aiod_open(client, "x/missing", AIOD_OPEN_READ, 0) == -ENOENT);
    CHECK(strstr(aiod_error(), "open x/missing: ") != NULL);
    CHECK(aiod_open(client, "x/file", RDWR | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE, 0644) == -EEXIST);
    CHECK(strstr(aiod_error(), "open x/file: ") != NULL);
    CHECK(aiod_open(client, "x/\xff", AIOD_OPEN_READ, 0) == -ENOENT); /* not UTF-8: by message */
    handle = open_handle("x/file", AIOD_OPEN_READ);
    CHECK(aiod_close(client, handle) == 0);
    handle = open_handle("x/new", RDWR | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE);
    CHECK(aiod_pwrite(client, handle, "new", 3, 0, AIOD_NO_TIMEOUT) == 3);
    check_contents(handle, "new");
    CHECK(aiod_close(client, handle) == 0);
    remove_file("new");
    end();
}

/* More files than the ring has numbers for: the rest goes by message. */
static void test_many_files(const struct aiod_options *options)
{
    uint32_t handles[3 * LENT];

    begin(options, 4);
    open_first();
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 3 * LENT; i++) {
            handles[i] = open_handle("x/known", AIOD_OPEN_READ);
            for (unsigned j = 0; j < i; j++) {
                CHECK(handles[i] != handles[j]);
            }
        }
        for (unsigned i = 0; i < 3 * LENT; i++) {
            check_contents(handles[i], "known");
            CHECK(aiod_close(client, handles[i]) == 0);
        }
    }
    end();
}

/* The caller's handle for names is the library's, too: a session may have one only. */
static void test_handles_for_names(const struct aiod_options *options)
{
    struct aiod_ring_stat stat;
    uint32_t names;

    begin(options, 4);
    open_first();
    CHECK(aiod_close(client, open_handle("x/file", AIOD_OPEN_READ)) == 0); /* the library has one now */
    for (unsigned i = 0; i < 3; i++) {
        names = open_handle("x", AIOD_OPEN_NAMES);
        CHECK(aiod_stat_name(client, names, "file", &stat, AIOD_NO_TIMEOUT) == 0 && stat.size == 4);
        CHECK(aiod_close(client, open_handle("x/file", AIOD_OPEN_READ)) == 0);
        CHECK(aiod_close(client, names) == 0);
        CHECK(aiod_stat_name(client, names, "file", &stat, AIOD_NO_TIMEOUT) == -EBADF);
        CHECK(aiod_close(client, open_handle("x/file", AIOD_OPEN_READ)) == 0); /* by another one */
    }
    end();
}

/* The caller has the whole buffer area: files are opened by message. */
static void test_without_room(void)
{
    void *area;

    begin(&(struct aiod_options){.area_bytes = 65536}, 4);
    open_first();
    area = aiod_alloc(client, 65536);
    CHECK(area != NULL && aiod_open(client, "x/file", AIOD_OPEN_READ, 0) == -ENOENT);
    CHECK(aiod_close(client, open_handle("x/known", AIOD_OPEN_READ)) == 0);
    aiod_free(client, area);
    CHECK(aiod_close(client, open_handle("x/file", AIOD_OPEN_READ)) == 0);
    end();
}

/* A file that is opened after its caller has given up is closed: engine_stop() finds nothing that is left open. */
static void test_late_open(const struct aiod_options *options)
{
    struct gate gate;

    begin(options, 1);
    open_first();
    CHECK(aiod_close(client, open_handle("x/file", AIOD_OPEN_READ)) == 0);
    gate_init(&gate, false);
    engine_block_worker(&gate);
    CHECK(aiod_open(client, "x/late", RDWR | AIOD_OPEN_CREATE, 0644) == -ETIMEDOUT);
    gate_open(&gate);
    check_contents(open_handle("x/file", AIOD_OPEN_READ), "file");
    remove_file("late");
    end();
}

static void *open_and_close(void *path)
{
    for (unsigned i = 0; i < CYCLES; i++) {
        uint32_t handle = open_handle(path, i % 3 == 0 ? RDWR : AIOD_OPEN_READ);

        check_contents(handle, "known");
        CHECK(aiod_close(client, handle) == 0);
    }
    return NULL;
}

static void test_threads(const struct aiod_options *options)
{
    pthread_t threads[THREADS];

    begin(options, 4);
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, open_and_close, "x/known") == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    end();
}

int main(void)
{
    const struct aiod_options continues = {.reconnect_timeout_ms = 30000};

    CHECK(mkdtemp(base) != NULL);
    test_files(NULL);
    test_files(&continues);
    test_refusals();
    test_many_files(NULL);
    test_many_files(&continues);
    test_handles_for_names(NULL);
    test_handles_for_names(&continues);
    test_without_room();
    test_late_open(&(struct aiod_options){.call_timeout_ms = 300});
    test_late_open(&(struct aiod_options){.call_timeout_ms = 300, .reconnect_timeout_ms = 30000});
    test_threads(NULL);
    test_threads(&continues);
    CHECK(rmdir(base) == 0);
    return 0;
}
