#include "front.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/virtio_config.h>

/* Not zero, so that an address of this process that is taken for a guest's, or the reverse, is noticed. */
#define GUEST_BASE UINT64_C(0x100000000)
/* The fields of virtio_blk_config that every server knows. */
#define CONFIG_BYTES 60

static bool fail(struct front *front, const char *step)
{
    front->failed = step;
    return false;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static bool send_message(struct front *front, enum vhost_request request, uint32_t flags, const void *payload,
                         size_t bytes, int fd)
{
    struct vhost_header header = {.request = request, .flags = VHOST_VERSION | flags, .bytes = (uint32_t)bytes};
    union vhost_payload copy;
    struct iovec parts[] = {{&header, sizeof(header)}, {&copy, bytes}};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

    memcpy(&copy, payload, bytes);
    if (fd >= 0) {
        struct cmsghdr *part = &control.aligned;

        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(part), &fd, sizeof(int));
    }
    return sendmsg(front->socket, &message, MSG_NOSIGNAL) == (ssize_t)(sizeof(header) + bytes);
}

/* Receive exactly `bytes`; a descriptor that comes with them goes to *fd. */
static bool receive_all(struct front *front, void *to, size_t bytes, int *fd)
{
    for (size_t done = 0; done < bytes;) {
        union {
            char bytes[CMSG_SPACE(sizeof(int))];
            struct cmsghdr aligned;
        } control;
        struct iovec part = {(char *)to + done, bytes - done};
        struct msghdr message = {
            .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
        ssize_t got = recvmsg(front->socket, &message, MSG_CMSG_CLOEXEC);
        struct cmsghdr *rights = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;

        if (got <= 0) {
            if (got == 0) {
                errno = ECONNRESET;
            }
            return false;
        }
        if (rights != NULL && rights->cmsg_type == SCM_RIGHTS) {
            memcpy(fd, CMSG_DATA(rights), sizeof(int));
        }
        done += (size_t)got;
    }
    return true;
}

static bool receive_reply(struct front *front, enum vhost_request request, void *payload, size_t bytes, int *fd)
{
    struct vhost_header header;
    int none = -1;

    if (!receive_all(front, &header, sizeof(header), fd != NULL ? fd : &none)) {
        return false;
    }
    if (header.request != request || (header.flags & VHOST_REPLY) == 0 || header.bytes != bytes) {
        errno = EPROTO;
        return false;
    }
    return receive_all(front, payload, bytes, fd != NULL ? fd : &none);
}

/* A message without an answer of its own; with REPLY_ACK its result is awaited. */
static bool tell(struct front *front, enum vhost_request request, const void *payload, size_t bytes, int fd)
{
    bool acknowledged = (front->protocol_features >> VHOST_PROTOCOL_F_REPLY_ACK & 1) != 0;
    uint64_t result;

    if (!send_message(front, request, acknowledged ? VHOST_NEED_REPLY : 0, payload, bytes, fd)) {
        return false;
    }
    if (!acknowledged) {
        return true;
    }
    if (!receive_reply(front, request, &result, sizeof(result), NULL)) {
        return false;
    }
    errno = EREMOTEIO;
    return result == 0;
}

static bool tell_number(struct front *front, enum vhost_request request, uint64_t number)
{
    return tell(front, request, &number, sizeof(number), -1);
}

static bool tell_state(struct front *front, enum vhost_request request, uint32_t index, uint32_t number)
{
    struct vhost_ring_state state = {index, number};

    return tell(front, request, &state, sizeof(state), -1);
}

static bool ask_number(struct front *front, enum vhost_request request, uint64_t *number)
{
    return send_message(front, request, 0, NULL, 0, -1) && receive_reply(front, request, number, sizeof(*number), NULL);
}

/* ---- negotiation ------------------------------------------------------------------------------------------------- */

static uint64_t wanted_features(const struct front_options *options)
{
    uint64_t wanted = UINT64_C(1) << VIRTIO_F_VERSION_1 | UINT64_C(1) << VHOST_F_PROTOCOL_FEATURES |
                      UINT64_C(1) << VIRTIO_BLK_F_FLUSH | UINT64_C(1) << VIRTIO_BLK_F_WRITE_ZEROES |
                      UINT64_C(1) << VIRTIO_BLK_F_RO | UINT64_C(1) << VIRTIO_BLK_F_MQ;

    if (options->queue.event_index) {
        wanted |= UINT64_C(1) << VIRTIO_RING_F_EVENT_IDX;
    }
    if (options->queue.indirect) {
        wanted |= UINT64_C(1) << VIRTIO_RING_F_INDIRECT_DESC;
    }
    return wanted;
}

static bool negotiate_protocol(struct front *front)
{
    uint64_t wanted = UINT64_C(1) << VHOST_PROTOCOL_F_MQ | UINT64_C(1) << VHOST_PROTOCOL_F_REPLY_ACK |
                      UINT64_C(1) << VHOST_PROTOCOL_F_CONFIG | UINT64_C(1) << VHOST_PROTOCOL_F_INFLIGHT_SHMFD;
    uint64_t offered;

    if (!ask_number(front, VHOST_GET_PROTOCOL_FEATURES, &offered)) {
        return fail(front, "GET_PROTOCOL_FEATURES");
    }
    wanted &= offered;
    if (!send_message(front, VHOST_SET_PROTOCOL_FEATURES, 0, &wanted, sizeof(wanted), -1)) {
        return fail(front, "SET_PROTOCOL_FEATURES");
    }
    front->protocol_features = wanted;
    errno = EPROTONOSUPPORT;
    return (wanted >> VHOST_PROTOCOL_F_CONFIG & 1) != 0 || fail(front, "the configuration of the device");
}

static bool negotiate(struct front *front)
{
    uint64_t wanted = wanted_features(&front->options);
    uint64_t offered;

    front->protocol_features = 0;
    if (!ask_number(front, VHOST_GET_FEATURES, &offered)) {
        return fail(front, "GET_FEATURES");
    }
    if ((offered >> VHOST_F_PROTOCOL_FEATURES & 1) == 0) {
        errno = EPROTONOSUPPORT;
        return fail(front, "protocol features");
    }
    if (!negotiate_protocol(front)) {
        return false;
    }
    front->features = wanted & offered;
    return (tell(front, VHOST_SET_OWNER, NULL, 0, -1) || fail(front, "SET_OWNER")) &&
           (tell_number(front, VHOST_SET_FEATURES, front->features) || fail(front, "SET_FEATURES"));
}

static bool read_config(struct front *front)
{
    struct vhost_config config = {.bytes = CONFIG_BYTES};
    size_t bytes = offsetof(struct vhost_config, data) + CONFIG_BYTES;

    if (!send_message(front, VHOST_GET_CONFIG, 0, &config, bytes, -1) ||
        !receive_reply(front, VHOST_GET_CONFIG, &config, bytes, NULL)) {
        return fail(front, "GET_CONFIG");
    }
    memcpy(&front->config, config.data, CONFIG_BYTES);
    return true;
}

static bool check_queue_count(struct front *front)
{
    uint64_t count = 1;

    if ((front->protocol_features >> VHOST_PROTOCOL_F_MQ & 1) != 0 && !ask_number(front, VHOST_GET_QUEUE_NUM, &count)) {
        return fail(front, "GET_QUEUE_NUM");
    }
    errno = ERANGE;
    return front->options.queue_count <= count || fail(front, "the number of queues");
}

/* ---- memory and queues ------------------------------------------------------------------------------------------- */

static bool share_inflight(struct front *front)
{
    if ((front->protocol_features >> VHOST_PROTOCOL_F_INFLIGHT_SHMFD & 1) == 0) {
        return true;
    }
    if (front->inflight_fd < 0) {
        front->inflight = (struct vhost_inflight){.queue_count = (uint16_t)front->options.queue_count,
                                                  .queue_size = (uint16_t)queue_size(&front->options.queue)};
        if (!send_message(front, VHOST_GET_INFLIGHT_FD, 0, &front->inflight, sizeof(front->inflight), -1) ||
            !receive_reply(front, VHOST_GET_INFLIGHT_FD, &front->inflight, sizeof(front->inflight),
                           &front->inflight_fd) ||
            front->inflight_fd < 0) {
            return fail(front, "GET_INFLIGHT_FD");
        }
    }
    return tell(front, VHOST_SET_INFLIGHT_FD, &front->inflight, sizeof(front->inflight), front->inflight_fd) ||
           fail(front, "SET_INFLIGHT_FD");
}

static bool share_memory(struct front *front)
{
    struct vhost_memory memory = {
        .region_count = 1,
        .regions = {
            {.guest_address = GUEST_BASE, .bytes = front->memory_bytes, .user_address = (uintptr_t)front->memory}}};
    size_t bytes = offsetof(struct vhost_memory, regions) + sizeof(struct vhost_region);

    return tell(front, VHOST_SET_MEM_TABLE, &memory, bytes, front->memory_fd) || fail(front, "SET_MEM_TABLE");
}

static bool start_queue(struct front *front, uint32_t index)
{
    struct queue *queue = &front->queues[index];
    struct vhost_ring_address address = {.index = index,
                                         .descriptors = (uintptr_t)queue->ring.desc,
                                         .used = (uintptr_t)queue->ring.used,
                                         .available = (uintptr_t)queue->ring.avail};
    uint64_t number = index;

    return (tell_state(front, VHOST_SET_VRING_NUM, index, queue->ring.num) || fail(front, "SET_VRING_NUM")) &&
           (tell_state(front, VHOST_SET_VRING_BASE, index, queue_used(queue)) || fail(front, "SET_VRING_BASE")) &&
           (tell(front, VHOST_SET_VRING_ADDR, &address, sizeof(address), -1) || fail(front, "SET_VRING_ADDR")) &&
           (tell(front, VHOST_SET_VRING_KICK, &number, sizeof(number), queue->kick_fd) ||
            fail(front, "SET_VRING_KICK")) &&
           (tell(front, VHOST_SET_VRING_CALL, &number, sizeof(number), queue->call_fd) ||
            fail(front, "SET_VRING_CALL")) &&
           (tell_state(front, VHOST_SET_VRING_ENABLE, index, 1) || fail(front, "SET_VRING_ENABLE"));
}

static bool connect_socket(struct front *front)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (front->socket >= 0) {
        close(front->socket);
    }
    front->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (front->socket < 0) {
        return fail(front, "socket");
    }
    if (strlen(front->options.socket) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return fail(front, "connect");
    }
    strcpy(address.sun_path, front->options.socket);
    return connect(front->socket, (struct sockaddr *)&address, sizeof(address)) == 0 || fail(front, "connect");
}

bool front_init(struct front *front, const struct front_options *options)
{
    size_t each = queue_bytes(&options->queue);

    *front = (struct front){.options = *options,
                            .socket = -1,
                            .inflight_fd = -1,
                            .memory_bytes = each * options->queue_count,
                            .queues = calloc(options->queue_count, sizeof(*front->queues))};
    front->memory_fd = memfd_create("guest", MFD_CLOEXEC);
    if (front->queues == NULL || front->memory_fd < 0 || ftruncate(front->memory_fd, (off_t)front->memory_bytes) < 0) {
        return fail(front, "memory");
    }
    front->memory = mmap(NULL, front->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, front->memory_fd, 0);
    if (front->memory == MAP_FAILED) {
        return fail(front, "memory");
    }
    for (unsigned i = 0; i < options->queue_count; i++) {
        if (!queue_init(&front->queues[i], (uint8_t *)front->memory + i * each, GUEST_BASE + i * each,
                        &options->queue)) {
            return fail(front, "eventfd");
        }
    }
    return true;
}

bool front_start(struct front *front)
{
    if (!connect_socket(front) || !negotiate(front) || !check_queue_count(front) || !read_config(front) ||
        !share_inflight(front) || !share_memory(front)) {
        return false;
    }
    for (uint32_t i = 0; i < front->options.queue_count; i++) {
        struct queue *queue = &front->queues[i];

        queue->event_index = queue->event_index && front_has(front, VIRTIO_RING_F_EVENT_IDX);
        if (queue->indirect && !front_has(front, VIRTIO_RING_F_INDIRECT_DESC)) {
            errno = EPROTONOSUPPORT;
            return fail(front, "indirect descriptors");
        }
        if (!start_queue(front, i)) {
            return false;
        }
        queue_restart(queue);
    }
    return true;
}

bool front_stop(struct front *front)
{
    for (uint32_t i = 0; i < front->options.queue_count; i++) {
        struct vhost_ring_state state = {.index = i};

        if (!send_message(front, VHOST_GET_VRING_BASE, 0, &state, sizeof(state), -1) ||
            !receive_reply(front, VHOST_GET_VRING_BASE, &state, sizeof(state), NULL)) {
            return fail(front, "GET_VRING_BASE");
        }
    }
    return true;
}

void front_close(struct front *front)
{
    for (unsigned i = 0; i < front->options.queue_count; i++) {
        queue_close(&front->queues[i]);
    }
    free(front->queues);
    munmap(front->memory, front->memory_bytes);
    close(front->memory_fd);
    close(front->socket);
    if (front->inflight_fd >= 0) {
        close(front->inflight_fd);
    }
}

bool front_has(const struct front *front, unsigned feature)
{
    return (front->features >> feature & 1) != 0;
}

bool front_resumes(const struct front *front)
{
    return front->inflight_fd >= 0;
}
