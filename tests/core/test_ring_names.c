/* NAME by ring: what each verb does and answers, and what is refused of its record. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "check.h"
#include "raw_ring.h"
#include "ring_engine.h"
#include "scratch.h"

#define AREA_BYTES (512u << 10)
#define REFUSED AIOD_RING_RMDIR

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128];
static struct raw_ring ring;
static uint32_t names;

static char *area(void)
{
    return ring.base + ring.header->area_offset;
}

static struct aiod_ring_cqe submit(struct aiod_ring_sqe entry)
{
    return raw_carry_out(&ring, entry);
}

/* The record, and the texts behind it, whose lengths it gets. */
static uint32_t put(struct aiod_ring_name name, const char *path, const char *to, const char *value)
{
    name.path_bytes = (uint32_t)strlen(path);
    name.to_bytes = (uint32_t)strlen(to);
    name.value_bytes = (uint32_t)strlen(value);
    memcpy(area(), &name, sizeof(name));
    memcpy(area() + sizeof(name), path, name.path_bytes);
    memcpy(area() + sizeof(name) + name.path_bytes, to, name.to_bytes);
    memcpy(area() + sizeof(name) + name.path_bytes + name.to_bytes, value, name.value_bytes);
    return (uint32_t)sizeof(name) + name.path_bytes + name.to_bytes + name.value_bytes;
}

static struct aiod_ring_cqe ask(struct aiod_ring_name name, const char *path, const char *to, const char *value)
{
    uint32_t source = put(name, path, to, value);

    return submit((struct aiod_ring_sqe){
        .op = AIOD_RING_NAME, .handle = names, .source = source, .length = AIOD_RING_PAGE_BYTES_MAX});
}

static int64_t verb(enum aiod_ring_verb which, const char *path)
{
    return ask((struct aiod_ring_name){.verb = (uint16_t)which, .mode = which == AIOD_RING_MKDIR ? 0755 : 0}, path, "",
               "")
        .result;
}

static int64_t verb_to(enum aiod_ring_verb which, const char *path, const char *to, unsigned flags)
{
    return ask((struct aiod_ring_name){.verb = (uint16_t)which, .flags = (uint16_t)flags}, path, to, "").result;
}

static bool exists(const char *name)
{
    char path[256];
    struct stat status;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    return lstat(path, &status) == 0;
}

static void create_file(const char *name)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
}

static void names_are_made_moved_and_removed(void)
{
    CHECK(verb(AIOD_RING_MKDIR, "dir") == 0 && exists("dir"));
    CHECK(verb(AIOD_RING_MKDIR, "dir") == -EEXIST);
    create_file("dir/one");
    create_file("dir/two");
    CHECK(verb_to(AIOD_RING_RENAME, "dir/one", "dir/two", 0) == -EEXIST);
    CHECK(verb_to(AIOD_RING_RENAME, "dir/one", "dir/two", AIOD_RING_REPLACE) == 0 && !exists("dir/one"));
    CHECK(verb_to(AIOD_RING_LINK, "dir/two", "dir/three", 0) == 0 && exists("dir/three"));
    CHECK(verb(AIOD_RING_SYNC, "dir") == 0);
    CHECK(verb(AIOD_RING_REMOVE, "dir/two") == 0 && !exists("dir/two"));
    CHECK(verb(AIOD_RING_REMOVE, "dir") == -EISDIR);
    CHECK(verb(AIOD_RING_RMTREE, "dir") == 0 && !exists("dir"));
}

static void queries_answer(void)
{
    struct aiod_ring_stat stat;

    create_file("file");
    CHECK(verb_to(AIOD_RING_SYMLINK, "link", "file", 0) == 0);
    CHECK(verb(AIOD_RING_STAT_PATH, "link") == sizeof(stat));
    memcpy(&stat, area(), sizeof(stat));
    CHECK(stat.size == 5 && S_ISREG(stat.mode));
    CHECK(verb(AIOD_RING_LSTAT, "link") == sizeof(stat));
    memcpy(&stat, area(), sizeof(stat));
    CHECK(S_ISLNK(stat.mode));
    CHECK(verb(AIOD_RING_READLINK, "link") == 4 && memcmp(area(), "file", 4) == 0);
    CHECK(verb(AIOD_RING_READLINK, "file") == -EINVAL);
    CHECK(verb(AIOD_RING_LSTAT, "missing") == -ENOENT);
}

static void attributes_are_set(void)
{
    struct aiod_ring_stat stat;
    struct aiod_ring_cqe end;

    CHECK(ask((struct aiod_ring_name){.verb = AIOD_RING_CHMOD, .mode = 0600}, "file", "", "").result == 0);
    CHECK(
        ask((struct aiod_ring_name){.verb = AIOD_RING_UTIME, .access_ns = -1, .change_ns = 5000000000}, "file", "", "")
            .result == 0);
    CHECK(verb(AIOD_RING_STAT_PATH, "file") == sizeof(stat));
    memcpy(&stat, area(), sizeof(stat));
    CHECK((stat.mode & 0777) == 0600 && stat.atime_ns == -1 && stat.mtime_ns == 5000000000);
    CHECK(ask((struct aiod_ring_name){.verb = AIOD_RING_UTIME, .flags = AIOD_RING_NOW}, "file", "", "").result == 0);
    end = ask((struct aiod_ring_name){.verb = AIOD_RING_SETXATTR, .xattr_flags = XATTR_CREATE}, "file", "user.a",
              "value");
    if (end.result == -EOPNOTSUPP) {
        return; /* a file system without attributes */
    }
    CHECK(end.result == 0);
    CHECK(verb_to(AIOD_RING_GETXATTR, "file", "user.a", 0) == 5 && memcmp(area(), "value", 5) == 0);
    CHECK(verb(AIOD_RING_LISTXATTR, "file") == 7 && memcmp(area(), "user.a", 7) == 0);
    CHECK(verb_to(AIOD_RING_REMOVEXATTR, "file", "user.a", 0) == 0);
    CHECK(verb_to(AIOD_RING_GETXATTR, "file", "user.a", 0) == -ENODATA);
}

/* The page at the beginning of the area; the number of its entries. */
static uint32_t check_page(int64_t bytes, struct aiod_ring_page *page)
{
    uint32_t zeroes = 0;
    const char *listed;

    CHECK(bytes >= (int64_t)sizeof(*page));
    memcpy(page, area(), sizeof(*page));
    CHECK((uint64_t)bytes == sizeof(*page) + page->entries * sizeof(struct aiod_ring_stat) + page->name_bytes);
    listed = area() + bytes - page->name_bytes;
    for (uint32_t i = 0; i < page->name_bytes; i++) {
        zeroes += listed[i] == '\0';
    }
    CHECK(zeroes == page->entries);
    return page->entries;
}

static void a_directory_is_listed_in_pages(void)
{
    struct aiod_ring_page page = {.more = 1};
    uint32_t listed = 0;
    unsigned pages = 0;
    char name[32];

    CHECK(verb(AIOD_RING_MKDIR, "many") == 0);
    for (unsigned i = 0; i < 700; i++) {
        snprintf(name, sizeof(name), "many/%u", i);
        create_file(name);
    }
    while (page.more != 0) {
        struct aiod_ring_cqe end =
            ask((struct aiod_ring_name){.verb = AIOD_RING_LIST, .cursor = page.next}, "many", "", "");

        listed += check_page(end.result, &page);
        pages++;
    }
    CHECK(listed == 700 && pages >= 2);
    CHECK(verb(AIOD_RING_RMTREE, "many") == 1 && verb(AIOD_RING_RMTREE, "many") == 0 && !exists("many"));
}

static void paths_stay_within_the_root(void)
{
    struct aiod_ring_cqe end = ask((struct aiod_ring_name){.verb = AIOD_RING_REMOVE}, "../outside", "", "");

    CHECK(end.result == -EACCES && end.reason == AIOD_RING_OUTSIDE);
    end = ask((struct aiod_ring_name){.verb = AIOD_RING_RENAME}, "file", "../outside/file", "");
    CHECK(end.result == -EACCES && end.reason == AIOD_RING_OUTSIDE && exists("file"));
    CHECK(verb(AIOD_RING_LIST, "/") == -EACCES);
}

static void a_verb_that_the_export_does_not_allow_is_refused(void)
{
    struct aiod_ring_cqe end = ask((struct aiod_ring_name){.verb = REFUSED}, "file", "", "");

    CHECK(end.result == -EPERM && end.reason == AIOD_RING_NOT_ALLOWED);
}

static void check_refused(struct aiod_ring_cqe end)
{
    CHECK(end.result == -EINVAL && end.reason == AIOD_RING_BAD_ENTRY && exists("file"));
}

static void wrong_records_are_refused(void)
{
    static const struct aiod_ring_name wrong[] = {
        {.verb = AIOD_RING_RMTREE + 1},
        {.verb = UINT16_MAX},
        {.verb = AIOD_RING_REMOVE, .flags = AIOD_RING_REPLACE},
        {.verb = AIOD_RING_REMOVE, .flags = AIOD_RING_NOW},
        {.verb = AIOD_RING_REMOVE, .flags = AIOD_RING_NO_FOLLOW},
        {.verb = AIOD_RING_CHMOD, .mode = 01000},
        {.verb = AIOD_RING_REMOVE, .xattr_flags = 3},
    };
    static char long_path[4097];

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        check_refused(ask(wrong[i], "file", "", ""));
    }
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_REMOVE}, "file", "to", ""));
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_REMOVE}, "file", "", "value"));
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_REMOVE}, "\xff", "", ""));
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_RENAME}, "file", "\xff", ""));
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_GETXATTR}, "file", "trusted.a", ""));
    memset(long_path, 'p', sizeof(long_path) - 1);
    check_refused(ask((struct aiod_ring_name){.verb = AIOD_RING_REMOVE}, long_path, "", ""));
    long_path[4095] = '\0';
    CHECK(verb(AIOD_RING_REMOVE, long_path) == -ENAMETOOLONG);
    long_path[256] = '\0';
    CHECK(verb(AIOD_RING_MKDIR, long_path) == -ENAMETOOLONG);
}

static void wrong_entries_are_refused(void)
{
    uint32_t right = put((struct aiod_ring_name){.verb = AIOD_RING_LSTAT}, "file", "", "");
    const struct aiod_ring_sqe wrong[] = {
        {.source = right, .length = sizeof(struct aiod_ring_stat) - 1},
        {.source = right - 1, .length = 80},
        {.source = right + 1, .length = 80},
        {.source = sizeof(struct aiod_ring_name) - 1, .length = 80},
        {.source = 0, .length = 80},
        {.source = UINT32_MAX, .length = 80},
        {.source = right, .length = UINT64_MAX},
        {.source = right, .length = 80, .buffer = AREA_BYTES - 60},
        {.source = right, .length = 80, .source_offset = 1},
        {.source = right, .length = 80, .offset = 1},
        {.source = right, .length = 80, .flags = 1},
        {.source = right, .length = 80, .reserved = 1},
    };

    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct aiod_ring_sqe entry = wrong[i];

        entry.op = AIOD_RING_NAME;
        entry.handle = names;
        check_refused(submit(entry));
    }
    CHECK(submit((struct aiod_ring_sqe){.op = AIOD_RING_NAME, .handle = names, .source = right, .length = 80}).result ==
          sizeof(struct aiod_ring_stat));
    CHECK(submit((struct aiod_ring_sqe){.op = AIOD_RING_NAME, .handle = names + 1, .source = right, .length = 80})
              .result == -EBADF);
}

int main(void)
{
    struct engine_config config = {.inline_read_max = 65536,
                                   .poll_max_ns = 50000,
                                   .max_threads = 2,
                                   .handles_max = 16,
                                   .root = root,
                                   .verbs_refused = 1u << REFUSED};
    const char *socket_path;
    int file;

    CHECK(mkdtemp(base) != NULL);
    snprintf(root, sizeof(root), "%s/root", base);
    CHECK(mkdir(root, 0755) == 0);
    file = scratch_file(O_RDWR);
    socket_path = engine_start(&config);
    engine_add_file("open", file);
    raw_attach(&ring, socket_path, 16, AREA_BYTES, "open");
    names = raw_open_names(&ring);
    names_are_made_moved_and_removed();
    queries_answer();
    attributes_are_set();
    a_directory_is_listed_in_pages();
    paths_stay_within_the_root();
    a_verb_that_the_export_does_not_allow_is_refused();
    wrong_records_are_refused();
    wrong_entries_are_refused();
    raw_detach(&ring);
    engine_wait_empty();
    engine_stop();
    close(file);
    scratch_remove_tree(base);
    return 0;
}
