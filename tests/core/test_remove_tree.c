/* A tree is removed part by part, with few descriptors, and nothing outside it, wherever its links lead. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "path/directory_ops.h"
#include "path/remove_tree.h"

#define WIDE 100u
#define DEEP 200u /* more than a call has descriptors for */
#define CALLS_MAX 100000u

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static int base_fd;

static void put(int directory_fd, const char *name)
{
    int fd = openat(directory_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);

    CHECK(fd >= 0 && close(fd) == 0);
}

static bool is_there(const char *name)
{
    struct stat status;

    return fstatat(base_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

/* Call until the tree is gone; the number of calls. */
static unsigned remove_all(const char *name, uint32_t names_max)
{
    unsigned calls = 1;
    int result;

    while ((result = aiod_remove_tree(base_fd, name, names_max)) == 1) {
        CHECK(is_there(name) && ++calls < CALLS_MAX);
    }
    CHECK(result == 0 && !is_there(name));
    return calls;
}

static int make_directory(int parent_fd, const char *name)
{
    int fd;

    CHECK(mkdirat(parent_fd, name, 0755) == 0);
    fd = openat(parent_fd, name, O_RDONLY | O_DIRECTORY);
    CHECK(fd >= 0);
    return fd;
}

static void fill_wide(int fd)
{
    char name[32];

    for (unsigned i = 0; i < WIDE; i++) {
        snprintf(name, sizeof(name), "file%u", i);
        put(fd, name);
        snprintf(name, sizeof(name), "directory%u", i);
        close(make_directory(fd, name));
    }
    CHECK(mkfifoat(fd, "fifo", 0644) == 0);
}

static void a_wide_tree_is_removed_in_parts(void)
{
    int top = make_directory(base_fd, "wide");
    int below = make_directory(top, "below");

    fill_wide(top);
    fill_wide(below);
    CHECK(remove_all("wide", 64) > 4 * WIDE / 64);
    close(below);
    close(top);
}

/* Make a chain of directories, with a file in each. */
static void make_chain(const char *name, unsigned depth)
{
    int fd = make_directory(base_fd, name);

    for (unsigned i = 0; i < depth; i++) {
        int below;

        put(fd, "file");
        below = make_directory(fd, "below");
        close(fd);
        fd = below;
    }
    close(fd);
}

static void a_deep_tree_is_removed_with_few_descriptors(void)
{
    make_chain("deep", DEEP);
    CHECK(remove_all("deep", UINT32_MAX) > 1);
    make_chain("deep", DEEP);
    CHECK(remove_all("deep", 1) > 2 * DEEP);
}

static void links_are_removed_and_not_followed(void)
{
    int out = make_directory(base_fd, "out");
    int top = make_directory(base_fd, "tree");

    put(out, "kept");
    CHECK(symlinkat("../out", top, "link") == 0 && symlinkat("/", top, "root") == 0);
    CHECK(symlinkat("tree", base_fd, "link") == 0);
    CHECK(aiod_remove_tree(base_fd, "link", 100) == -ENOTDIR && is_there("link") && is_there("tree/link"));
    CHECK(aiod_remove_tree(base_fd, "out/kept", 100) == -ENOTDIR && aiod_remove_tree(base_fd, "none", 100) == -ENOENT);
    CHECK(aiod_remove_tree(base_fd, ".", 100) == -EINVAL && aiod_remove_tree(base_fd, "..", 100) == -EINVAL);
    CHECK(remove_all("tree", 100) == 1);
    CHECK(is_there("out/kept") && unlinkat(base_fd, "link", 0) == 0);
    CHECK(remove_all("out", 100) == 1);
    close(out);
    close(top);
}

/* ---- by path: the directory of a link's name is never removed ----------------------------------------------------- */

static int by_path(const char *path)
{
    struct aiod_directory_op *directory_op = aiod_directory_op_create(AIOD_VERB_RMTREE, base, path, "");
    int error;

    CHECK(directory_op != NULL);
    error = aiod_directory_op_run(directory_op);
    CHECK(directory_op->outside == (error == -EXDEV));
    aiod_directory_op_destroy(directory_op);
    return error;
}

static void a_path_with_a_slash_at_its_end_follows_no_link(void)
{
    close(make_directory(base_fd, "tree"));
    CHECK(symlinkat("tree", base_fd, "link") == 0);
    CHECK(by_path("link/") == -ENOTDIR && by_path("link") == -ENOTDIR && is_there("tree"));
    CHECK(by_path("") == -EINVAL && by_path("tree/.") == -EINVAL && by_path("tree/..") == -EINVAL);
    CHECK(by_path("../x") == -EXDEV && by_path("/tmp") == -EXDEV && is_there("tree"));
    CHECK(by_path("tree//") == 0 && !is_there("tree"));
    CHECK(unlinkat(base_fd, "link", 0) == 0);
}

/* ---- another process replaces directories by links ----------------------------------------------------------------- */

static _Atomic bool swapping;

static void *swap(void *argument)
{
    (void)argument;
    while (swapping) {
        CHECK(renameat2(base_fd, "tree/a", base_fd, "tree/b", RENAME_EXCHANGE) == 0 || errno == ENOENT);
    }
    return NULL;
}

static void a_directory_replaced_by_a_link_is_not_followed(void)
{
    int out = make_directory(base_fd, "out");
    pthread_t thread;

    put(out, "kept");
    for (unsigned round = 0; round < rounds(200); round++) {
        int top = make_directory(base_fd, "tree");
        int below = make_directory(top, "a");
        int result;

        put(below, "file");
        CHECK(symlinkat("../out", top, "b") == 0);
        swapping = true;
        CHECK(pthread_create(&thread, NULL, swap, NULL) == 0);
        do {
            result = aiod_remove_tree(base_fd, "tree", 100);
        } while (result != 0 && result != -ENOENT);
        swapping = false;
        CHECK(pthread_join(thread, NULL) == 0 && is_there("out/kept"));
        close(below);
        close(top);
    }
    CHECK(remove_all("out", 100) == 1);
    close(out);
}

int main(void)
{
    int free_fd = next_fd();

    CHECK(mkdtemp(base) != NULL);
    base_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    a_wide_tree_is_removed_in_parts();
    a_deep_tree_is_removed_with_few_descriptors();
    links_are_removed_and_not_followed();
    a_path_with_a_slash_at_its_end_follows_no_link();
    a_directory_replaced_by_a_link_is_not_followed();
    CHECK(close(base_fd) == 0 && rmdir(base) == 0);
    CHECK(next_fd() == free_fd);
    return 0;
}
