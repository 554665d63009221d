/* libaiod's blocking calls on paths, and what the engine refuses of an entry with a path. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "aiod.h"
#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define AREA_BYTES 65536u
#define INLINE_MAX 65536u
#define TRIES 64

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128];
static const char *socket_path;
static struct aiod_client *client;
static uint32_t names;
static char data[4 * INLINE_MAX];
static struct aiod_ring_stat stat_of;

static void create_file(const char *name, const char *content, size_t bytes)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && write(fd, content, bytes) == (ssize_t)bytes && close(fd) == 0);
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL);
    snprintf(root, sizeof(root), "%s/root", base);
    CHECK(mkdir(root, 0755) == 0);
    create_file("file", "12345", 5);
    create_file("large", data, 2 * INLINE_MAX);
    create_file("too large", data, 2 * INLINE_MAX + 1);
}

static int64_t read_file(const char *path, uint64_t length)
{
    return aiod_read_file(client, names, path, data, length, &stat_of, AIOD_NO_TIMEOUT);
}

static int64_t write_file(const char *path, const char *text, unsigned flags)
{
    return aiod_write_file(client, names, path, text, strlen(text), flags, AIOD_NO_TIMEOUT);
}

static void files_are_read_and_written(void)
{
    /* the first reads are a worker's, the others are done at once */
    for (unsigned i = 0; i < 5; i++) {
        CHECK(read_file("file", sizeof(data)) == 5 && memcmp(data, "12345", 5) == 0 && stat_of.size == 5);
        CHECK(aiod_stat_name(client, names, "file", &stat_of, AIOD_NO_TIMEOUT) == 0 && stat_of.size == 5);
    }
    CHECK(write_file("new", "abc", 0) == 3 && write_file("new", "de", AIOD_RING_FUA) == 2);
    CHECK(read_file("new", sizeof(data)) == 2 && memcmp(data, "de", 2) == 0);
    CHECK(write_file("new", "", 0) == 0 && read_file("new", 0) == 0);
}

/* Is it tried without a worker? The kernel may have forgotten the name, but not each time. */
static bool is_read_at_once(const char *path, int64_t bytes)
{
    unsigned before = faults.nowait_reads;

    for (int i = 0; i < TRIES && faults.nowait_reads == before; i++) {
        CHECK(read_file(path, sizeof(data)) == bytes);
    }
    return faults.nowait_reads != before;
}

static void larger_files_are_left_to_a_worker(void)
{
    bool local = is_read_at_once("file", 5);

    CHECK(is_read_at_once("large", 2 * INLINE_MAX) == local);
    CHECK(!is_read_at_once("too large", 2 * INLINE_MAX + 1));
}

static bool root_is_open(void)
{
    DIR *descriptors = opendir("/proc/self/fd");
    bool open = false;
    char target[256];

    CHECK(descriptors != NULL);
    for (struct dirent *each = readdir(descriptors); each != NULL; each = readdir(descriptors)) {
        ssize_t length = readlinkat(dirfd(descriptors), each->d_name, target, sizeof(target));

        open = open || (length == (ssize_t)strlen(root) && memcmp(target, root, (size_t)length) == 0);
    }
    closedir(descriptors);
    return open;
}

/* Else nobody could unmount it. */
static void an_idle_engine_keeps_no_root_open(void)
{
    for (int i = 0; i < TRIES; i++) {
        CHECK(aiod_stat_name(client, names, "file", &stat_of, AIOD_NO_TIMEOUT) == 0);
    }
    for (unsigned ms = 0; root_is_open(); ms++) {
        CHECK(ms < WAIT_MS);
        usleep(1000);
    }
}

static void errors_are_those_of_the_files(void)
{
    stat_of.size = 0;
    CHECK(read_file("file", 4) == -EFBIG && stat_of.size == 5);
    CHECK(read_file("missing", 4) == -ENOENT && strstr(aiod_error(), "read missing") != NULL);
    CHECK(read_file("../root/file", 100) == -EACCES && read_file("", 100) == -EISDIR);
    CHECK(write_file("file", "x", AIOD_RING_EXCLUSIVE) == -EEXIST && write_file("missing/x", "x", 0) == -ENOENT);
    CHECK(aiod_stat_name(client, names, "missing", NULL, AIOD_NO_TIMEOUT) == -ENOENT);
    CHECK(aiod_read_file(client, names + 1, "file", data, 100, NULL, AIOD_NO_TIMEOUT) == -EBADF);
    CHECK(read_file("\xff", 100) == -EINVAL);
}

static void what_is_too_long_is_refused(void)
{
    static char path[5000];

    memset(path, 'p', sizeof(path) - 1);
    CHECK(read_file(path, 100) == -EMSGSIZE && write_file(path, "x", 0) == -EMSGSIZE);
    CHECK(read_file("file", UINT32_MAX) == -EMSGSIZE);
    path[4095] = '\0';
    CHECK(read_file(path, 100) == -ENAMETOOLONG);
}

static void entries_out_of_the_area_are_refused(void)
{
    static const struct {
        struct aiod_ring_sqe entry;
        int64_t result;
    } cases[] = {
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 80}, 80},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 79}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 80, .buffer = AREA_BYTES - 79}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 80, .buffer = UINT64_MAX}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = UINT64_C(1) << 40}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4096, .length = 80}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = UINT32_MAX, .length = 80}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .source_offset = 1, .length = 80}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .offset = 1, .length = 80}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 80, .flags = 1}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 4, .length = 80, .reserved = 1}, -EINVAL},
        {{.op = AIOD_RING_STAT_NAME, .source = 5, .length = 80}, -EINVAL}, /* the byte after the name is 0 */
        {{.op = AIOD_RING_READ_FILE, .source = 4, .length = 85}, 85},
        {{.op = AIOD_RING_READ_FILE, .source = 4, .length = 84}, -EFBIG},
        {{.op = AIOD_RING_READ_FILE, .source = 4, .length = UINT64_C(1) << 40}, -EMSGSIZE},
        {{.op = AIOD_RING_READ_FILE, .source = 4, .length = AREA_BYTES + 1}, -EINVAL},
        {{.op = AIOD_RING_WRITE_FILE, .source = 4, .length = AREA_BYTES - 3}, -EINVAL},
        {{.op = AIOD_RING_WRITE_FILE, .source = 4, .length = 3, .buffer = AREA_BYTES - 6}, -EINVAL},
        {{.op = AIOD_RING_READ, .length = 10}, -EBADF},
        {{.op = AIOD_RING_FLUSH}, -EBADF},
    };
    struct raw_ring ring;
    uint32_t handle;

    raw_attach(&ring, socket_path, 16, AREA_BYTES, "open");
    handle = raw_open_names(&ring);
    for (uint32_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct aiod_ring_sqe entry = cases[i].entry;

        memcpy(ring.base + ring.header->area_offset, "file", 5);
        entry.handle = handle;
        CHECK(raw_carry_out(&ring, entry).result == cases[i].result);
    }
    raw_detach(&ring);
}

int main(void)
{
    struct engine_config config = {
        .inline_read_max = INLINE_MAX, .poll_max_ns = 50000, .max_threads = 2, .handles_max = 16, .root = root};
    int file;
    int64_t opened;

    faults_install();
    create_files();
    file = scratch_file(O_RDWR);
    socket_path = engine_start(&config);
    engine_add_file("open", file);
    CHECK(aiod_attach(&client, socket_path, NULL) == 0);
    opened = aiod_open(client, "x/", AIOD_OPEN_NAMES, 0);
    CHECK(opened > 0);
    names = (uint32_t)opened;
    files_are_read_and_written();
    larger_files_are_left_to_a_worker();
    an_idle_engine_keeps_no_root_open();
    errors_are_those_of_the_files();
    what_is_too_long_is_refused();
    CHECK(aiod_close(client, names) == 0 && read_file("file", 100) == -EBADF);
    entries_out_of_the_area_are_refused();
    aiod_disconnect(client);
    engine_wait_empty();
    engine_stop();
    close(file);
    scratch_remove_tree(base);
    return 0;
}
