/* A forked child cannot use its parent's client, and leaves the parent's session and memory intact. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "aiod.h"
#include "check.h"
#include "ring_engine.h"
#include "scratch.h"

static struct aiod_client *client;
static uint32_t handle;
static char *buffer;

static void use(void)
{
    char data[6];

    CHECK(aiod_pwrite(client, handle, "parent", 6, 0, AIOD_NO_TIMEOUT) == 6);
    CHECK(aiod_pread(client, handle, data, 6, 0, AIOD_NO_TIMEOUT) == 6 && memcmp(data, "parent", 6) == 0);
}

/* Run `child` in a forked process; returns its wait status. */
static int status_of(void (*child)(void))
{
    pid_t pid = fork();
    int status;

    CHECK(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); /* remove a sanitizer's handler */
        child();
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void do_nothing(void)
{
}

static void touch_the_buffer(void)
{
    *(volatile char *)buffer = 'c';
}

static void use_the_client(void)
{
    struct aiod_op op = {.op = AIOD_RING_FLUSH, .handle = handle};
    struct aiod_op *one = &op;
    char data[6];

    CHECK(aiod_forked(client));
    CHECK(aiod_submit(client, &one, 1) == -EBADF);
    CHECK(strstr(aiod_error(), "before fork()") != NULL);
    CHECK(aiod_reap(client, &one, 1) == 0);
    CHECK(aiod_wait_any(client, AIOD_NO_TIMEOUT) == -EBADF);
    CHECK(aiod_wait_count(client, 0, AIOD_NO_TIMEOUT) == -EBADF);
    CHECK(aiod_pread(client, handle, data, 6, 0, AIOD_NO_TIMEOUT) == -EBADF);
    CHECK(aiod_flush(client, handle, AIOD_NO_TIMEOUT) == -EBADF);
    CHECK(aiod_open(client, "x/file", AIOD_OPEN_READ, 0) == -EBADF);
    CHECK(aiod_close(client, handle) == -EBADF);
    CHECK(aiod_ended(client) == EBADF && aiod_last_word(client) == 0);
    CHECK(aiod_alloc(client, 1) == NULL && !aiod_in_area(client, buffer, 1));
    CHECK(!aiod_arm(client));
    aiod_disarm(client);
    aiod_free(client, buffer);
    aiod_shutdown(client);
}

static void disconnect(void)
{
    aiod_disconnect(client);
}

static void a_child_leaves_the_parent_working(const struct aiod_options *options)
{
    struct engine_config config = {.inline_read_max = 65536, .max_threads = 4, .handles_max = 16};
    int file = scratch_file(O_RDWR);
    int64_t opened;

    CHECK(aiod_attach(&client, engine_start(&config), options) == 0);
    engine_add_file("file", file);
    opened = aiod_open(client, "x/file", AIOD_OPEN_READ | AIOD_OPEN_WRITE, 0);
    CHECK(opened > 0);
    handle = (uint32_t)opened;
    buffer = aiod_alloc(client, 4096);
    CHECK(buffer != NULL && aiod_fd(client) >= 0 && !aiod_forked(client));
    *buffer = 'p';
    use();
    CHECK(status_of(do_nothing) == 0);
    CHECK(WTERMSIG(status_of(touch_the_buffer)) == SIGSEGV);
    CHECK(status_of(use_the_client) == 0);
    CHECK(status_of(disconnect) == 0);
    CHECK(*buffer == 'p');
    use();
    aiod_disconnect(client);
    engine_stop();
    close(file);
}

int main(void)
{
    faults_install();
    a_child_leaves_the_parent_working(NULL);
    a_child_leaves_the_parent_working(&(struct aiod_options){.reconnect_timeout_ms = 1000});
    return 0;
}
