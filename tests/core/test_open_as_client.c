/*
 * Opens and directory operations with a client's identity have its permissions and no others; all other threads keep
 * the daemon's.
 */
#include "check.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core.h"
#include "scratch.h"

enum {
    ALICE = 12001,
    BOB = 12002,
    STAFF = 12100,
    ROUNDS = 300
};

static struct aiod_core *core;
static char base[] = "/var/tmp/aiod-core-test-XXXXXX";
static int64_t results[8192];
static size_t result_count;

static const struct aiod_creation plain = {.mode = 0640, .uid = (uid_t)-1, .gid = (gid_t)-1};

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static struct aiod_identity *user(uid_t uid)
{
    static const gid_t staff[] = {STAFF};
    struct aiod_identity *identity = aiod_identity_create(uid, uid, staff, uid == ALICE ? 1 : 0);

    CHECK(identity != NULL);
    return identity;
}

/* Requests start and end while the main loop inspects them, as in the engine. */
static void look(void)
{
    struct aiod_active_request_info views[16];
    size_t count = aiod_core_find_slow(core, views, 8);

    count += aiod_core_active_requests(core, views + count, 8);
    for (size_t i = 0; i < count; i++) {
        CHECK(views[i].op > 0 && views[i].op < AIOD_OPS);
        CHECK(views[i].handle == NULL || views[i].handle->session->client[0] == '\0');
    }
}

static void reap(void)
{
    struct aiod_reaped reaped;

    look();
    loop_wait(core->pool, 1);
    aiod_pool_spawn(core->pool);
    aiod_core_reap(core, &reaped);
    while (reaped.controls != NULL) {
        struct aiod_control *next = (struct aiod_control *)reaped.controls->task.request.next;

        results[reaped.controls->tag] = reaped.controls->task.request.result;
        result_count++;
        aiod_control_destroy(reaped.controls);
        reaped.controls = next;
    }
}

static int64_t result_of(uint64_t tag)
{
    size_t before = result_count;

    while (result_count == before) {
        reap();
    }
    return results[tag];
}

/* The result of opening `path` as `as`: 0, or -errno. */
static int64_t attempt(const char *path, unsigned flags, struct aiod_identity *as)
{
    int64_t result;

    CHECK(aiod_core_open(core, 1, AIOD_BY_IPC, NULL, base, path, flags, &plain, as, 0) == 0);
    result = result_of(1);
    if (result >= 0) {
        close((int)result);
    }
    return result < 0 ? result : 0;
}

static int64_t name(enum aiod_verb verb, const char *path, struct aiod_identity *as)
{
    struct aiod_directory_op *directory_op = aiod_directory_op_create(verb, base, path, "target");

    CHECK(directory_op != NULL);
    directory_op->mode = 0755;
    CHECK(aiod_core_directory_op(core, 2, AIOD_BY_IPC, NULL, directory_op, as, 0) == 0);
    return result_of(2);
}

/* ---- the files --------------------------------------------------------------------------------------------------- */

static const char *in_base(const char *path)
{
    static char full[2][256];
    static int turn;

    turn = 1 - turn;
    CHECK(snprintf(full[turn], sizeof(full[0]), "%s/%s", base, path) < (int)sizeof(full[0]));
    return full[turn];
}

static void put(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
    int fd = open(in_base(path), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

    CHECK(fd >= 0 && fchown(fd, uid, gid) == 0 && fchmod(fd, mode) == 0 && close(fd) == 0);
}

static void create_files(void)
{
    CHECK(mkdtemp(base) != NULL && chmod(base, 0777) == 0);
    put("roots", 0, 0, 0600);
    put("alices", ALICE, ALICE, 0600);
    put("staffs", 0, STAFF, 0640);
    put("everybodys", 0, 0, 0644);
    CHECK(mkdir(in_base("closed"), 0700) == 0);
    put("closed/open", 0, 0, 0666);
}

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

static void the_clients_permissions_apply(void)
{
    CHECK(attempt("alices", AIOD_OPEN_READ | AIOD_OPEN_WRITE, user(ALICE)) == 0);
    CHECK(attempt("alices", AIOD_OPEN_READ, user(BOB)) == -EACCES);
    CHECK(attempt("roots", AIOD_OPEN_READ, user(ALICE)) == -EACCES);
    CHECK(attempt("roots", AIOD_OPEN_READ, NULL) == 0);
    CHECK(attempt("staffs", AIOD_OPEN_READ, user(ALICE)) == 0);
    CHECK(attempt("staffs", AIOD_OPEN_READ | AIOD_OPEN_WRITE, user(ALICE)) == -EACCES);
    CHECK(attempt("staffs", AIOD_OPEN_READ, user(BOB)) == -EACCES);
    CHECK(attempt("everybodys", AIOD_OPEN_READ, user(BOB)) == 0);
    CHECK(attempt("everybodys", AIOD_OPEN_WRITE | AIOD_OPEN_TRUNCATE, user(BOB)) == -EACCES);
    CHECK(attempt("closed/open", AIOD_OPEN_READ, user(BOB)) == -EACCES);
    /* As root, but without the capabilities that override permissions; root owns these files. */
    CHECK(attempt("closed/open", AIOD_OPEN_READ, user(0)) == 0);
    CHECK(attempt("alices", AIOD_OPEN_READ, user(0)) == -EACCES);
}

static void new_files_belong_to_the_client(void)
{
    struct stat status;

    CHECK(attempt("made", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, user(ALICE)) == 0);
    CHECK(stat(in_base("made"), &status) == 0 && status.st_uid == ALICE && status.st_gid == ALICE);
    CHECK(name(AIOD_VERB_MKDIR, "directory", user(BOB)) == 0);
    CHECK(stat(in_base("directory"), &status) == 0 && status.st_uid == BOB);
    CHECK(attempt("directory/new", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, user(ALICE)) == -EACCES);
    CHECK(name(AIOD_VERB_LIST, "closed", user(ALICE)) == -EACCES);
    CHECK(name(AIOD_VERB_REMOVE, "directory/none", user(ALICE)) == -ENOENT);
    CHECK(chmod(base, 0755) == 0);
    CHECK(name(AIOD_VERB_REMOVE, "made", user(ALICE)) == -EACCES);
    CHECK(chmod(base, 0777) == 0);
    CHECK(name(AIOD_VERB_REMOVE, "made", user(ALICE)) == 0 && name(AIOD_VERB_RMDIR, "directory", user(BOB)) == 0);
}

static void attributes_are_changed_by_their_owner(void)
{
    struct stat status;

    CHECK(name(AIOD_VERB_CHMOD, "alices", user(BOB)) == -EPERM && name(AIOD_VERB_UTIME, "alices", user(BOB)) == -EPERM);
    CHECK(name(AIOD_VERB_CHMOD, "alices", user(0)) == -EPERM);
    CHECK(name(AIOD_VERB_CHMOD, "alices", user(ALICE)) == 0 && name(AIOD_VERB_UTIME, "alices", user(ALICE)) == 0);
    CHECK(stat(in_base("alices"), &status) == 0 && (status.st_mode & 07777) == 0755 && status.st_mtime == 0);
    CHECK(name(AIOD_VERB_SYMLINK, "closed/link", user(ALICE)) == -EACCES);
    CHECK(name(AIOD_VERB_SYMLINK, "link", user(ALICE)) == 0 && lstat(in_base("link"), &status) == 0);
    CHECK(status.st_uid == ALICE && unlink(in_base("link")) == 0);
    CHECK(name(AIOD_VERB_RMTREE, "closed", user(ALICE)) == -EACCES);
    CHECK(name(AIOD_VERB_LSTAT, "closed/open", user(ALICE)) == -EACCES);
    CHECK(chmod(in_base("alices"), 0600) == 0);
}

/* The line of the thread's `file` that begins with `head`. False: the thread has ended. */
static bool line_of(const char *tid, const char *file, const char *head, char *line, size_t size)
{
    char path[64];
    FILE *stream;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/self/task/%.20s/%s", tid, file);
    stream = fopen(path, "r");
    if (stream == NULL) {
        return false;
    }
    while (!found && fgets(line, (int)size, stream) != NULL) {
        found = strncmp(line, head, strlen(head)) == 0;
    }
    fclose(stream);
    return found;
}

/* Are all its uids (real, effective, saved, file system) root's? */
static bool is_only_root(const char *tid)
{
    unsigned uids[4];
    char line[256];

    return !line_of(tid, "status", "Uid:", line, sizeof(line)) ||
           (sscanf(line, "Uid: %u %u %u %u", &uids[0], &uids[1], &uids[2], &uids[3]) == 4 &&
            (uids[0] | uids[1] | uids[2] | uids[3]) == 0);
}

static bool is_opener(const char *tid)
{
    char line[32];

    return line_of(tid, "comm", "aiod-o/", line, sizeof(line));
}

/* No other thread ever has the client's identity: neither the main loop nor a worker that is created meanwhile. */
static void check_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;

    CHECK(tasks != NULL);
    while ((task = readdir(tasks)) != NULL) {
        CHECK(task->d_name[0] == '.' || is_opener(task->d_name) || is_only_root(task->d_name));
    }
    closedir(tasks);
}

static void no_other_thread_changes_its_identity(void)
{
    size_t before = result_count;

    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < 8; i++) {
            uid_t uid = i % 2 == 0 ? ALICE : BOB;

            CHECK(aiod_core_open(core, 100 + i, AIOD_BY_IPC, NULL, base, "alices", AIOD_OPEN_READ, &plain, user(uid),
                                 0) == 0);
            CHECK(aiod_core_open(core, 200 + i, AIOD_BY_IPC, NULL, base, "roots", AIOD_OPEN_READ, &plain, NULL, 0) ==
                  0); /* on workers */
        }
        check_threads();
        while (result_count < before + 16) {
            reap();
        }
        for (unsigned i = 0; i < 8; i++) {
            CHECK(i % 2 == 0 ? results[100 + i] >= 0 : results[100 + i] == -EACCES);
            CHECK(results[200 + i] >= 0);
            close((int)results[200 + i]);
            if (results[100 + i] >= 0) {
                close((int)results[100 + i]);
            }
        }
        before = result_count;
    }
}

static void late_requests_are_not_executed(void)
{
    size_t before = result_count;

    for (unsigned i = 0; i < 64; i++) {
        CHECK(aiod_core_open(core, 300 + i, AIOD_BY_IPC, NULL, base, "late", AIOD_OPEN_WRITE | AIOD_OPEN_CREATE, &plain,
                             user(ALICE), 1) == 0);
    }
    while (result_count < before + 64) {
        reap();
    }
    for (unsigned i = 0; i < 64; i++) {
        CHECK(results[300 + i] == -ETIMEDOUT);
    }
    CHECK(aiod_open_as_client_threads_waiting(&core->open_as_client) == 0);
    CHECK(attempt("late", AIOD_OPEN_READ, user(ALICE)) == -ENOENT);
}

static void a_stop_cancels_waiting_requests(void)
{
    size_t before = result_count;

    for (unsigned i = 0; i < 64; i++) {
        CHECK(aiod_core_open(core, 300 + i, AIOD_BY_IPC, NULL, base, "alices", AIOD_OPEN_READ, &plain, user(ALICE),
                             0) == 0);
    }
    CHECK(aiod_core_stop(core, WAIT_MS * UINT64_C(1000000)));
    while (result_count < before + 64) {
        reap();
    }
    for (unsigned i = 0; i < 64; i++) {
        CHECK(results[300 + i] >= 0 || results[300 + i] == -ECANCELED);
        if (results[300 + i] >= 0) {
            close((int)results[300 + i]);
        }
    }
}

static void remove_files(void)
{
    static const char *const names[] = {"roots", "alices", "staffs", "everybodys", "closed/open"};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        CHECK(unlink(in_base(names[i])) == 0);
    }
    CHECK(rmdir(in_base("closed")) == 0 && rmdir(base) == 0);
}

int main(void)
{
    struct aiod_core_config config = {
        .pool = {.name = "test", .max_threads = 8, .idle_timeout_ns = 1000000, .spawn_retry_ns = SPAWN_RETRY_NS},
        .rings_max = 1};

    if (geteuid() != 0) {
        puts("only root can become somebody else");
        return STATUS_SKIPPED;
    }
    faults_install();
    umask(022);
    CHECK(aiod_core_create(&core, &config) == 0);
    aiod_core_set_slow_limits(core, 1, 0);
    create_files();
    the_clients_permissions_apply();
    new_files_belong_to_the_client();
    attributes_are_changed_by_their_owner();
    no_other_thread_changes_its_identity();
    late_requests_are_not_executed();
    a_stop_cancels_waiting_requests();
    aiod_core_destroy(core);
    remove_files();
    return 0;
}
