/* Only files beneath an export's root can be opened. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "path/confined_open.h"

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128];

static char *in_base(const char *name)
{
    static char path[4][256];
    static int turn;

    turn = (turn + 1) % 4;
    CHECK(snprintf(path[turn], sizeof(path[0]), "%s/%s", base, name) < (int)sizeof(path[0]));
    return path[turn];
}

static void put(const char *name, const char *text)
{
    FILE *file = fopen(in_base(name), "w");

    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL);
    CHECK(mkdir(in_base("root"), 0755) == 0 && mkdir(in_base("root/dir"), 0755) == 0);
    CHECK(mkdir(in_base("out"), 0755) == 0);
    put("root/file", "inside");
    put("out/secret", "outside");
    CHECK(symlink("../out/secret", in_base("root/leaving")) == 0);
    CHECK(symlink(in_base("out"), in_base("root/dir/absolute")) == 0);
    CHECK(symlink("../file", in_base("root/dir/staying")) == 0);
    CHECK(symlink("loop", in_base("root/loop")) == 0);
    CHECK(symlink("/proc/self/cwd", in_base("root/magic")) == 0);
    CHECK(mkfifo(in_base("root/fifo"), 0644) == 0);
    snprintf(root, sizeof(root), "%s/root", base);
}

static const struct aiod_creation plain = {.mode = 0640, .uid = (uid_t)-1, .gid = (gid_t)-1};

/* The descriptors are distinct; one for flushes exists only for writable files. */
static void close_all(const struct aiod_opened *opened, unsigned flags)
{
    CHECK(opened->store_fd >= 0 && opened->store_fd != opened->fd);
    CHECK((opened->flush_fd >= 0) == ((flags & AIOD_OPEN_WRITE) != 0));
    CHECK(opened->flush_fd != opened->fd && opened->flush_fd != opened->store_fd);
    close(opened->fd);
    close(opened->store_fd);
    if (opened->flush_fd >= 0) {
        close(opened->flush_fd);
    }
}

static int attempt_at(const char *where, const char *path, unsigned flags)
{
    struct aiod_opened opened = {0};
    int error = aiod_confined_open(where, path, flags, &plain, &opened);

    if (error == 0) {
        CHECK(fcntl(opened.fd, F_GETFD) == FD_CLOEXEC);
        close_all(&opened, flags);
    }
    return error;
}

static int attempt(const char *path, unsigned flags)
{
    return attempt_at(root, path, flags);
}

static void files_beneath_the_root_open(void)
{
    struct aiod_opened opened;
    struct stat status;

    CHECK(aiod_confined_open(root, "file", AIOD_OPEN_READ, &plain, &opened) == 0);
    CHECK(fstat(opened.fd, &status) == 0);
    CHECK(opened.size == 6 && opened.dev == status.st_dev && opened.ino == status.st_ino);
    CHECK(write(opened.fd, "x", 1) < 0 && errno == EBADF);
    close_all(&opened, AIOD_OPEN_READ);
    CHECK(attempt("dir/staying", AIOD_OPEN_READ) == 0);
    CHECK(attempt("dir/../file", AIOD_OPEN_READ | AIOD_OPEN_WRITE) == 0);
}

static void paths_out_of_the_root_are_refused(void)
{
    CHECK(attempt("../out/secret", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("dir/../../out/secret", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("/etc/passwd", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("leaving", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("dir/absolute/secret", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("magic/x", AIOD_OPEN_READ) == -EXDEV || attempt("magic/x", AIOD_OPEN_READ) == -ELOOP);
    CHECK(attempt("../out/made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -EXDEV);
    CHECK(attempt("dir/absolute/made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE) == -EXDEV);
    CHECK(access(in_base("out/made"), F_OK) < 0);
    CHECK(attempt("leaving", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_TRUNCATE) == -EXDEV);
}

static void other_types_are_refused(void)
{
    CHECK(attempt("dir", AIOD_OPEN_READ) == -EISDIR);
    CHECK(attempt("", AIOD_OPEN_READ) == -EISDIR);
    CHECK(attempt(".", AIOD_OPEN_READ) == -EISDIR);
    CHECK(attempt("fifo", AIOD_OPEN_READ) == -EINVAL); /* and does not wait for a writer */
    CHECK(attempt("fifo", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -EINVAL);
    CHECK(attempt("loop", AIOD_OPEN_READ) == -ELOOP);
    CHECK(attempt("file/below", AIOD_OPEN_READ) == -ENOTDIR);
    CHECK(attempt("absent", AIOD_OPEN_READ) == -ENOENT);
}

static void create_exclusive_and_truncate_follow_open(void)
{
    struct aiod_opened opened;
    struct stat status;

    CHECK(attempt("made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE) == 0);
    CHECK(stat(in_base("root/made"), &status) == 0 && (status.st_mode & 0777) == 0640);
    CHECK(attempt("made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE) == -EEXIST);
    CHECK(attempt("leaving", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE) == -EEXIST);
    put("root/made", "something");
    CHECK(attempt("made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == 0);
    CHECK(stat(in_base("root/made"), &status) == 0 && status.st_size == 9);
    CHECK(aiod_confined_open(root, "made", AIOD_OPEN_WRITE | AIOD_OPEN_TRUNCATE, &plain, &opened) == 0);
    CHECK(opened.size == 0);
    close_all(&opened, AIOD_OPEN_WRITE);
    CHECK(stat(in_base("root/made"), &status) == 0 && status.st_size == 0);
}

static int failing_statx(int fd, const char *path, int flags, unsigned mask, struct statx *status)
{
    (void)fd;
    (void)path;
    (void)flags;
    (void)mask;
    (void)status;
    errno = EINVAL;
    return -1;
}

/* Some file systems accept O_DIRECT, and report only on the query for its alignment that they do not support it. */
static void a_failed_open_does_not_truncate(void)
{
    struct aiod_os os = aiod_os_real;
    struct stat status;

    os.statx = failing_statx;
    aiod_os = &os;
    CHECK(attempt("file", AIOD_OPEN_WRITE | AIOD_OPEN_TRUNCATE | AIOD_OPEN_DIRECT) == -EINVAL);
    aiod_os = &aiod_os_real;
    CHECK(stat(in_base("root/file"), &status) == 0 && status.st_size == (off_t)strlen("inside"));
}

static void an_empty_path_opens_a_root_that_is_a_file(void)
{
    struct aiod_opened opened;

    CHECK(aiod_confined_open(in_base("root/file"), "", AIOD_OPEN_READ, &plain, &opened) == 0);
    CHECK(opened.size == 6);
    close_all(&opened, AIOD_OPEN_READ);
    CHECK(aiod_confined_open(in_base("root/file"), "x", AIOD_OPEN_READ, &plain, &opened) == -ENOTDIR);
    CHECK(aiod_confined_open(in_base("gone"), "", AIOD_OPEN_READ, &plain, &opened) == -ENOENT);
    CHECK(aiod_confined_open("/dev/null", "", AIOD_OPEN_READ, &plain, &opened) == -EINVAL);
}

static void create_and_exclusive_see_a_root_that_exists(void)
{
    const unsigned exclusive = AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE;

    CHECK(attempt_at(in_base("root/file"), "", exclusive) == -EEXIST);
    CHECK(attempt_at(in_base("root/file"), "", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == 0);
    CHECK(attempt_at(in_base("gone"), "", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -ENOENT);
    CHECK(access(in_base("gone"), F_OK) < 0);
}

/* A device would bypass every other confinement: no device inside an exported directory is opened. */
static void devices_in_a_directory_are_refused(void)
{
    CHECK(attempt_at("/dev", "null", AIOD_OPEN_READ) == -EINVAL);
    CHECK(attempt_at("/dev", "null", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_TRUNCATE) == -EINVAL);
    if (mknod(in_base("root/disk"), S_IFBLK | 0600, makedev(7, 250)) < 0) {
        CHECK(errno == EPERM); /* only root may create one */
        return;
    }
    CHECK(attempt("disk", AIOD_OPEN_READ) == -EINVAL);
    CHECK(attempt("disk", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -EINVAL);
    CHECK(unlink(in_base("root/disk")) == 0);
}

/* Links in /proc lead to files without any path. */
static void magic_links_are_refused(void)
{
    char link[32];
    int fd = open(in_base("out/secret"), O_RDONLY);

    CHECK(fd >= 0);
    snprintf(link, sizeof(link), "fd/%d", fd);
    CHECK(attempt_at("/proc/self", link, AIOD_OPEN_READ) == -ELOOP);
    CHECK(attempt_at("/proc/self", "exe", AIOD_OPEN_READ) == -ELOOP);
    CHECK(attempt_at("/proc/self", "root/etc/passwd", AIOD_OPEN_READ) == -ELOOP);
    CHECK(attempt_at("/proc/self", "cwd/secret", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -ELOOP);
    CHECK(attempt_at("/proc/self", "status", AIOD_OPEN_READ) == 0);
    close(fd);
}

/* A dangling link is an existing name: CREATE does not follow it, wherever it points. */
static void dangling_links_are_not_followed(void)
{
    CHECK(symlink("nothing", in_base("root/dangling")) == 0);
    CHECK(symlink("../out/nothing", in_base("root/dangling-out")) == 0);
    CHECK(attempt("dangling", AIOD_OPEN_READ) == -ENOENT);
    CHECK(attempt("dangling", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -EEXIST);
    CHECK(attempt("dangling-out", AIOD_OPEN_READ) == -EXDEV);
    CHECK(attempt("dangling-out", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE) == -EXDEV);
    CHECK(access(in_base("root/nothing"), F_OK) < 0 && access(in_base("out/nothing"), F_OK) < 0);
    CHECK(unlink(in_base("root/dangling")) == 0 && unlink(in_base("root/dangling-out")) == 0);
}

static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static void remove_files(void)
{
    static const char *const names[] = {"root/file",        "root/made",  "root/leaving", "root/dir/absolute",
                                        "root/dir/staying", "root/loop",  "root/magic",   "root/fifo",
                                        "out/secret",       "root/exact", "root/given"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CHECK(unlink(in_base(names[i])) == 0);
    }
    CHECK(rmdir(in_base("root/dir")) == 0 && rmdir(in_base("root")) == 0 && rmdir(in_base("out")) == 0);
    CHECK(rmdir(base) == 0);
}

static void links_are_followed_only_if_allowed(void)
{
    CHECK(attempt("dir/staying", AIOD_OPEN_READ) == 0);
    CHECK(attempt("dir/staying", AIOD_OPEN_READ | AIOD_OPEN_NO_LINKS) == -ELOOP);
    CHECK(attempt("dir/staying", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | AIOD_OPEN_NO_LINKS) == -ELOOP);
    CHECK(attempt("file", AIOD_OPEN_READ | AIOD_OPEN_NO_LINKS) == 0);
}

/* The umask does not apply to an exact mode, and only root can give a file to another user. */
static void a_new_file_has_the_requested_mode_and_owner(void)
{
    struct aiod_creation creation = {.mode = 0666, .exact = true, .uid = (uid_t)-1, .gid = (gid_t)-1};
    struct aiod_opened opened;
    struct stat status;
    mode_t before = umask(077);

    CHECK(aiod_confined_open(root, "exact", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, &creation, &opened) == 0);
    CHECK(fstat(opened.fd, &status) == 0 && (status.st_mode & 07777) == 0666);
    close_all(&opened, AIOD_OPEN_WRITE);
    creation.mode = 0600;
    CHECK(aiod_confined_open(root, "exact", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, &creation, &opened) == 0);
    CHECK(fstat(opened.fd, &status) == 0 && (status.st_mode & 07777) == 0666); /* the file existed before */
    close_all(&opened, AIOD_OPEN_WRITE);
    creation.uid = creation.gid = 12345;
    CHECK(aiod_confined_open(root, "given", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, &creation, &opened) ==
          (geteuid() == 0 ? 0 : -EPERM));
    if (geteuid() == 0) {
        CHECK(fstat(opened.fd, &status) == 0 && status.st_uid == 12345 && status.st_gid == 12345);
        close_all(&opened, AIOD_OPEN_WRITE);
    }
    umask(before);
}

static bool leaves_access_time(const char *path, unsigned flags)
{
    struct aiod_opened opened;
    struct aiod_opened adopted;
    bool leaves;

    CHECK(aiod_confined_open(root, path, flags, &plain, &opened) == 0);
    leaves = (fcntl(opened.fd, F_GETFL) & O_NOATIME) != 0;
    CHECK((fcntl(opened.fd, F_GETFL) & O_ACCMODE) == ((flags & AIOD_OPEN_WRITE) != 0 ? O_RDWR : O_RDONLY));
    CHECK(aiod_confined_adopt(opened.store_fd, flags, &adopted) == 0);
    CHECK(((fcntl(adopted.fd, F_GETFL) & O_NOATIME) != 0) == leaves);
    if (adopted.fd != opened.store_fd) {
        close(adopted.fd);
    }
    close_all(&opened, flags);
    return leaves;
}

/* Set if the kernel permits it; the file opens in any case. */
static void reads_do_not_change_the_access_time(void)
{
    uid_t own = geteuid();

    CHECK(leaves_access_time("file", AIOD_OPEN_READ | AIOD_OPEN_WRITE));
    CHECK(leaves_access_time("fresh", AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE));
    CHECK(unlink(in_base("root/fresh")) == 0);
    if (own == 0) {
        CHECK(chmod(in_base("root/file"), 0644) == 0 && chmod(base, 0755) == 0);
        setfsuid(12345);
        CHECK(!leaves_access_time("file", AIOD_OPEN_READ));
        setfsuid(own);
    }
}

int main(void)
{
    int free_fd = next_fd();

    create_files();
    files_beneath_the_root_open();
    paths_out_of_the_root_are_refused();
    other_types_are_refused();
    create_exclusive_and_truncate_follow_open();
    a_failed_open_does_not_truncate();
    an_empty_path_opens_a_root_that_is_a_file();
    create_and_exclusive_see_a_root_that_exists();
    devices_in_a_directory_are_refused();
    magic_links_are_refused();
    dangling_links_are_not_followed();
    links_are_followed_only_if_allowed();
    a_new_file_has_the_requested_mode_and_owner();
    reads_do_not_change_the_access_time();
    CHECK(next_fd() == free_fd); /* no failure has leaked a descriptor */
    remove_files();
    return 0;
}
