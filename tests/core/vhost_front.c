#include "vhost_front.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core_vhost.h"
#include "ring/poller.h"
#include "scratch.h"
#include "vhost/device.h"
#include "vhost/messages.h"

static struct {
    struct aiod_core *core;
    struct aiod_session *session;
    struct aiod_rate *rate;
    char line[256];
} engine;

/* ---- the engine -------------------------------------------------------------------------------------------------- */

int front_engine_start(uint64_t inline_read_max)
{
    const struct aiod_core_config config = {
        .pool = {.name = "main", .max_threads = 4, .idle_timeout_ns = 1000000000, .spawn_retry_ns = 1000000000},
        .inline_read_max = inline_read_max,
        .buffer_cache_max = 1 << 20,
        .poll_max_ns = 50000,
        .rings_max = 4,
    };
    const struct aiod_limits limits = {.depth_max = 1, .batch_max = 1, .handles_max = 1, .bytes_max = 1};
    const struct aiod_blk blk = {.queue_count = 2, .block_bytes = 512, .serial = "test"};
    int fd = scratch_file(0);
    struct aiod_handle_use use = {
        .readable = true, .writable = true, .alignment = {.memory = 1, .offset = 1}, .name = "x/disk"};
    struct stat status;
    int64_t handle;

    CHECK(ftruncate(fd, FRONT_SECTORS * 512) == 0 && fstat(fd, &status) == 0);
    CHECK(aiod_core_create(&engine.core, &config) == 0);
    engine.session = aiod_session_create(&limits, NULL);
    engine.rate = aiod_rate_create();
    use.rate = engine.rate;
    handle = aiod_core_add_handle(engine.core, engine.session, open_again(fd, O_RDWR), -1, status.st_dev, status.st_ino,
                                  &use, NULL);
    CHECK(handle > 0);
    CHECK(aiod_core_serve_vhost(engine.core, engine.session, (uint32_t)handle, &blk) == 0);
    return fd;
}

struct aiod_core *front_core(void)
{
    return engine.core;
}

static void reap(void)
{
    struct aiod_reaped reaped;

    aiod_core_reap(engine.core, &reaped);
    CHECK(reaped.replies == NULL && reaped.controls == NULL && reaped.broken == NULL && reaped.attached == NULL);
}

void front_turn(void)
{
    struct pollfd fds[] = {
        {.fd = aiod_pool_doorbell_fd(engine.core->pool), .events = POLLIN},
        {.fd = aiod_pool_completion_fd(engine.core->pool), .events = POLLIN},
        {.fd = aiod_core_vhost_fd(engine.core), .events = POLLIN},
    };
    const char *line;

    CHECK(poll(fds, 3, 1) >= 0);
    aiod_pool_spawn(engine.core->pool);
    aiod_pool_tick(engine.core->pool);
    reap();
    aiod_core_vhost_step(engine.core);
    while ((line = aiod_core_vhost_log_line(engine.core)) != NULL) {
        snprintf(engine.line, sizeof(engine.line), "%s", line);
    }
}

const char *front_last_line(void)
{
    return engine.line;
}

void front_until(bool (*done)(void *argument), void *argument)
{
    uint64_t end_ns = aiod_now_ns() + (uint64_t)WAIT_MS * 1000000;

    while (!done(argument)) {
        CHECK(aiod_now_ns() < end_ns);
        front_turn();
    }
}

static bool is_free(void *unused)
{
    (void)unused;
    return aiod_core_vhost_status(engine.core).free;
}

static bool is_idle(void *unused)
{
    (void)unused;
    return aiod_core_inflight(engine.core) == 0;
}

/* An engine leaves the device and its handle to the end of the process; here they are freed first. */
static void free_device(void)
{
    struct aiod_handle *handle = engine.core->vhost->backend.handle;

    aiod_poller_stop(engine.core->poller);
    aiod_vhost_device_destroy(engine.core->vhost);
    engine.core->vhost = NULL;
    aiod_core_release_handle(engine.core, handle);
    aiod_core_end_session(engine.core, engine.session);
}

static void turn_without_device(void)
{
    aiod_pool_spawn(engine.core->pool);
    aiod_pool_tick(engine.core->pool);
    reap();
    sched_yield();
}

void front_engine_stop(void)
{
    aiod_core_vhost_disconnect(engine.core);
    front_until(is_free, NULL);
    free_device();
    while (!is_idle(NULL)) {
        turn_without_device();
    }
    CHECK(aiod_core_stop(engine.core, (uint64_t)WAIT_MS * 1000000));
    reap();
    aiod_session_unref(engine.session);
    aiod_core_destroy(engine.core);
    aiod_rate_unref(engine.rate);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

void front_send(struct front *front, uint32_t kind, const void *payload, size_t bytes, int fd)
{
    (void)!aiod_vhost_send(front->socket, kind, 0, payload, bytes, fd);
}

static bool is_readable(void *argument)
{
    struct pollfd fd = {.fd = ((struct front *)argument)->socket, .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

bool front_is_connected(struct front *front)
{
    char byte;

    front_turn();
    return recv(front->socket, &byte, 1, MSG_DONTWAIT | MSG_PEEK) != 0;
}

int front_ask(struct front *front, uint32_t kind, void *payload, size_t bytes, int fd, int *answer_fd)
{
    struct aiod_vhost_header header;
    struct iovec part = {.iov_base = &header, .iov_len = sizeof(header)};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    ssize_t got;

    front_send(front, kind, payload, bytes, fd);
    front_until(is_readable, front);
    got = recvmsg(front->socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got <= 0) {
        return -1;
    }
    CHECK(got == sizeof(header) && header.kind == kind && header.flags == (AIOD_VHOST_VERSION | AIOD_VHOST_REPLY));
    if (answer_fd != NULL) {
        CHECK(CMSG_FIRSTHDR(&message) != NULL);
        memcpy(answer_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    }
    if (header.bytes > 0) {
        CHECK(recv(front->socket, payload, header.bytes, MSG_WAITALL) == (ssize_t)header.bytes);
    }
    return (int)header.bytes;
}

void front_connect(struct front *front)
{
    int sockets[2];

    if (front->memory == NULL) {
        front->memory_fd = memfd_create("guest", MFD_CLOEXEC);
        CHECK(front->memory_fd >= 0 && ftruncate(front->memory_fd, (off_t)FRONT_BYTES) == 0);
        front->memory = mmap(NULL, FRONT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, front->memory_fd, 0);
        CHECK(front->memory != MAP_FAILED);
        front->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        front->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        front->inflight_fd = -1;
    }
    front_until(is_free, NULL);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
    front->socket = sockets[0];
    CHECK(aiod_core_vhost_connect(engine.core, sockets[1]) == 0);
}

static void send_state(struct front *front, uint32_t kind, uint32_t number)
{
    const struct aiod_vhost_queue_state state = {.queue = 0, .number = number};

    front_send(front, kind, &state, sizeof(state), -1);
}

static void set_up_inflight(struct front *front)
{
    if (front->inflight_fd < 0) {
        front->inflight = (struct aiod_vhost_inflight){.queue_count = 1, .queue_size = FRONT_SIZE};
        CHECK(front_ask(front, AIOD_VHOST_GET_INFLIGHT_FD, &front->inflight, AIOD_VHOST_INFLIGHT_BYTES, -1,
                        &front->inflight_fd) == (int)AIOD_VHOST_INFLIGHT_BYTES);
    }
    front_send(front, AIOD_VHOST_SET_INFLIGHT_FD, &front->inflight, AIOD_VHOST_INFLIGHT_BYTES, front->inflight_fd);
}

void front_set_up(struct front *front)
{
    const struct aiod_vhost_memory memory = {
        .count = 1, .regions = {{.guest = FRONT_GUEST, .bytes = FRONT_BYTES, .user = FRONT_USER}}};
    const struct aiod_vhost_queue_address address = {.descriptors = FRONT_USER + FRONT_DESCRIPTORS,
                                                     .available = FRONT_USER + FRONT_AVAILABLE,
                                                     .used = FRONT_USER + FRONT_USED};
    const struct vring_used *used = (const struct vring_used *)(const void *)(front->memory + FRONT_USED);
    const uint64_t protocol = UINT64_C(1) << AIOD_VHOST_PROTOCOL_F_MQ | UINT64_C(1) << AIOD_VHOST_PROTOCOL_F_CONFIG |
                              UINT64_C(1) << AIOD_VHOST_PROTOCOL_F_INFLIGHT_SHMFD;
    uint64_t features = 0;
    uint64_t number = 0;

    CHECK(front_ask(front, AIOD_VHOST_GET_FEATURES, &features, 0, -1, NULL) == 8);
    features &= ~front->features; /* those to do without */
    front_send(front, AIOD_VHOST_SET_PROTOCOL_FEATURES, &protocol, sizeof(protocol), -1);
    set_up_inflight(front);
    front_send(front, AIOD_VHOST_SET_FEATURES, &features, sizeof(features), -1);
    front_send(front, AIOD_VHOST_SET_MEM_TABLE, &memory, 8 + sizeof(memory.regions[0]), front->memory_fd);
    send_state(front, AIOD_VHOST_SET_VRING_NUM, FRONT_SIZE);
    send_state(front, AIOD_VHOST_SET_VRING_BASE, __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE));
    front_send(front, AIOD_VHOST_SET_VRING_ADDR, &address, sizeof(address), -1);
    front_send(front, AIOD_VHOST_SET_VRING_KICK, &number, sizeof(number), front->kick);
    front_send(front, AIOD_VHOST_SET_VRING_CALL, &number, sizeof(number), front->call);
    send_state(front, AIOD_VHOST_SET_VRING_ENABLE, 1);
}

void front_disconnect(struct front *front)
{
    close(front->socket);
    front_until(is_free, NULL);
}

void front_destroy(struct front *front)
{
    munmap(front->memory, FRONT_BYTES);
    close(front->memory_fd);
    close(front->kick);
    close(front->call);
    if (front->inflight_fd >= 0) {
        close(front->inflight_fd);
    }
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

char *front_data(struct front *front, uint16_t number)
{
    return front->memory + FRONT_DATA + number * 4096u;
}

void front_submit(struct front *front, uint16_t number, uint32_t type, uint64_t sector, uint32_t bytes)
{
    struct vring_desc *descriptors = (struct vring_desc *)(void *)(front->memory + FRONT_DESCRIPTORS);
    struct vring_avail *available = (struct vring_avail *)(void *)(front->memory + FRONT_AVAILABLE);
    struct virtio_blk_outhdr header = {.type = type, .sector = sector};
    uint16_t writes = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID ? VRING_DESC_F_WRITE : 0;
    uint16_t at = (uint16_t)(3 * number); /* up to 5 requests with 3 descriptors each */

    CHECK(at + 2u < FRONT_SIZE);
    memcpy(front->memory + FRONT_HEADERS + number * 16u, &header, sizeof(header));
    front->memory[FRONT_STATUSES + number] = 77;
    descriptors[at] = (struct vring_desc){.addr = FRONT_GUEST + FRONT_HEADERS + number * 16u,
                                          .len = 16,
                                          .flags = VRING_DESC_F_NEXT,
                                          .next = (uint16_t)(bytes > 0 ? at + 1 : at + 2)};
    descriptors[at + 1] = (struct vring_desc){.addr = FRONT_GUEST + FRONT_DATA + number * 4096u,
                                              .len = bytes,
                                              .flags = VRING_DESC_F_NEXT | writes,
                                              .next = (uint16_t)(at + 2)};
    descriptors[at + 2] =
        (struct vring_desc){.addr = FRONT_GUEST + FRONT_STATUSES + number, .len = 1, .flags = VRING_DESC_F_WRITE};
    available->ring[front->available % FRONT_SIZE] = at;
    __atomic_store_n(&available->idx, ++front->available, __ATOMIC_SEQ_CST);
}

void front_kick(struct front *front)
{
    aiod_eventfd_ring(front->kick);
}

bool front_has_used(struct front *front)
{
    const struct vring_used *used = (const struct vring_used *)(const void *)(front->memory + FRONT_USED);

    return __atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != front->used;
}

static bool has_used(void *argument)
{
    return front_has_used(argument);
}

uint16_t front_next_used(struct front *front)
{
    const struct vring_used *used = (const struct vring_used *)(const void *)(front->memory + FRONT_USED);

    front_until(has_used, front);
    return (uint16_t)(used->ring[front->used++ % FRONT_SIZE].id / 3);
}

int front_run(struct front *front, uint16_t number, uint32_t type, uint64_t sector, uint32_t bytes)
{
    front_submit(front, number, type, sector, bytes);
    front_kick(front);
    CHECK(front_next_used(front) == number);
    return front->memory[FRONT_STATUSES + number];
}
