/* A pool that cannot be created returns the error, and leaks nothing. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>

static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    CHECK(fd >= 0 && close(fd) == 0);
    return fd;
}

static int attempt(unsigned max_threads, unsigned min_threads)
{
    struct aiod_pool_config config = {.name = "main", .max_threads = max_threads, .min_threads = min_threads};
    struct aiod_pool *pool = NULL;
    int error = aiod_pool_create(&pool, &config);

    CHECK((error == 0) == (pool != NULL));
    if (error == 0) {
        end_pool(pool);
    }
    return error;
}

static void wrong_limits_are_refused(void)
{
    CHECK(attempt(0, 0) == -EINVAL);
    CHECK(attempt(4, 5) == -EINVAL);
    CHECK(attempt(AIOD_THREADS_MAX + 1, 0) == -EINVAL);
    CHECK(attempt(AIOD_THREADS_MAX, AIOD_THREADS_MAX) == 0);
}

/* The pool needs two descriptors; the limit permits none, one, and both. */
static void missing_descriptors_are_reported(void)
{
    int first = dup(0);
    int second = dup(0);
    struct rlimit before;

    CHECK(first >= 0 && second > first && close(first) == 0 && close(second) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    for (int had = 0; had <= 2; had++) {
        int limit = had == 0 ? first : had == 1 ? second : second + 1;
        struct rlimit few = {.rlim_cur = (rlim_t)limit, .rlim_max = before.rlim_max};

        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        CHECK(attempt(4, 0) == (had < 2 ? -EMFILE : 0));
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    }
}

int main(void)
{
    int free_fd = next_fd();

    faults_install();
    wrong_limits_are_refused();
    missing_descriptors_are_reported();
    CHECK(next_fd() == free_fd);
    return 0;
}
