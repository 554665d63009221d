/* Directory operations work beneath an export's root and nowhere else; a listing contains each name once. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "path/directory_ops.h"

#define SWAPS rounds(200)
#define MANY 5000u
#define NAME_BYTES_MAX 255u

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128];

static char *in_base(const char *name)
{
    static char path[4][512];
    static int turn;

    turn = (turn + 1) % 4;
    CHECK(snprintf(path[turn], sizeof(path[0]), "%s/%s", base, name) < (int)sizeof(path[0]));
    return path[turn];
}

static void put(const char *name)
{
    int fd = open(in_base(name), O_WRONLY | O_CREAT | O_EXCL, 0644);

    CHECK(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
}

static bool is_there(const char *name)
{
    struct stat status;

    return lstat(in_base(name), &status) == 0;
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL);
    CHECK(mkdir(in_base("root"), 0755) == 0 && mkdir(in_base("root/dir"), 0755) == 0);
    CHECK(mkdir(in_base("out"), 0755) == 0 && mkdir(in_base("out/dir"), 0755) == 0);
    put("root/file");
    put("out/secret");
    CHECK(symlink("../out", in_base("root/leaving")) == 0);
    CHECK(symlink(in_base("out"), in_base("root/absolute")) == 0);
    CHECK(symlink("../file", in_base("root/dir/staying")) == 0);
    CHECK(symlink("loop", in_base("root/loop")) == 0);
    snprintf(root, sizeof(root), "%s/root", base);
}

/* ---- one call each ----------------------------------------------------------------------------------------------- */

/* The last operation, with its results. */
static struct aiod_directory_op *last;

static int run(struct aiod_directory_op *directory_op)
{
    int error;

    CHECK(directory_op != NULL);
    aiod_directory_op_destroy(last);
    last = directory_op;
    error = aiod_directory_op_run(directory_op);
    CHECK(!directory_op->outside || error == -EXDEV);
    return error;
}

static int try_at(const char *where, enum aiod_verb verb, const char *path)
{
    struct aiod_directory_op *directory_op = aiod_directory_op_create(verb, where, path, "");

    directory_op->mode = 0750;
    return run(directory_op);
}

static int
try
    (enum aiod_verb verb, const char *path)
    {
        return try_at(root, verb, path);
    }

static int try_rename(const char *path, const char *to, bool replace)
{
    struct aiod_directory_op *directory_op = aiod_directory_op_create(AIOD_VERB_RENAME, root, path, to);

    directory_op->replace = replace;
    return run(directory_op);
}

/* Did it fail because the path leaves the root? */
static bool leaves(int error)
{
    return error == -EXDEV && last->outside;
}

/* ---- changes of names -------------------------------------------------------------------------------------------- */

static void mkdir_remove_and_rmdir_work(void)
{
    struct stat status;
    mode_t mask = umask(022);

    CHECK(try (AIOD_VERB_MKDIR, "made") == 0);
    CHECK(stat(in_base("root/made"), &status) == 0 && status.st_mode == (S_IFDIR | 0750));
    umask(mask);
    CHECK(try (AIOD_VERB_MKDIR, "made") == -EEXIST);
    CHECK(try (AIOD_VERB_MKDIR, "made/below") == 0);
    CHECK(try (AIOD_VERB_MKDIR, "absent/below") == -ENOENT);
    CHECK(try (AIOD_VERB_MKDIR, "file/below") == -ENOTDIR);
    CHECK(try (AIOD_VERB_RMDIR, "made") == -ENOTEMPTY);
    CHECK(try (AIOD_VERB_REMOVE, "made") == -EISDIR);
    CHECK(try (AIOD_VERB_RMDIR, "made//below") == 0);
    CHECK(try (AIOD_VERB_RMDIR, "made") == 0 && !is_there("root/made"));
    CHECK(try (AIOD_VERB_RMDIR, "made") == -ENOENT);
    CHECK(try (AIOD_VERB_RMDIR, "file") == -ENOTDIR);
    CHECK(try (AIOD_VERB_REMOVE, "absent") == -ENOENT);
    put("root/dir/gone");
    CHECK(try (AIOD_VERB_REMOVE, "dir/gone") == 0 && !is_there("root/dir/gone"));
}

/* A link itself is removed, not its target; also a dangling link, or one that leads out of the root. */
static void remove_removes_the_link_itself(void)
{
    CHECK(symlink("../out/secret", in_base("root/link")) == 0);
    CHECK(try (AIOD_VERB_REMOVE, "link") == 0 && !is_there("root/link") && is_there("out/secret"));
    CHECK(symlink("../file", in_base("root/dir/link")) == 0);
    CHECK(try (AIOD_VERB_REMOVE, "dir/link/") == -ENOTDIR);
    CHECK(try (AIOD_VERB_REMOVE, "dir/link") == 0 && is_there("root/file"));
    CHECK(try (AIOD_VERB_RMDIR, "leaving") == -ENOTDIR && try (AIOD_VERB_RMDIR, "leaving/") == -ENOTDIR);
    CHECK(is_there("out/dir"));
    CHECK(try (AIOD_VERB_MKDIR, "loop") == -EEXIST);
}

static void rename_replaces_only_if_allowed(void)
{
    put("root/one");
    put("root/other");
    CHECK(try_rename("one", "other", false) == -EEXIST && is_there("root/one"));
    CHECK(try_rename("one", "other", true) == 0 && !is_there("root/one") && is_there("root/other"));
    CHECK(try_rename("other", "dir/moved", false) == 0 && is_there("root/dir/moved"));
    CHECK(try_rename("absent", "new", false) == -ENOENT);
    CHECK(try_rename("dir/moved", "absent/new", true) == -ENOENT);
    CHECK(try_rename("file", "dir", true) == -EISDIR && try_rename("dir", "file", true) == -ENOTDIR);
    CHECK(try_rename("dir", "dir/moved", true) == -EINVAL && try_rename("dir/moved", "dir", true) == -ENOTEMPTY);
    CHECK(try (AIOD_VERB_REMOVE, "dir/moved") == 0);
    CHECK(try_rename("loop", "loop2", false) == 0 && try_rename("loop2", "loop", false) == 0);
}

static void directories_can_be_renamed(void)
{
    CHECK(mkdir(in_base("root/from"), 0755) == 0 && mkdir(in_base("root/from/in"), 0755) == 0);
    CHECK(try_rename("from/", "to/", false) == 0 && is_there("root/to/in"));
    CHECK(try_rename("to", "to/in/deeper", false) == -EINVAL);
    CHECK(try_rename("to", "to/in/deeper", true) == -EINVAL);
    CHECK(try_rename("dir/staying", "to", true) == -EISDIR);
    CHECK(try (AIOD_VERB_MKDIR, "empty") == 0);
    CHECK(try_rename("to", "empty", true) == 0 && is_there("root/empty/in"));
    CHECK(try (AIOD_VERB_RMDIR, "empty/in/") == 0 && try (AIOD_VERB_RMDIR, "empty/") == 0);
}

static int without_noreplace(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    if (flags != 0) {
        errno = EINVAL;
        return -1;
    }
    return renameat2(from_fd, from, to_fd, to, 0);
}

/*
 * As on NFS: an existing target must not be replaced, and a directory moved into itself must be told from that error.
 */
static void rename_without_noreplace_is_refused(void)
{
    struct aiod_os os = *aiod_os;

    os.renameat2 = without_noreplace;
    aiod_os = &os;
    put("root/one");
    CHECK(try_rename("one", "new", false) == -EOPNOTSUPP && !is_there("root/new"));
    CHECK(try_rename("one", "dir/new", false) == -EOPNOTSUPP);
    CHECK(try_rename("dir", "dir/new", false) == -EINVAL);
    CHECK(try_rename("one", "new", true) == 0);
    CHECK(try (AIOD_VERB_REMOVE, "new") == 0);
    aiod_os = &aiod_os_real;
}

static void rename_across_file_systems_fails(void)
{
    struct aiod_directory_op *directory_op =
        aiod_directory_op_create(AIOD_VERB_RENAME, "/", "proc/self/stat", "aiod-core-test");

    CHECK(run(directory_op) == -EXDEV && !directory_op->outside);
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

static void stat_fills_the_record(void)
{
    struct stat status;

    CHECK(try (AIOD_VERB_STAT, "file") == 0 && stat(in_base("root/file"), &status) == 0);
    CHECK(last->stat.size == 5 && last->stat.inode == status.st_ino && last->stat.device == status.st_dev);
    CHECK(last->stat.mode == status.st_mode && last->stat.links == 1 && last->stat.block_size == 1);
    CHECK(last->stat.allocated == (uint64_t)status.st_blocks * 512);
    CHECK(last->stat.mtime_ns == status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec);
    CHECK(try (AIOD_VERB_STAT, "dir/staying") == 0 && last->stat.inode == status.st_ino);
    CHECK(try (AIOD_VERB_STAT, "") == 0 && stat(root, &status) == 0 && last->stat.inode == status.st_ino);
    CHECK(try (AIOD_VERB_STAT, "absent") == -ENOENT);
    CHECK(try (AIOD_VERB_STAT, "file/") == -ENOTDIR);
    CHECK(try (AIOD_VERB_STAT, "loop") == -ELOOP);
    CHECK(leaves(try (AIOD_VERB_STAT, "leaving")));
}

static _Atomic int syncs;
static int sync_errors[2];

static int counted_fsync(int fd)
{
    errno = sync_errors[syncs++ % 2];
    return errno != 0 ? -1 : fsync(fd);
}

static void sync_reaches_the_directory(void)
{
    struct aiod_os os = *aiod_os;

    os.fsync = counted_fsync;
    aiod_os = &os;
    CHECK(try (AIOD_VERB_SYNC, "") == 0 && try (AIOD_VERB_SYNC, "dir") == 0 && syncs == 2);
    CHECK(try (AIOD_VERB_SYNC, "file") == -ENOTDIR && try (AIOD_VERB_SYNC, "absent") == -ENOENT && syncs == 2);
    sync_errors[0] = EINTR;
    CHECK(try (AIOD_VERB_SYNC, "dir") == 0 && syncs == 4);
    sync_errors[0] = EIO;
    CHECK(try (AIOD_VERB_SYNC, "dir") == -EIO && syncs == 5);
    aiod_os = &aiod_os_real;
}

/* ---- confinement ------------------------------------------------------------------------------------------------- */

static void paths_out_of_the_root_are_refused(void)
{
    static const char *const paths[] = {
        "../out/dir", "dir/../../out/dir", "leaving/dir", "dir/../leaving/dir", "absolute/dir", "/etc", "/", "//",
        "/dir"};
    static const enum aiod_verb verbs[] = {AIOD_VERB_LIST,  AIOD_VERB_STAT,  AIOD_VERB_REMOVE,
                                           AIOD_VERB_RMDIR, AIOD_VERB_MKDIR, AIOD_VERB_SYNC};

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        for (size_t v = 0; v < sizeof(verbs) / sizeof(*verbs); v++) {
            CHECK(leaves(try (verbs[v], paths[i])));
        }
        CHECK(leaves(try_rename("file", paths[i], true)));
        CHECK(leaves(try_rename(paths[i], "taken", false)));
    }
    CHECK(leaves(try (AIOD_VERB_REMOVE, "leaving/secret")) && leaves(try (AIOD_VERB_MKDIR, "leaving/made")));
    CHECK(is_there("out/dir") && is_there("out/secret") && is_there("root/file") && !is_there("out/made"));
    CHECK(try_at("/proc/self", AIOD_VERB_LIST, "cwd") == -ELOOP);
    CHECK(try_at("/proc/self", AIOD_VERB_MKDIR, "cwd/made") == -ELOOP);
}

static void the_root_itself_cannot_be_changed(void)
{
    static const char *const paths[] = {"", ".", "./", "dir/.."};

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        int removed =
        try
            (AIOD_VERB_RMDIR, paths[i]);

        CHECK(removed == -EINVAL || removed == -ENOTEMPTY);
        CHECK(try (AIOD_VERB_REMOVE, paths[i]) == -EISDIR);
        CHECK(try (AIOD_VERB_MKDIR, paths[i]) == -EEXIST);
        CHECK(try_rename(paths[i], "new", false) == -EBUSY);
        CHECK(try_rename("file", paths[i], true) == -EBUSY && try_rename("file", paths[i], false) == -EEXIST);
    }
    CHECK(try (AIOD_VERB_RMDIR, "..") == -ENOTEMPTY && try (AIOD_VERB_MKDIR, "..") == -EEXIST);
    CHECK(leaves(try (AIOD_VERB_LIST, "..")) && leaves(try (AIOD_VERB_STAT, "..")));
    CHECK(is_there("root/file") && !is_there("root/new"));
}

static void a_root_that_is_a_file_is_refused(void)
{
    CHECK(try_at(in_base("root/file"), AIOD_VERB_STAT, "") == -ENOTDIR);
    CHECK(try_at(in_base("root/file"), AIOD_VERB_REMOVE, "x") == -ENOTDIR);
    CHECK(try_at("/dev/null", AIOD_VERB_LIST, "") == -ENOTDIR);
    CHECK(try_at(in_base("gone"), AIOD_VERB_LIST, "") == -ENOENT);
}

static _Atomic bool swapping;

/* Another process exchanges a directory with a link that leads out of the root, over and over. */
static void *swap(void *unused)
{
    (void)unused;
    while (swapping) {
        CHECK(renameat2(AT_FDCWD, in_base("root/swapped"), AT_FDCWD, in_base("root/trap"), RENAME_EXCHANGE) == 0);
    }
    return NULL;
}

/* The operation meets the directory or is refused; it never acts behind the link. */
static void a_directory_replaced_by_a_link_stays_confined(void)
{
    pthread_t swapper;
    unsigned inside = 0;
    unsigned refused = 0;

    CHECK(mkdir(in_base("root/swapped"), 0755) == 0 && symlink("../out", in_base("root/trap")) == 0);
    swapping = true;
    CHECK(pthread_create(&swapper, NULL, swap, NULL) == 0);
    while (inside < SWAPS || refused < SWAPS) {
        int error =
        try
            (AIOD_VERB_MKDIR, "swapped/made");

        CHECK(error == 0 || leaves(error) || error == -EEXIST);
        inside += error == 0;
        refused += error == -EXDEV;
        error =
        try
            (AIOD_VERB_RMDIR, "swapped/made");
        CHECK(error == 0 || leaves(error) || error == -ENOENT);
        error = try_rename("file", "swapped/secret", true);
        CHECK(error == 0 || leaves(error));
        if (error == 0) {
            while ((error = try_rename("swapped/secret", "file", true)) != 0) {
                CHECK(leaves(error));
            }
        }
        error =
        try
            (AIOD_VERB_REMOVE, "swapped/secret");
        CHECK(error == -ENOENT || leaves(error));
    }
    swapping = false;
    CHECK(pthread_join(swapper, NULL) == 0);
    CHECK(!is_there("out/made") && is_there("out/secret") && is_there("root/file"));
    rmdir(in_base("root/swapped/made")); /* left by a refused rmdir, wherever the directory is now */
    rmdir(in_base("root/trap/made"));
}

/* ---- listing ----------------------------------------------------------------------------------------------------- */

static const struct aiod_stat *find_entry(const char *name)
{
    const char *found = last->listing->names;

    for (uint32_t i = 0; i < last->listing->entry_count; i++) {
        if (strcmp(found, name) == 0) {
            return &last->listing->stats[i];
        }
        found += strlen(found) + 1;
    }
    return NULL;
}

static bool is_stat_of(const struct aiod_stat *stat, const char *path)
{
    struct stat status;

    CHECK(lstat(in_base(path), &status) == 0);
    return stat->inode == status.st_ino && stat->device == status.st_dev && stat->mode == status.st_mode &&
           stat->size == (uint64_t)status.st_size && stat->links == status.st_nlink && stat->uid == status.st_uid &&
           stat->mtime_ns == status.st_mtim.tv_sec * INT64_C(1000000000) + status.st_mtim.tv_nsec;
}

static void a_listing_has_the_stat_of_each_name(void)
{
    CHECK(mkfifo(in_base("root/fifo"), 0644) == 0);
    put("root/\xff\xfe.bytes");
    CHECK(try (AIOD_VERB_LIST, "") == 0 && !last->listing->more);
    CHECK(is_stat_of(find_entry("file"), "root/file") && find_entry("file")->size == 5);
    CHECK(is_stat_of(find_entry("dir"), "root/dir") && S_ISDIR(find_entry("dir")->mode));
    CHECK(is_stat_of(find_entry("leaving"), "root/leaving") && S_ISLNK(find_entry("leaving")->mode));
    CHECK(is_stat_of(find_entry("fifo"), "root/fifo"));
    CHECK(find_entry("\xff\xfe.bytes")->size == 5);
    CHECK(find_entry(".") == NULL && find_entry("..") == NULL);
    CHECK(try (AIOD_VERB_LIST, "dir/") == 0 && last->listing->entry_count == 1 && find_entry("staying") != NULL);
    CHECK(try (AIOD_VERB_LIST, "file") == -ENOTDIR && try (AIOD_VERB_LIST, "absent") == -ENOENT);
    CHECK(unlink(in_base("root/fifo")) == 0 && unlink(in_base("root/\xff\xfe.bytes")) == 0);
}

/* Name `number` of many, of all lengths; most are long, so that a page is limited by bytes, not by entries. */
static const char *many_name(unsigned number, bool short_ones)
{
    static char name[NAME_BYTES_MAX + 16];
    int length = snprintf(name, sizeof(name), "many/%04u", number) - 5;
    unsigned wanted = short_ones ? 4 : 4 + number % (NAME_BYTES_MAX - 3);

    memset(name + 5 + length, 'x', wanted - (unsigned)length);
    name[5 + wanted] = '\0';
    return name;
}

/* They are links to one file: an inode takes ten times as long to make as a name. */
static void make_many(bool short_ones)
{
    char first[NAME_BYTES_MAX + 16];
    int parent = open(in_base("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);

    CHECK(parent >= 0);
    CHECK(mknodat(parent, many_name(0, short_ones), S_IFREG | 0644, 0) == 0);
    snprintf(first, sizeof(first), "%s", many_name(0, short_ones));
    for (unsigned i = 1; i < MANY; i++) {
        CHECK(linkat(parent, first, parent, many_name(i, short_ones), 0) == 0);
    }
    close(parent);
}

/* Count the names of the page in `seen`; names above MANY were created later. */
static void count_page(unsigned char *seen, bool short_ones)
{
    const struct aiod_listing *page = last->listing;
    const char *name = page->names;

    CHECK(page->entry_count <= AIOD_LISTING_ENTRIES_MAX && page->name_bytes <= AIOD_LISTING_BYTES_MAX);
    CHECK(page->entry_count > 0 || !page->more);
    for (uint32_t i = 0; i < page->entry_count; i++, name += strlen(name) + 1) {
        unsigned number;

        CHECK(sscanf(name, "%4u", &number) == 1);
        if (number < MANY) {
            CHECK(strlen(name) == strlen(many_name(number, short_ones)) - 5);
            CHECK(seen[number]++ == 0);
        }
    }
}

/* List page by page; names appear and vanish between the pages. */
static void list_many(bool short_ones)
{
    static unsigned char seen[MANY];
    char path[32];
    int64_t cursor = 0;
    unsigned pages = 0;
    bool more = true;

    memset(seen, 0, sizeof(seen));
    for (; more; pages++) {
        struct aiod_directory_op *directory_op = aiod_directory_op_create(AIOD_VERB_LIST, root, "many", "");

        directory_op->cursor = cursor;
        CHECK(run(directory_op) == 0);
        count_page(seen, short_ones);
        more = last->listing->more;
        cursor = last->listing->next;
        snprintf(path, sizeof(path), "root/many/%u", 9000 + pages);
        put(path);
        snprintf(path, sizeof(path), "root/many/%u", 8999 + pages);
        CHECK(pages == 0 || unlink(in_base(path)) == 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        CHECK(seen[i] == 1);
    }
    CHECK(pages > MANY / AIOD_LISTING_ENTRIES_MAX);
    snprintf(path, sizeof(path), "root/many/%u", 8999 + pages);
    CHECK(unlink(in_base(path)) == 0);
}

static void clear_many(bool short_ones)
{
    for (unsigned i = 0; i < MANY; i++) {
        CHECK(try (AIOD_VERB_REMOVE, many_name(i, short_ones)) == 0);
    }
    CHECK(try (AIOD_VERB_LIST, "many") == 0 && last->listing->entry_count == 0 && !last->listing->more);
}

static void pages_contain_each_name_once(void)
{
    CHECK(try (AIOD_VERB_MKDIR, "many") == 0);
    for (int short_ones = 0; short_ones < 2; short_ones++) {
        make_many(short_ones);
        list_many(short_ones);
        clear_many(short_ones);
    }
    CHECK(try (AIOD_VERB_RMDIR, "many") == 0);
}

static void an_invalid_cursor_is_refused(void)
{
    struct aiod_directory_op *directory_op = aiod_directory_op_create(AIOD_VERB_LIST, root, "", "");

    directory_op->cursor = -1;
    CHECK(run(directory_op) == -EINVAL);
}

static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static void remove_files(void)
{
    static const char *const names[] = {"root/file",        "root/leaving", "root/absolute",
                                        "root/dir/staying", "root/loop",    "out/secret"};

    aiod_directory_op_destroy(last);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CHECK(unlink(in_base(names[i])) == 0);
    }
    CHECK((unlink(in_base("root/trap")) == 0 && rmdir(in_base("root/swapped")) == 0) ||
          (rmdir(in_base("root/trap")) == 0 && unlink(in_base("root/swapped")) == 0));
    CHECK(rmdir(in_base("root/dir")) == 0 && rmdir(in_base("root")) == 0);
    CHECK(rmdir(in_base("out/dir")) == 0 && rmdir(in_base("out")) == 0 && rmdir(base) == 0);
}

int main(void)
{
    int free_fd = next_fd();

    create_files();
    mkdir_remove_and_rmdir_work();
    remove_removes_the_link_itself();
    rename_replaces_only_if_allowed();
    directories_can_be_renamed();
    rename_without_noreplace_is_refused();
    rename_across_file_systems_fails();
    stat_fills_the_record();
    sync_reaches_the_directory();
    paths_out_of_the_root_are_refused();
    the_root_itself_cannot_be_changed();
    a_root_that_is_a_file_is_refused();
    a_directory_replaced_by_a_link_stays_confined();
    a_listing_has_the_stat_of_each_name();
    pages_contain_each_name_once();
    an_invalid_cursor_is_refused();
    CHECK(next_fd() == free_fd); /* no failure has leaked a descriptor */
    remove_files();
    return 0;
}
