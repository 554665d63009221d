/* Whole files: what is read of files of each kind, and that a name has the former or the new file at any moment. */
#include "check.h"
#include "count_names.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "path/whole_file.h"
#include "protocol/records.h"
#include "scratch.h"

#define ROOM 65536u
#define STAT_BYTES ((int64_t)sizeof(struct aiod_stat))
#define ROUNDS 300u

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128];
static char room[ROOM];
static const struct aiod_creation creation = {.mode = 0644, .uid = (uid_t)-1, .gid = (gid_t)-1};

static char *in_base(const char *name)
{
    static char path[4][512];
    static int turn;

    turn = (turn + 1) % 4;
    CHECK(snprintf(path[turn], sizeof(path[0]), "%s/%s", base, name) < (int)sizeof(path[0]));
    return path[turn];
}

static void put(const char *name, const char *text)
{
    int fd = open(in_base(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL && mkdir(in_base("root"), 0755) == 0 && mkdir(in_base("root/dir"), 0755) == 0);
    CHECK(mkdir(in_base("out"), 0755) == 0);
    put("root/file", "12345");
    put("root/empty", "");
    put("out/secret", "secret");
    CHECK(symlink("../out", in_base("root/leaving")) == 0 && symlink("../file", in_base("root/dir/staying")) == 0);
    CHECK(mkfifo(in_base("root/fifo"), 0644) == 0);
    snprintf(root, sizeof(root), "%s/root", base);
}

static int64_t read_in(const char *directory, const char *name, uint64_t length)
{
    char path[4096];

    snprintf(path, sizeof(path), "%s", name);
    return aiod_whole_file_read(&(struct aiod_whole_file){.root = directory, .path = path}, room, length);
}

static int64_t read_file(const char *name)
{
    return read_in(root, name, ROOM);
}

static int64_t write_file(const char *name, const char *text, bool exclusive, bool durable)
{
    char path[4096];
    char data[256];
    struct aiod_whole_file file = {
        .root = root, .path = path, .exclusive = exclusive, .durable = durable, .creation = &creation};

    snprintf(path, sizeof(path), "%s", name);
    snprintf(data, sizeof(data), "%s", text);
    return aiod_whole_file_write(&file, data, strlen(text));
}

static bool has(const char *name, const char *text)
{
    int64_t length = (int64_t)strlen(text);

    return read_file(name) == STAT_BYTES + length && memcmp(room + STAT_BYTES, text, (size_t)length) == 0;
}

static void regular_files_are_read(void)
{
    struct aiod_stat stat;

    CHECK(has("file", "12345") && has("dir/staying", "12345") && has("empty", ""));
    read_file("file");
    memcpy(&stat, room, sizeof(stat));
    CHECK(stat.size == 5 && S_ISREG(stat.mode));
}

static void other_kinds_are_refused(void)
{
    CHECK(read_file("dir") == -EISDIR && read_file("") == -EISDIR && read_file("fifo") == -EINVAL);
    CHECK(read_in("/dev", "null", ROOM) == -EINVAL && read_file("missing") == -ENOENT);
    CHECK(read_file("file/x") == -ENOTDIR);
}

static void paths_stay_beneath_the_root(void)
{
    CHECK(read_file("../out/secret") == -EXDEV && read_file("leaving/secret") == -EXDEV);
    CHECK(read_file("/etc/passwd") == -EXDEV);
    CHECK(write_file("../new", "x", false, false) == -EXDEV && write_file("leaving/new", "x", false, false) == -EXDEV);
    CHECK(write_file("/tmp/new", "x", false, false) == -EXDEV);
    CHECK(count_names(in_base("out")) == 1);
}

static void a_file_larger_than_the_room_leaves_its_stat(void)
{
    struct aiod_stat stat;

    CHECK(read_in(root, "file", (uint64_t)STAT_BYTES + 4) == -EFBIG);
    memcpy(&stat, room, sizeof(stat));
    CHECK(stat.size == 5);
    CHECK(read_in(root, "file", (uint64_t)STAT_BYTES + 5) == STAT_BYTES + 5);
    CHECK(read_in(root, "file", (uint64_t)STAT_BYTES - 1) == -EINVAL);
}

/* Such files say that their size is 0. */
static void files_of_proc_are_read_to_their_end(void)
{
    struct aiod_stat stat;

    CHECK(read_in("/proc", "self/status", ROOM) > STAT_BYTES + 100);
    memcpy(&stat, room, sizeof(stat));
    CHECK(stat.size == 0 && memcmp(room + STAT_BYTES, "Name:", 5) == 0);
    CHECK(read_in("/proc", "self/status", (uint64_t)STAT_BYTES + 20) == -EFBIG);
}

static void stats_are_of_any_kind(void)
{
    struct aiod_whole_file file = {.root = root, .path = in_base("")};
    struct aiod_stat stat;
    char path[16] = "fifo";

    file.path = path;
    CHECK(aiod_whole_file_stat(&file, room, STAT_BYTES) == STAT_BYTES);
    memcpy(&stat, room, sizeof(stat));
    CHECK(S_ISFIFO(stat.mode));
    CHECK(aiod_whole_file_stat(&file, room, STAT_BYTES - 1) == -EINVAL);
    path[0] = '\0';
    CHECK(aiod_whole_file_stat(&file, room, STAT_BYTES) == STAT_BYTES);
    snprintf(path, sizeof(path), "missing");
    CHECK(aiod_whole_file_stat(&file, room, STAT_BYTES) == -ENOENT);
}

/* ---- without blocking -------------------------------------------------------------------------------------------- */

static uint64_t device; /* of the root, if it is local; else 0 */
static bool never;

static int64_t read_nowait(const char *name, uint64_t length, uint64_t bytes_max)
{
    char path[64];
    struct aiod_whole_file file = {.root = root, .path = path, .local_device = device};
    struct aiod_spent spent = {.count = 0};
    int64_t result;

    snprintf(path, sizeof(path), "%s", name);
    result = aiod_whole_file_read_nowait(&file, room, length, bytes_max, &never, &spent);
    aiod_spent_close(&spent);
    return result;
}

static int64_t stat_nowait(const char *directory, const char *name)
{
    char path[64];
    struct aiod_whole_file file = {.root = directory, .path = path, .local_device = device};
    struct aiod_spent spent = {.count = 0};
    int64_t result;

    snprintf(path, sizeof(path), "%s", name);
    result = aiod_whole_file_stat_nowait(&file, room, ROOM, &spent);
    aiod_spent_close(&spent);
    return result;
}

static void find_device(void)
{
    char path[] = "file";
    struct aiod_whole_file file = {.root = root, .path = path};

    CHECK(read_nowait("file", ROOM, ROOM) == -EAGAIN && stat_nowait(root, "file") == -EAGAIN);
    CHECK(aiod_whole_file_stat(&file, room, ROOM) == STAT_BYTES);
    device = file.local_device;
    file.local_device = 0;
    CHECK(aiod_whole_file_read(&file, room, ROOM) == STAT_BYTES + 5 && file.local_device == device);
}

static void cached_files_are_read_without_blocking(void)
{
    char blocking[STAT_BYTES + 5];
    int64_t by_link;

    CHECK(has("file", "12345"));
    memcpy(blocking, room, sizeof(blocking));
    memset(room, 0, sizeof(room));
    if (read_nowait("file", ROOM, ROOM) == -EAGAIN) {
        CHECK(never); /* tmpfs before Linux 6.6 */
        return;
    }
    CHECK(memcmp(blocking, room, sizeof(blocking)) == 0);
    CHECK(read_nowait("empty", ROOM, ROOM) == STAT_BYTES);
    by_link = read_nowait("dir/staying", ROOM, ROOM);
    CHECK(by_link == STAT_BYTES + 5 || by_link == -EAGAIN); /* the link's access time may have to be updated */
    CHECK(read_nowait("file", ROOM, 4) == -EAGAIN);
    memset(room, 0, sizeof(room));
    CHECK(read_nowait("file", sizeof(blocking) - 1, ROOM) == -EFBIG && memcmp(blocking, room, STAT_BYTES) == 0);
}

/* A name that is absent and was looked up: tmpfs remembers none. */
static bool is_known_to_be_absent(const char *path)
{
    int64_t error = stat_nowait(root, path);

    return error == -ENOENT || error == -EAGAIN;
}

static void cached_names_are_examined_without_blocking(void)
{
    char blocking[STAT_BYTES];
    char path[] = "dir";
    struct aiod_whole_file file = {.root = root, .path = path};

    CHECK(aiod_whole_file_stat(&file, blocking, STAT_BYTES) == STAT_BYTES);
    CHECK(stat_nowait(root, "dir") == STAT_BYTES && memcmp(blocking, room, STAT_BYTES) == 0);
    CHECK(stat_nowait(root, "fifo") == STAT_BYTES && stat_nowait(root, "") == STAT_BYTES);
    CHECK(read_file("missing") == -ENOENT && is_known_to_be_absent("missing"));
}

/* A worker does what may block, and what has an error that needs an explanation. */
static void the_rest_is_left_to_a_worker(void)
{
    CHECK(read_nowait("fifo", ROOM, ROOM) == -EAGAIN && read_nowait("dir", ROOM, ROOM) == -EAGAIN);
    CHECK(read_nowait("../out/secret", ROOM, ROOM) == -EAGAIN && stat_nowait(root, "leaving") == -EAGAIN);
    CHECK(stat_nowait("/proc", "self/status") == -EAGAIN && stat_nowait("/dev", "null") == -EAGAIN);
    CHECK(stat_nowait("/nowhere", "file") == -EAGAIN);
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void writes_replace_the_file(void)
{
    unsigned names = count_names(root);

    CHECK(write_file("new", "abc", false, false) == 3 && has("new", "abc"));
    CHECK(write_file("new", "de", false, true) == 2 && has("new", "de"));
    CHECK(write_file("dir/new", "", false, false) == 0 && has("dir/new", ""));
    CHECK(write_file("dir/staying", "own", false, false) == 3 && has("dir/staying", "own") && has("file", "12345"));
    CHECK(count_names(root) == names + 1);
}

static void exclusive_writes_replace_nothing(void)
{
    unsigned names = count_names(root);

    CHECK(write_file("file", "x", true, false) == -EEXIST && has("file", "12345"));
    CHECK(write_file("only", "x", true, true) == 1 && has("only", "x"));
    CHECK(write_file("only", "y", true, false) == -EEXIST && has("only", "x"));
    CHECK(count_names(root) == names + 1);
}

static void names_that_no_file_can_have_are_refused(void)
{
    char name[300];
    unsigned names = count_names(root);

    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    CHECK(write_file(name, "x", false, false) == -ENAMETOOLONG);
    name[255] = '\0';
    CHECK(write_file(name, "x", false, false) == 1 && has(name, "x"));
    CHECK(unlink(in_base("root/dir/new")) == 0 && write_file("with\na line end", "x", false, false) == 1);
    CHECK(write_file("", "x", false, false) < 0 && write_file(".", "x", false, false) < 0);
    CHECK(write_file("..", "x", false, false) < 0 && write_file("dir", "x", false, false) == -EISDIR);
    CHECK(write_file("missing/x", "x", false, false) == -ENOENT);
    CHECK(count_names(root) == names + 2);
}

/* Neither the name nor a temporary file is left. */
static void a_failed_write_leaves_nothing(void)
{
    unsigned names = count_names(root);

    faults.error = ENOSPC;
    CHECK(write_file("failing", "x", false, false) == -ENOSPC);
    faults.error = 0;
    faults.flush_error = EIO;
    CHECK(write_file("failing", "x", false, true) == -EIO);
    faults_reset();
    CHECK(count_names(root) == names && read_file("failing") == -ENOENT);
}

static void *write_in_turns(void *argument)
{
    (void)argument;
    for (unsigned i = 0; i < ROUNDS; i++) {
        CHECK(write_file("turns", i % 2 == 0 ? "odd" : "even", false, false) > 0);
    }
    return NULL;
}

static void a_reader_sees_one_file_or_the_other(void)
{
    pthread_t writer;
    bool ended = false;

    CHECK(write_file("turns", "even", false, false) == 4);
    CHECK(pthread_create(&writer, NULL, write_in_turns, NULL) == 0);
    while (!ended) {
        ended = pthread_tryjoin_np(writer, NULL) == 0;
        int64_t length = read_file("turns") - STAT_BYTES;

        CHECK((length == 3 && memcmp(room + STAT_BYTES, "odd", 3) == 0) ||
              (length == 4 && memcmp(room + STAT_BYTES, "even", 4) == 0));
    }
}

int main(void)
{
    faults_install();
    create_files();
    regular_files_are_read();
    other_kinds_are_refused();
    paths_stay_beneath_the_root();
    a_file_larger_than_the_room_leaves_its_stat();
    files_of_proc_are_read_to_their_end();
    stats_are_of_any_kind();
    find_device();
    if (device != 0) {
        cached_files_are_read_without_blocking();
        cached_names_are_examined_without_blocking();
        the_rest_is_left_to_a_worker();
    }
    writes_replace_the_file();
    exclusive_writes_replace_nothing();
    names_that_no_file_can_have_are_refused();
    a_failed_write_leaves_nothing();
    a_reader_sees_one_file_or_the_other();
    scratch_remove_tree(base);
    return 0;
}
