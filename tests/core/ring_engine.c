/* ring_engine.c - the engine of ring_engine.h. */
#include "ring_engine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "aiod_ring.h"
#include "core.h"
#include "scratch.h"
#include "util/os.h"

#define CLIENTS_MAX 64
#define FILES_MAX 8
#define LOOKS_A_SNAPSHOT 64 /* more often than any scraper asks */

struct served {
    int socket; /* negative: unused */
    struct aiod_session *session;
    uint32_t entries; /* of its ring */
};

static struct {
    struct aiod_core *core;
    struct aiod_rate *exported; /* the rate of the only export */
    unsigned looks;
    struct engine_config config;
    char path[64];
    int listener;
    pthread_t thread;
    int bell;
    _Atomic bool stopping;
    unsigned collected; /* files that rings have opened */
    _Atomic unsigned broken;
    struct served clients[CLIENTS_MAX];
    unsigned client_count;

    const char *names[FILES_MAX];
    int fds[FILES_MAX];
    unsigned file_count;

    pthread_mutex_t lock;
    pthread_cond_t done;
    void (*task)(struct aiod_core *core, void *argument);
    void *argument;
} engine;

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

static void say(int socket, uint64_t cookie, int64_t result)
{
    struct aiod_ring_reply reply = {.type = AIOD_RING_REPLY, .cookie = cookie, .result = result};

    /* Otherwise the client has not read its wake-up bytes, and the engine would end its session. */
    CHECK(send(socket, &reply, sizeof(reply), MSG_NOSIGNAL | MSG_DONTWAIT) > 0 || errno != EAGAIN);
}

static void send_attached(int socket, const struct aiod_attached *attached, uint32_t entries)
{
    struct aiod_ring_attached message = {.type = AIOD_RING_ATTACHED,
                                         .version = AIOD_RING_VERSION,
                                         .memory_bytes = attached->memory_bytes,
                                         .request_bytes_max = 1 << 20,
                                         .entries = entries};
    int fds[2] = {attached->memory_fd, attached->doorbell_fd};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(fds))];
    } control = {0};
    struct iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};

    control.header =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fds))};
    memcpy(CMSG_DATA(&control.header), fds, sizeof(fds));
    sendmsg(socket, &header, MSG_NOSIGNAL);
}

static void attach(struct served *client, const struct aiod_ring_attach *message)
{
    struct aiod_limits limits = {.depth_max = 256,
                                 .batch_max = 256,
                                 .handles_max = engine.config.handles_max,
                                 .bytes_max = 32 << 20,
                                 .request_bytes_max = 1 << 20};
    uint64_t memory_bytes;
    int error;

    client->session = aiod_session_create(&limits, NULL);
    client->session->owner = client;
    client->entries = message->entries;
    error = aiod_core_attach(engine.core, client->session, client->socket, message->entries, message->area_bytes,
                             &memory_bytes);
    if (error < 0) {
        say(client->socket, 0, error);
    }
}

static void finish_attach(const struct aiod_session *session)
{
    const struct served *client = session->owner;
    struct aiod_attached attached;

    if (session->attach_error < 0) {
        say(client->socket, 0, session->attach_error);
        return;
    }
    attached = aiod_core_attached(session);
    send_attached(client->socket, &attached, client->entries);
}

static int64_t open_file(struct aiod_session *session, const char *path, unsigned flags)
{
    uint32_t alignment = engine.config.alignment;
    struct aiod_handle_use use = {.readable = (flags & 1) != 0,
                                  .writable = (flags & 2) != 0,
                                  .append = (flags & 32) != 0,
                                  .direct = alignment != 0,
                                  .rate = engine.exported,
                                  .uring = engine.config.uring,
                                  .uring_alone = engine.config.uring && !engine.config.uring_in_company,
                                  .alignment = {alignment != 0 ? alignment : 1, alignment != 0 ? alignment : 1}};

    int64_t handle;

    if (flags == AIOD_OPEN_NAMES) {
        use.writable = true;
        use.names = (struct aiod_names){.root = engine.config.root,
                                        .verbs = ~engine.config.verbs_refused,
                                        .keeping = engine.config.keeping,
                                        .creation = {.mode = 0644, .uid = (uid_t)-1, .gid = (gid_t)-1}};
        handle = aiod_core_add_names(engine.core, session, &use);
        aiod_core_lend_handles(engine.core, session, engine.config.lent);
        return handle;
    }
    for (unsigned i = 0; i < engine.file_count; i++) {
        struct stat status;
        int fd;

        if (strcmp(engine.names[i], path) != 0) {
            continue;
        }
        fd = open_again(engine.fds[i], O_RDWR | (engine.config.uring ? O_DIRECT : 0));
        CHECK(fd >= 0 && fstat(fd, &status) == 0);
        handle = aiod_core_add_handle(engine.core, session, fd, -1, status.st_dev, status.st_ino, &use, NULL);
        if (handle < 0) {
            close(fd);
        }
        return handle;
    }
    return -ENOENT;
}

static void end_client(struct served *client)
{
    close(client->socket);
    client->socket = -1;
    engine.client_count--;
    if (client->session != NULL) {
        aiod_core_end_session(engine.core, client->session);
        client->session->owner = NULL;
        aiod_session_unref(client->session);
        client->session = NULL;
    }
}

/* Register what the session's ring has opened, without a store for its descriptors. */
static void collect(struct aiod_session *session, bool all)
{
    struct aiod_handle *handle = aiod_core_collect_opened(engine.core, session, all);

    for (; handle != NULL; handle = handle->ring_next) {
        engine.collected++;
        if (handle->store_fd >= 0) {
            aiod_core_close_fd(engine.core, 0, handle->use.rate, handle->store_fd);
            handle->store_fd = -1;
        }
    }
    if (session->lent_count < engine.config.lent) {
        aiod_core_lend_handles(engine.core, session, engine.config.lent - session->lent_count);
    }
}

static void collect_old(void)
{
    struct aiod_session *session = aiod_core_sessions_to_collect(engine.core);

    for (; session != NULL; session = session->next_to_collect) {
        collect(session, false);
    }
}

static void receive(struct served *client)
{
    union {
        uint32_t type;
        struct aiod_ring_attach attach;
        struct aiod_ring_close close;
        struct {
            struct aiod_ring_open open;
            char path[256];
        } open;
        char bytes[1024];
    } message;
    ssize_t got = recv(client->socket, &message, sizeof(message) - 1, MSG_DONTWAIT);

    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got < (ssize_t)sizeof(message.type)) {
        end_client(client);
        return;
    }
    message.bytes[got] = '\0';
    if (message.type == AIOD_RING_ATTACH && client->session == NULL) {
        attach(client, &message.attach);
    } else if (message.type == AIOD_RING_OPEN) {
        say(client->socket, message.open.open.cookie,
            open_file(client->session, message.open.path + 2, message.open.open.flags));
    } else if (message.type == AIOD_RING_CLOSE) {
        uint64_t tag = (uint64_t)(client - engine.clients) << 56 | (message.close.cookie + 1);
        int error;

        collect(client->session, true);
        error = aiod_core_close_handle(engine.core, tag, client->session, message.close.handle);
        if (error < 0) {
            say(client->socket, message.close.cookie, error);
        }
    } else {
        end_client(client);
    }
}

static void accept_client(void)
{
    int socket = accept4(engine.listener, NULL, NULL, SOCK_CLOEXEC);

    CHECK(socket >= 0);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (engine.clients[i].socket < 0) {
            engine.clients[i] = (struct served){.socket = socket};
            engine.client_count++;
            return;
        }
    }
    CHECK(!"room for a client");
}

/* The parts of a counter make up the whole, whatever other threads count meanwhile. */
static void check_stats(void)
{
    struct aiod_stats all = {0};
    struct aiod_stats unnamed = {0};

    aiod_core_snapshot_stats(engine.core, &all, &unnamed);
    for (size_t op = 1; op < AIOD_OPS; op++) {
        const struct aiod_op_stats *counted = all.ops[op];
        uint64_t sum = 0;

        for (size_t i = 0; counted != NULL && i < AIOD_TRANSPORTS; i++) {
            sum += counted->by_transport[i];
        }
        CHECK(counted == NULL || sum == counted->count);
        sum = 0;
        for (size_t i = 0; counted != NULL && i < AIOD_ERRNOS; i++) {
            sum += counted->by_errno[i];
        }
        CHECK(counted == NULL || sum == counted->errors);
    }
    aiod_export_stats_end(engine.core->exports);
    aiod_stats_destroy(&all);
    aiod_stats_destroy(&unnamed);
}

/* Requests start and end while the main loop inspects them, as in the engine. */
static void look(void)
{
    struct aiod_active_request_info views[16];
    size_t count = aiod_core_find_slow(engine.core, views, 8);

    count += aiod_core_active_requests(engine.core, views + count, 8);
    for (size_t i = 0; i < count; i++) {
        CHECK(views[i].op > 0 && views[i].op < AIOD_OPS);
        CHECK(views[i].handle == NULL || views[i].handle->session->client[0] == '\0');
    }
    if (engine.looks++ % LOOKS_A_SNAPSHOT == 0) {
        check_stats();
    }
}

static void reap(void)
{
    struct aiod_reaped reaped;

    look();
    aiod_core_reap(engine.core, &reaped);
    CHECK(reaped.replies == NULL);
    while (reaped.controls != NULL) {
        struct aiod_control *next = (struct aiod_control *)reaped.controls->task.request.next;
        struct served *client = &engine.clients[reaped.controls->tag >> 56];

        if (client->socket >= 0) {
            say(client->socket, (reaped.controls->tag & (UINT64_MAX >> 8)) - 1, 0);
        }
        aiod_control_destroy(reaped.controls);
        reaped.controls = next;
    }
    for (struct aiod_handle *handle = reaped.to_close; handle != NULL;) {
        struct aiod_handle *next = handle->next_to_close; /* the close may free the handle */

        CHECK(aiod_core_close_handle(engine.core, 0, handle->session, handle->number) == 0);
        handle = next;
    }
    for (struct aiod_session *session = reaped.attached; session != NULL; session = session->next_attached) {
        finish_attach(session);
    }
    for (struct aiod_session *session = reaped.broken; session != NULL; session = session->next_broken) {
        if (session->owner != NULL) {
            engine.broken++;
            end_client(session->owner);
        }
    }
}

static void run_task(void)
{
    pthread_mutex_lock(&engine.lock);
    if (engine.task != NULL) {
        engine.task(engine.core, engine.argument);
        engine.task = NULL;
        pthread_cond_broadcast(&engine.done);
    }
    pthread_mutex_unlock(&engine.lock);
}

static void turn(void)
{
    struct pollfd fds[CLIENTS_MAX + 5] = {
        {.fd = aiod_pool_doorbell_fd(engine.core->pool), .events = POLLIN},
        {.fd = aiod_pool_completion_fd(engine.core->pool), .events = POLLIN},
        {.fd = engine.listener, .events = POLLIN},
        {.fd = engine.bell, .events = POLLIN},
    };
    uint64_t wanted_ns = aiod_pool_tick_wanted(engine.core->pool);

    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        fds[4 + i] = (struct pollfd){.fd = engine.clients[i].socket, .events = POLLIN};
    }
    fds[CLIENTS_MAX + 4] = (struct pollfd){.fd = engine.core->collect_timer.fd, .events = POLLIN};
    CHECK(poll(fds, CLIENTS_MAX + 5, wanted_ns == AIOD_POOL_NEVER ? -1 : (int)(wanted_ns / 1000000) + 1) >= 0);
    if (fds[0].revents != 0) {
        aiod_pool_spawn(engine.core->pool);
    }
    aiod_pool_tick(engine.core->pool);
    reap();
    if (fds[3].revents != 0) {
        aiod_eventfd_clear(engine.bell);
    }
    run_task();
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (fds[4 + i].revents != 0 && engine.clients[i].socket == fds[4 + i].fd && fds[4 + i].fd >= 0) {
            receive(&engine.clients[i]);
        }
    }
    if (fds[2].revents != 0) {
        accept_client();
    }
    if (fds[CLIENTS_MAX + 4].revents != 0) {
        collect_old();
    }
}

static void *serve(void *unused)
{
    (void)unused;
    while (!engine.stopping) {
        turn();
    }
    return NULL;
}

/* ---- the test's thread ------------------------------------------------------------------------------------------- */

const char *engine_start(const struct engine_config *config)
{
    struct aiod_core_config core_config = {
        .pool = {.name = "main",
                 .max_threads = config->max_threads,
                 .idle_timeout_ns = 1000000000,
                 .spawn_retry_ns = 1000000000},
        .inline_read_max = config->inline_read_max,
        .buffer_cache_max = 1 << 20,
        .poll_max_ns = config->poll_max_ns,
        .rings_max = CLIENTS_MAX,
    };
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(&engine, 0, sizeof(engine));
    engine.config = *config;
    pthread_mutex_init(&engine.lock, NULL);
    pthread_cond_init(&engine.done, NULL);
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        engine.clients[i].socket = -1;
    }
    CHECK(aiod_core_create(&engine.core, &core_config) == 0);
    if (config->notice_socket > 0) {
        engine.core->files.notice_fd = config->notice_socket;
    }
    engine.exported = aiod_rate_create();
    aiod_core_set_slow_limits(engine.core, 1, 0);
    engine.bell = aiod_eventfd_create();
    snprintf(engine.path, sizeof(engine.path), "/tmp/aiod-ring-test-%d.sock", (int)getpid());
    unlink(engine.path);
    memcpy(address.sun_path, engine.path, sizeof(engine.path));
    engine.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(bind(engine.listener, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
          listen(engine.listener, 64) == 0);
    CHECK(pthread_create(&engine.thread, NULL, serve, NULL) == 0);
    return engine.path;
}

void engine_add_file(const char *name, int fd)
{
    engine.names[engine.file_count] = name;
    engine.fds[engine.file_count++] = fd;
}

/* Run `task` on the main loop's thread, and wait for it. */
static void engine_run(void (*task)(struct aiod_core *core, void *argument), void *argument)
{
    pthread_mutex_lock(&engine.lock);
    engine.task = task;
    engine.argument = argument;
    aiod_eventfd_ring(engine.bell);
    while (engine.task != NULL) {
        pthread_cond_wait(&engine.done, &engine.lock);
    }
    pthread_mutex_unlock(&engine.lock);
}

struct blocker {
    struct aiod_control control; /* first */
    struct gate *gate;
};

static int64_t pass_gate(struct aiod_request *request)
{
    gate_pass(((struct blocker *)request)->gate);
    return 0;
}

static void submit_blocker(struct aiod_core *core, void *argument)
{
    struct blocker *blocker = calloc(1, sizeof(*blocker));

    blocker->control.task.kind = AIOD_TASK_CONTROL;
    blocker->control.task.request.run = pass_gate;
    blocker->control.op = AIOD_CLOSE;
    blocker->gate = argument;
    core->inflight++;
    aiod_pool_submit(core->pool, &blocker->control.task.request, 1);
}

void engine_block_worker(struct gate *gate)
{
    gate_init(gate, false);
    engine_run(submit_blocker, gate);
    gate_wait_for(gate, 1);
}

static void count_taken(struct aiod_core *core, void *argument)
{
    uint32_t *taken = argument;

    *taken = aiod_core_inflight(core) - core->inflight;
}

static void get_pool_stats(struct aiod_core *core, void *argument)
{
    aiod_pool_get_stats(core->pool, argument);
}

struct aiod_pool_stats engine_pool_stats(void)
{
    struct aiod_pool_stats stats;

    engine_run(get_pool_stats, &stats);
    return stats;
}

void engine_wait_idle(unsigned count)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);
    struct aiod_pool_stats stats = {.active_threads = 1};

    while (stats.active_threads > 0 || stats.waking_threads > 0 || stats.idle_threads < count) {
        CHECK(aiod_now_ns() < end_ns);
        engine_run(get_pool_stats, &stats);
    }
}

void engine_wait_taken(uint32_t count)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);
    uint32_t taken = 0;

    while (taken < count) {
        CHECK(aiod_now_ns() < end_ns);
        engine_run(count_taken, &taken);
    }
}

static void drain(struct aiod_core *core, void *unused)
{
    (void)unused;
    aiod_core_drain(core);
}

static void get_collected(struct aiod_core *core, void *argument)
{
    (void)core;
    *(unsigned *)argument = engine.collected;
}

unsigned engine_collected(void)
{
    unsigned collected;

    engine_run(get_collected, &collected);
    return collected;
}

void engine_drain(void)
{
    engine_run(drain, NULL);
}

static void look_whether_empty(struct aiod_core *core, void *argument)
{
    bool *empty = argument;

    *empty = engine.client_count == 0 && core->ring_count == 0 && core->files.descriptors == 0 &&
             aiod_core_inflight(core) == 0;
}

void engine_wait_empty(void)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);
    bool empty = false;

    while (!empty) {
        CHECK(aiod_now_ns() < end_ns);
        engine_run(look_whether_empty, &empty);
    }
}

static void count_rings(struct aiod_core *core, void *argument)
{
    unsigned *counts = argument;

    counts[0] = core->ring_count;
    counts[1] = engine.client_count;
}

void engine_wait_rings(unsigned rings, unsigned clients)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);
    unsigned counts[2];

    do {
        CHECK(aiod_now_ns() < end_ns);
        engine_run(count_rings, counts);
    } while (counts[0] != rings || counts[1] != clients);
}

unsigned engine_broken(void)
{
    return engine.broken;
}

void engine_stop(void)
{
    engine_wait_empty();
    engine.stopping = true;
    aiod_eventfd_ring(engine.bell);
    pthread_join(engine.thread, NULL);
    CHECK(aiod_core_stop(engine.core, WAIT_MS * UINT64_C(1000000)));
    CHECK(engine.core->ring_bytes == 0);
    aiod_core_destroy(engine.core);
    aiod_rate_unref(engine.exported);
    close(engine.listener);
    close(engine.bell);
    unlink(engine.path);
}
