/* The descriptor of a root that a thread keeps: when it is opened, when it is closed, and what takes the root's place. */
#include "check.h"
#include "count_names.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "path/cached_path.h"
#include "path/kept_root.h"
#include "scratch.h"

#define USES 32
#define TRIES 8

static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static char root[128], other[128], moved[128];

static void create(const char *directory, const char *name)
{
    char path[256];
    int fd;

    CHECK(mkdir(directory, 0755) == 0);
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0 && close(fd) == 0);
}

static unsigned descriptors(void)
{
    return count_names("/proc/self/fd");
}

/* The kernel may forget names at any time: they are looked up again then. */
static bool has(const char *directory, const char *name)
{
    int fd = aiod_cached_open(directory, name, false);

    for (int tries = 0; fd == -EAGAIN && tries < TRIES; tries++) {
        char path[640];
        struct stat status;

        snprintf(path, sizeof(path), "%s/%s", directory, name);
        stat(path, &status);
        fd = aiod_cached_open(directory, name, false);
    }
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

static void a_thread_that_was_not_asked_to_keeps_nothing(void)
{
    unsigned before = descriptors();

    CHECK(has(root, "first") && !aiod_kept_root_held() && descriptors() == before);
}

static void a_kept_root_is_opened_once_and_dropped(void)
{
    unsigned before = descriptors();
    int fd;

    aiod_kept_root_set_keeping(true);
    CHECK(has(root, "first") && aiod_kept_root_held() && descriptors() == before + 1);
    fd = aiod_kept_root_get(root);
    aiod_kept_root_put(fd);
    CHECK(aiod_kept_root_get(root) == fd && descriptors() == before + 1);
    aiod_kept_root_drop();
    CHECK(!aiod_kept_root_held() && descriptors() == before);
    CHECK(has(root, "first") && aiod_kept_root_held()); /* it keeps the next one */
    aiod_kept_root_set_keeping(false);
    CHECK(descriptors() == before && has(root, "first") && descriptors() == before);
}

static void another_root_takes_the_place_of_the_first(void)
{
    unsigned before = descriptors();

    aiod_kept_root_set_keeping(true);
    CHECK(has(root, "first") && has(other, "second") && !has(other, "first") && has(root, "first"));
    CHECK(descriptors() == before + 1);
    CHECK(aiod_kept_root_get("/nowhere") == -EAGAIN && !aiod_kept_root_held());
    aiod_kept_root_set_keeping(false);
    CHECK(descriptors() == before);
}

/* As after a mount over it. */
static void what_takes_the_place_of_the_root_is_seen_after_some_requests(void)
{
    unsigned old = 0;

    aiod_kept_root_set_keeping(true);
    CHECK(has(root, "first"));
    CHECK(rename(root, moved) == 0 && rename(other, root) == 0);
    while (!has(root, "second")) {
        CHECK(++old < USES);
    }
    CHECK(!has(root, "first"));
    CHECK(rename(root, other) == 0 && rename(moved, root) == 0);
    aiod_kept_root_drop();
    CHECK(has(root, "first")); /* at once */
    aiod_kept_root_set_keeping(false);
}

static void *look_and_keep(void *argument)
{
    (void)argument;
    CHECK(!aiod_kept_root_held() && has(root, "first") && !aiod_kept_root_held());
    return NULL;
}

static void each_thread_has_its_own(void)
{
    pthread_t thread;

    aiod_kept_root_set_keeping(true);
    CHECK(has(root, "first") && aiod_kept_root_held());
    CHECK(pthread_create(&thread, NULL, look_and_keep, NULL) == 0 && pthread_join(thread, NULL) == 0);
    aiod_kept_root_set_keeping(false);
}

static void a_root_with_a_long_path_is_not_kept(void)
{
    char path[512] = "";

    aiod_kept_root_set_keeping(true);
    while (strlen(path) < 400) {
        strcat(path, "/.");
    }
    memmove(path + strlen(root), path, strlen(path) + 1);
    memcpy(path, root, strlen(root));
    CHECK(has(path, "first") && !aiod_kept_root_held());
    aiod_kept_root_set_keeping(false);
}

int main(void)
{
    CHECK(mkdtemp(base) != NULL);
    snprintf(root, sizeof(root), "%s/root", base);
    snprintf(other, sizeof(other), "%s/other", base);
    snprintf(moved, sizeof(moved), "%s/moved", base);
    create(root, "first");
    create(other, "second");
    if (has(root, "first")) { /* not before Linux 5.12 */
        a_thread_that_was_not_asked_to_keeps_nothing();
        a_kept_root_is_opened_once_and_dropped();
        another_root_takes_the_place_of_the_first();
        what_takes_the_place_of_the_root_is_seen_after_some_requests();
        each_thread_has_its_own();
        a_root_with_a_long_path_is_not_kept();
    }
    scratch_remove_tree(base);
    return 0;
}
