/* Links, times, permission bits and extended attributes are those of the name of a path, and of nothing outside. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "path/attributes.h"
#include "path/directory_ops.h"

#define SECOND INT64_C(1000000000)

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[64];
static int base_fd;

static void put(const char *name)
{
    int fd = openat(base_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0640);

    CHECK(fd >= 0 && write(fd, "12345", 5) == 5 && close(fd) == 0);
}

static struct stat status_of(const char *name)
{
    struct stat status;

    CHECK(fstatat(base_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0);
    return status;
}

static bool is_there(const char *name)
{
    struct stat status;

    return fstatat(base_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL);
    base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mkdirat(base_fd, "root", 0755) == 0 && mkdirat(base_fd, "out", 0755) == 0);
    CHECK(mkdirat(base_fd, "root/dir", 0755) == 0);
    put("root/file");
    put("out/secret");
    CHECK(symlinkat("../out", base_fd, "root/leaving") == 0 && symlinkat("file", base_fd, "root/staying") == 0);
    CHECK(symlinkat("../out/secret", base_fd, "root/secret") == 0 && symlinkat("loop", base_fd, "root/loop") == 0);
    CHECK(mkfifoat(base_fd, "root/fifo", 0640) == 0);
    snprintf(root, sizeof(root), "%s/root", base);
}

/* ---- one call each ----------------------------------------------------------------------------------------------- */

static struct aiod_directory_op *last;

static struct aiod_directory_op *make(enum aiod_verb verb, const char *path, const char *to)
{
    aiod_directory_op_destroy(last);
    last = aiod_directory_op_create(verb, root, path, to);
    CHECK(last != NULL);
    return last;
}

static int run(void)
{
    int error = aiod_directory_op_run(last);

    CHECK(!last->outside || error == -EXDEV);
    return error;
}

static int try_verb(enum aiod_verb verb, const char *path, const char *to)
{
    make(verb, path, to);
    return run();
}

static bool leaves(int error)
{
    return error == -EXDEV && last->outside;
}

static int set_attribute(const char *path, const char *name, const char *value, int flags)
{
    make(AIOD_VERB_SETXATTR, path, name);
    last->value = strdup(value);
    last->value_bytes = strlen(value);
    last->xattr_flags = flags;
    return run();
}

static int set_mode(const char *path, mode_t mode, bool itself)
{
    make(AIOD_VERB_CHMOD, path, "");
    last->mode = mode;
    last->itself = itself;
    return run();
}

static int set_times(const char *path, int64_t access_s, int64_t change_s, bool itself)
{
    make(AIOD_VERB_UTIME, path, "");
    last->times[0] = (struct timespec){.tv_sec = access_s, .tv_nsec = 1};
    last->times[1] = (struct timespec){.tv_sec = change_s, .tv_nsec = 999999999};
    last->itself = itself;
    return run();
}

static bool text_is(const char *text)
{
    return last->text_bytes == strlen(text) && memcmp(last->text, text, last->text_bytes) == 0;
}

/* ---- links ------------------------------------------------------------------------------------------------------- */

static void lstat_and_readlink_examine_the_link_itself(void)
{
    CHECK(try_verb(AIOD_VERB_LSTAT, "staying", "") == 0 && S_ISLNK(last->stat.mode));
    CHECK(last->stat.inode == status_of("root/staying").st_ino && last->stat.size == 4);
    CHECK(try_verb(AIOD_VERB_LSTAT, "leaving", "") == 0 && S_ISLNK(last->stat.mode));
    CHECK(try_verb(AIOD_VERB_LSTAT, "file", "") == 0 && S_ISREG(last->stat.mode) && last->stat.size == 5);
    CHECK(try_verb(AIOD_VERB_LSTAT, "", "") == 0 && last->stat.inode == status_of("root").st_ino);
    CHECK(leaves(try_verb(AIOD_VERB_LSTAT, "leaving/", "")) && leaves(try_verb(AIOD_VERB_LSTAT, "leaving/secret", "")));
    CHECK(try_verb(AIOD_VERB_LSTAT, "absent", "") == -ENOENT);
    CHECK(try_verb(AIOD_VERB_READLINK, "leaving", "") == 0 && text_is("../out"));
    CHECK(try_verb(AIOD_VERB_READLINK, "loop", "") == 0 && text_is("loop"));
    CHECK(try_verb(AIOD_VERB_READLINK, "file", "") == -EINVAL && try_verb(AIOD_VERB_READLINK, "", "") == -EINVAL);
    CHECK(leaves(try_verb(AIOD_VERB_READLINK, "leaving/", "")) && try_verb(AIOD_VERB_READLINK, "none", "") == -ENOENT);
}

static void a_new_symbolic_link_leads_nowhere_outside(void)
{
    char long_target[PATH_MAX + 1];

    CHECK(try_verb(AIOD_VERB_SYMLINK, "dir/up", "../../out/secret") == 0 && is_there("root/dir/up"));
    CHECK(leaves(try_verb(AIOD_VERB_STAT, "dir/up", "")) && leaves(try_verb(AIOD_VERB_GETXATTR, "dir/up", "user.a")));
    CHECK(try_verb(AIOD_VERB_SYMLINK, "dir/root", "/") == 0 && leaves(try_verb(AIOD_VERB_LIST, "dir/root", "")));
    CHECK(leaves(try_verb(AIOD_VERB_MKDIR, "dir/root/tmp/made", "")));
    CHECK(try_verb(AIOD_VERB_SYMLINK, "dir/up", "x") == -EEXIST && try_verb(AIOD_VERB_SYMLINK, "", "x") == -EEXIST);
    CHECK(try_verb(AIOD_VERB_SYMLINK, "dir/new/", "x") == -ENOENT && try_verb(AIOD_VERB_SYMLINK, "x", "") == -ENOENT);
    CHECK(leaves(try_verb(AIOD_VERB_SYMLINK, "leaving/new", "x")) && leaves(try_verb(AIOD_VERB_SYMLINK, "/x", "x")));
    memset(long_target, 'x', PATH_MAX);
    long_target[PATH_MAX] = '\0';
    CHECK(try_verb(AIOD_VERB_SYMLINK, "long", long_target) == -ENAMETOOLONG);
    CHECK(try_verb(AIOD_VERB_REMOVE, "dir/up", "") == 0 && try_verb(AIOD_VERB_REMOVE, "dir/root", "") == 0);
}

static void a_hard_link_is_one_of_the_name_itself(void)
{
    CHECK(try_verb(AIOD_VERB_LINK, "file", "dir/file") == 0 && status_of("root/file").st_nlink == 2);
    CHECK(try_verb(AIOD_VERB_LINK, "file", "dir/file") == -EEXIST);
    CHECK(try_verb(AIOD_VERB_LINK, "secret", "dir/link") == 0 && S_ISLNK(status_of("root/dir/link").st_mode));
    CHECK(try_verb(AIOD_VERB_LINK, "dir", "other") == -EPERM && try_verb(AIOD_VERB_LINK, "none", "x") == -ENOENT);
    CHECK(try_verb(AIOD_VERB_LINK, "secret/", "x") == -ENOTDIR &&
          try_verb(AIOD_VERB_LINK, "leaving/", "x") == -ENOTDIR);
    CHECK(leaves(try_verb(AIOD_VERB_LINK, "leaving/secret", "x")) && leaves(try_verb(AIOD_VERB_LINK, "file", "../x")));
    CHECK(leaves(try_verb(AIOD_VERB_LINK, "../out/secret", "x")) && !is_there("root/x") && !is_there("x"));
    CHECK(status_of("out/secret").st_nlink == 1);
    CHECK(try_verb(AIOD_VERB_REMOVE, "dir/file", "") == 0 && try_verb(AIOD_VERB_REMOVE, "dir/link", "") == 0);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static void chmod_changes_the_permission_bits_of_files_inside(void)
{
    CHECK(set_mode("file", 04751, false) == 0 && (status_of("root/file").st_mode & 07777) == 0751);
    CHECK(set_mode("staying", 0604, false) == 0 && (status_of("root/file").st_mode & 07777) == 0604);
    CHECK(set_mode("fifo", 0600, false) == 0 && (status_of("root/fifo").st_mode & 07777) == 0600);
    CHECK(set_mode("dir", 0700, true) == 0 && (status_of("root/dir").st_mode & 07777) == 0700);
    CHECK(set_mode("staying", 0600, true) == -EOPNOTSUPP && set_mode("loop", 0600, true) == -EOPNOTSUPP);
    CHECK(leaves(set_mode("secret", 0777, false)) && set_mode("secret", 0777, true) == -EOPNOTSUPP);
    CHECK(leaves(set_mode("leaving/secret", 0777, true)) && leaves(set_mode("../out/secret", 0777, false)));
    CHECK((status_of("out/secret").st_mode & 07777) == 0640);
    CHECK(set_mode("none", 0600, false) == -ENOENT && set_mode("file/", 0600, false) == -ENOTDIR);
}

static void utime_sets_both_times(void)
{
    struct stat before = status_of("out/secret");
    struct stat status;

    CHECK(set_times("file", -5, 1000, false) == 0);
    status = status_of("root/file");
    CHECK(status.st_atim.tv_sec == -5 && status.st_atim.tv_nsec == 1);
    CHECK(status.st_mtim.tv_sec == 1000 && status.st_mtim.tv_nsec == 999999999);
    CHECK(set_times("staying", 7, 8, true) == 0 && status_of("root/staying").st_mtim.tv_sec == 8);
    CHECK(status_of("root/file").st_mtim.tv_sec == 1000);
    CHECK(set_times("secret", 7, 8, true) == 0 && leaves(set_times("secret", 7, 8, false)));
    CHECK(status_of("out/secret").st_mtim.tv_sec == before.st_mtim.tv_sec);
    CHECK(set_times("fifo", 7, 8, false) == 0 && set_times("dir", 7, 8, false) == 0 && set_times("", 7, 8, false) == 0);
    make(AIOD_VERB_UTIME, "file", "");
    last->times[0].tv_nsec = last->times[1].tv_nsec = UTIME_NOW;
    CHECK(run() == 0 && status_of("root/file").st_mtim.tv_sec >= before.st_mtim.tv_sec);
}

static void extended_attributes_are_those_of_users(void)
{
    CHECK(set_attribute("file", "user.b", "value", XATTR_REPLACE) == -ENODATA);
    CHECK(set_attribute("file", "user.b", "value", XATTR_CREATE) == 0);
    CHECK(set_attribute("file", "user.b", "value", XATTR_CREATE) == -EEXIST);
    CHECK(set_attribute("staying", "user.a", "", 0) == 0);
    CHECK(try_verb(AIOD_VERB_GETXATTR, "staying", "user.b") == 0 && text_is("value"));
    CHECK(try_verb(AIOD_VERB_GETXATTR, "file", "user.a") == 0 && text_is(""));
    CHECK(try_verb(AIOD_VERB_GETXATTR, "file", "user.c") == -ENODATA);
    CHECK(try_verb(AIOD_VERB_LISTXATTR, "file", "") == 0 && last->text_bytes == 14);
    CHECK(memcmp(last->text, "user.a\0user.b\0", 14) == 0 || memcmp(last->text, "user.b\0user.a\0", 14) == 0);
    CHECK(set_attribute("fifo", "user.a", "x", 0) == -EPERM); /* only files and directories have any */
    CHECK(leaves(set_attribute("secret", "user.a", "x", 0)));
    CHECK(leaves(try_verb(AIOD_VERB_LISTXATTR, "leaving", "")) && try_verb(AIOD_VERB_LISTXATTR, "dir", "") == 0);
    CHECK(last->text_bytes == 0 && leaves(try_verb(AIOD_VERB_REMOVEXATTR, "secret", "user.a")));
    CHECK(try_verb(AIOD_VERB_REMOVEXATTR, "file", "user.a") == 0);
    CHECK(try_verb(AIOD_VERB_REMOVEXATTR, "file", "user.a") == -ENODATA);
}

static void attributes_of_a_link_itself_are_refused(void)
{
    make(AIOD_VERB_SETXATTR, "staying", "user.a");
    last->itself = true;
    CHECK(run() == -EPERM);
}

static bool file_system_has_attributes(void)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/file", root);
    return setxattr(path, "user.probe", "", 0, 0) == 0 && removexattr(path, "user.probe") == 0;
}

static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static void remove_files(void)
{
    static const char *const names[] = {"root/file", "root/staying", "root/leaving", "root/secret",
                                        "root/loop", "root/fifo",    "out/secret"};

    aiod_directory_op_destroy(last);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CHECK(unlinkat(base_fd, names[i], 0) == 0);
    }
    CHECK(unlinkat(base_fd, "root/dir", AT_REMOVEDIR) == 0 && unlinkat(base_fd, "root", AT_REMOVEDIR) == 0);
    CHECK(unlinkat(base_fd, "out", AT_REMOVEDIR) == 0 && close(base_fd) == 0 && rmdir(base) == 0);
}

int main(void)
{
    int free_fd = next_fd();

    create_files();
    lstat_and_readlink_examine_the_link_itself();
    a_new_symbolic_link_leads_nowhere_outside();
    a_hard_link_is_one_of_the_name_itself();
    chmod_changes_the_permission_bits_of_files_inside();
    utime_sets_both_times();
    if (file_system_has_attributes()) {
        extended_attributes_are_those_of_users();
        attributes_of_a_link_itself_are_refused();
    }
    remove_files();
    CHECK(next_fd() == free_fd);
    return 0;
}
