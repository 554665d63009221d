/* device.c - carries out the messages of a VMM (device.h). */
#include "vhost/device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ops/worker_io.h"
#include "util/os.h"

#define MESSAGES_PER_STEP 64u

/* epoll data */
#define NOTICE 0u
#define SOCKET 1u

static uint64_t bit(unsigned number)
{
    return UINT64_C(1) << number;
}

static bool has(uint64_t bits, unsigned number)
{
    return (bits & bit(number)) != 0;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void __attribute__((format(printf, 2, 3))) note(struct aiod_vhost_device *device, const char *format, ...)
{
    va_list arguments;

    if (device->log.count < AIOD_VHOST_LOG_LINES) {
        va_start(arguments, format);
        vsnprintf(device->log.lines[device->log.count++], AIOD_VHOST_LOG_BYTES, format, arguments);
        va_end(arguments);
    }
}

static uint64_t offered_features(const struct aiod_vhost_device *device)
{
    return aiod_blk_features(&device->backend.blk) | bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_RING_F_INDIRECT_DESC) |
           bit(VIRTIO_RING_F_EVENT_IDX) | bit(AIOD_VHOST_F_PROTOCOL_FEATURES);
}

static uint64_t offered_protocol_features(void)
{
    return bit(AIOD_VHOST_PROTOCOL_F_MQ) | bit(AIOD_VHOST_PROTOCOL_F_REPLY_ACK) |
           bit(AIOD_VHOST_PROTOCOL_F_BACKEND_REQ) | bit(AIOD_VHOST_PROTOCOL_F_CONFIG) |
           bit(AIOD_VHOST_PROTOCOL_F_INFLIGHT_SHMFD) | bit(AIOD_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
}

/* ---- queues ------------------------------------------------------------------------------------------------------ */

static const char *make_virtqueue(const struct aiod_vhost_device *device, unsigned number,
                                  struct aiod_memory_table *table, struct aiod_virtqueue **virtqueue)
{
    const struct aiod_vhost_queue_settings *settings = &device->settings[number];

    return aiod_virtqueue_create(virtqueue, table, &settings->addresses, settings->size, device->features);
}

/* Start the queue if all of it is known. */
static const char *start_queue(struct aiod_vhost_device *device, unsigned number)
{
    const struct aiod_vhost_queue_settings *settings = &device->settings[number];
    struct aiod_vhost_queue *queue = &device->queues[number];
    struct aiod_vhost_start start = {
        .next = settings->base,
        .through = !has(device->features, VIRTIO_BLK_F_FLUSH),
        .enabled = settings->enabled,
        .notes = aiod_inflight_of(&device->inflight, number, settings->size),
    };
    const char *why;

    if (aiod_vhost_queue_is_running(queue) || !settings->has_addresses || !settings->kicked || settings->size == 0 ||
        device->table == NULL) {
        return NULL;
    }
    why = make_virtqueue(device, number, device->table, &start.virtqueue);
    if (why == NULL && aiod_vhost_queue_start(queue, &start) < 0) {
        why = "no memory for the requests of a virtqueue";
    }
    return why;
}

/* Let the running queues lie in another table, or leave all as they are. */
static const char *move_queues(struct aiod_vhost_device *device, struct aiod_memory_table *table)
{
    struct aiod_virtqueue *moved[AIOD_BLK_QUEUES_MAX] = {0};
    const char *why = NULL;

    for (unsigned i = 0; i < device->queue_count && why == NULL; i++) {
        if (aiod_vhost_queue_is_running(&device->queues[i])) {
            why = make_virtqueue(device, i, table, &moved[i]);
        }
    }
    for (unsigned i = 0; i < device->queue_count; i++) {
        if (moved[i] != NULL && why == NULL) {
            aiod_vhost_queue_move(&device->queues[i], moved[i]);
        } else {
            aiod_virtqueue_destroy(moved[i]);
        }
    }
    return why;
}

/* Use the new table, which is taken over. */
static const char *use_table(struct aiod_vhost_device *device, struct aiod_memory_table *table)
{
    const char *why = move_queues(device, table);

    if (why != NULL) {
        aiod_memory_table_put(table);
        return why;
    }
    aiod_memory_table_put(device->table);
    device->table = table;
    for (unsigned i = 0; i < device->queue_count && why == NULL; i++) {
        why = start_queue(device, i);
    }
    return why;
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

/* The result of a message: NULL, or the reason why it is refused. A message that was answered says so. */
struct answer {
    const char *why;
    bool sent;
    bool gone; /* the VMM has closed the connection meanwhile: an orderly end, of which nobody complains */
};

static const struct answer done = {0};

static struct answer refused(const char *why)
{
    return (struct answer){.why = why};
}

static struct answer answer_with(struct aiod_vhost_device *device, const void *payload, size_t bytes, int fd)
{
    const struct aiod_vhost_header *asked = &device->receiver.message.header;
    int error = aiod_vhost_send(device->socket, asked->kind, AIOD_VHOST_REPLY, payload, bytes, fd);

    return (struct answer){
        .why = error < 0 ? "it does not read its replies" : NULL, .sent = true, .gone = error < 0 && error != -EAGAIN};
}

static struct answer answer_number(struct aiod_vhost_device *device, uint64_t number)
{
    return answer_with(device, &number, sizeof(number), -1);
}

static struct answer get_features(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)message;
    return answer_number(device, offered_features(device));
}

static bool any_queue_runs(struct aiod_vhost_device *device)
{
    bool any = false;

    for (unsigned i = 0; i < device->queue_count; i++) {
        any = any || aiod_vhost_queue_is_running(&device->queues[i]);
    }
    return any;
}

static struct answer set_features(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    uint64_t features = message->payload.number;

    if ((features & ~offered_features(device)) != 0) {
        return refused("it sets features that were not offered");
    }
    if (any_queue_runs(device) && features != device->features) {
        return refused("it changes the features of a running device");
    }
    device->features = features;
    if (!has(features, AIOD_VHOST_F_PROTOCOL_FEATURES)) {
        for (unsigned i = 0; i < device->queue_count; i++) {
            device->settings[i].enabled = true;
        }
    }
    return done;
}

static struct answer get_protocol_features(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)message;
    return answer_number(device, offered_protocol_features());
}

static struct answer set_protocol_features(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    if ((message->payload.number & ~offered_protocol_features()) != 0) {
        return refused("it sets protocol features that were not offered");
    }
    device->protocol_features = message->payload.number;
    return done;
}

static struct answer ignore(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)device;
    (void)message;
    return done;
}

static struct answer get_queue_num(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)message;
    return answer_number(device, device->queue_count);
}

static struct aiod_memory_description describe(const struct aiod_vhost_region *region)
{
    return (struct aiod_memory_description){
        .guest = region->guest, .bytes = region->bytes, .user = region->user, .offset = region->offset};
}

static struct answer set_mem_table(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_memory *memory = &message->payload.memory;
    struct aiod_memory_description descriptions[AIOD_MEMORY_REGIONS_MAX];
    struct aiod_memory_table *table;
    const char *why;

    if (memory->count > AIOD_MEMORY_REGIONS_MAX || message->fd_count != memory->count ||
        message->header.bytes < AIOD_VHOST_MEMORY_HEAD_BYTES + memory->count * sizeof(memory->regions[0])) {
        return refused("its memory table has a wrong length or number of descriptors");
    }
    for (unsigned i = 0; i < memory->count; i++) {
        descriptions[i] = describe(&memory->regions[i]);
    }
    why = aiod_memory_table_create(&table, descriptions, message->fds, memory->count);
    return refused(why != NULL ? why : use_table(device, table));
}

static struct answer get_max_mem_slots(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)message;
    return answer_number(device, AIOD_MEMORY_REGIONS_MAX);
}

static struct answer add_mem_reg(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    struct aiod_memory_description description = describe(&message->payload.one_region.region);
    struct aiod_memory_table *table;
    const char *why;

    if (message->fd_count != 1) {
        return refused("it adds a region of memory without a descriptor");
    }
    why = aiod_memory_table_add(&table, device->table, &description, message->fds[0]);
    return refused(why != NULL ? why : use_table(device, table));
}

static struct answer rem_mem_reg(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    struct aiod_memory_description description = describe(&message->payload.one_region.region);
    struct aiod_memory_table *table;
    const char *why = aiod_memory_table_remove(&table, device->table, &description);

    return refused(why != NULL ? why : use_table(device, table));
}

static struct answer set_vring_num(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_queue_state *state = &message->payload.state;

    if (state->number == 0 || state->number > AIOD_VIRTQUEUE_SIZE_MAX || (state->number & (state->number - 1)) != 0) {
        return refused("a virtqueue has a size that is not a power of two up to 1024");
    }
    if (aiod_vhost_queue_is_running(&device->queues[state->queue])) {
        return refused("it changes the size of a running virtqueue");
    }
    device->settings[state->queue].size = (uint16_t)state->number;
    return refused(start_queue(device, state->queue));
}

static struct answer set_vring_addr(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_queue_address *address = &message->payload.address;
    struct aiod_vhost_queue_settings *settings = &device->settings[address->queue];
    struct aiod_vhost_queue *queue = &device->queues[address->queue];
    const struct aiod_virtqueue_addresses former = settings->addresses;
    struct aiod_virtqueue *moved;
    const char *why;

    settings->addresses = (struct aiod_virtqueue_addresses){
        .descriptors = address->descriptors, .available = address->available, .used = address->used};
    if (!aiod_vhost_queue_is_running(queue)) {
        settings->has_addresses = true;
        return refused(start_queue(device, address->queue));
    }
    why = make_virtqueue(device, address->queue, device->table, &moved);
    if (why != NULL) {
        settings->addresses = former;
        return refused(why);
    }
    aiod_vhost_queue_move(queue, moved);
    return done;
}

static struct answer set_vring_base(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_queue_state *state = &message->payload.state;

    if (aiod_vhost_queue_is_running(&device->queues[state->queue])) {
        return refused("it changes the base of a running virtqueue");
    }
    device->settings[state->queue].base = (uint16_t)state->number;
    return done;
}

/* No request is in flight: answer a GET_VRING_BASE. */
static struct answer finish_stop(struct aiod_vhost_device *device, unsigned number)
{
    struct aiod_vhost_queue_settings *settings = &device->settings[number];
    struct aiod_vhost_queue_state state = {.queue = number};

    if (aiod_vhost_queue_is_running(&device->queues[number])) {
        settings->base = aiod_vhost_queue_stop(&device->queues[number]);
    }
    aiod_vhost_queue_set_kick(&device->queues[number], -1);
    aiod_vhost_queue_set_call(&device->queues[number], -1);
    settings->kicked = false;
    device->stopping_queue = -1;
    state.number = settings->base;
    return answer_with(device, &state, sizeof(state), -1);
}

static struct answer get_vring_base(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    unsigned number = message->payload.state.queue;
    struct aiod_vhost_queue *queue = &device->queues[number];

    aiod_vhost_queue_enable(queue, false);
    if (aiod_vhost_queue_inflight(queue) == 0) {
        return finish_stop(device, number);
    }
    device->stopping_queue = (int)number;
    return (struct answer){.sent = true}; /* when they have ended */
}

static struct answer set_vring_enable(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_queue_state *state = &message->payload.state;

    device->settings[state->queue].enabled = state->number != 0;
    aiod_vhost_queue_enable(&device->queues[state->queue], state->number != 0);
    return done;
}

/* An eventfd: other files could block the thread that writes to it, or cannot be waited for. */
static bool is_eventfd(int fd)
{
    char link[64];
    char path[64];
    ssize_t length;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    length = readlink(path, link, sizeof(link) - 1);
    link[length > 0 ? length : 0] = '\0';
    return strcmp(link, "anon_inode:[eventfd]") == 0;
}

/* For a host without io_uring, where a notifier writes (notifier.h). */
static bool never_blocks(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

/* The descriptor of a SET_VRING_KICK, _CALL or _ERR; -1: none. */
static const char *queue_descriptor(const struct aiod_vhost_message *message, int *fd)
{
    bool none = (message->payload.number & AIOD_VHOST_NO_FD) != 0;

    *fd = none || message->fd_count != 1 ? -1 : message->fds[0];
    if (!none && message->fd_count != 1) {
        return "a message about a virtqueue lacks its descriptor";
    }
    if (*fd >= 0 && (!is_eventfd(*fd) || !never_blocks(*fd))) {
        return "a descriptor of a virtqueue is not an eventfd";
    }
    return NULL;
}

static struct answer set_vring_kick(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    unsigned number = message->payload.number & AIOD_VHOST_QUEUE_MASK;
    const char *why;
    int fd;

    why = queue_descriptor(message, &fd);
    if (why == NULL && fd < 0) {
        why = "a virtqueue without a doorbell would have to be polled all the time";
    }
    if (why == NULL && aiod_vhost_queue_set_kick(&device->queues[number], fd) < 0) {
        why = "the doorbell of a virtqueue cannot be used";
    }
    if (why != NULL) {
        return refused(why);
    }
    device->settings[number].kicked = true;
    return refused(start_queue(device, number));
}

static struct answer set_vring_call(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const char *why;
    int fd;

    why = queue_descriptor(message, &fd);
    if (why == NULL &&
        aiod_vhost_queue_set_call(&device->queues[message->payload.number & AIOD_VHOST_QUEUE_MASK], fd) < 0) {
        why = "the descriptor for notifications of a virtqueue cannot be used";
    }
    return refused(why);
}

static struct answer set_vring_err(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const char *why;
    int fd;

    why = queue_descriptor(message, &fd);
    if (why == NULL) {
        aiod_vhost_queue_set_error(&device->queues[message->payload.number & AIOD_VHOST_QUEUE_MASK], fd);
    }
    return refused(why);
}

static struct answer set_backend_req_fd(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    int kind = 0;
    socklen_t length = sizeof(kind);

    if (message->fd_count != 1 || getsockopt(message->fds[0], SOL_SOCKET, SO_TYPE, &kind, &length) < 0 ||
        kind != SOCK_STREAM) {
        return refused("the socket for requests of the back end is not one");
    }
    close_if_open(&device->backend_socket);
    device->backend_socket = message->fds[0];
    message->fds[0] = -1;
    return done;
}

static struct answer get_config(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    struct aiod_vhost_config *config = &message->payload.config;

    if (config->offset > AIOD_VHOST_CONFIG_BYTES_MAX || config->bytes > AIOD_VHOST_CONFIG_BYTES_MAX - config->offset ||
        message->header.bytes != AIOD_VHOST_CONFIG_HEAD_BYTES + config->bytes) {
        return answer_with(device, NULL, 0, -1); /* the protocol's way to refuse it */
    }
    aiod_blk_config(&device->backend.blk, config->space, config->offset, config->bytes);
    return answer_with(device, config, AIOD_VHOST_CONFIG_HEAD_BYTES + config->bytes, -1);
}

static struct answer set_config(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    (void)device;
    (void)message;
    return refused("the guest's driver writes to the configuration, of which nothing can be written");
}

static struct answer get_inflight_fd(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    struct aiod_vhost_inflight *inflight = &message->payload.inflight;
    struct answer answer;
    int fd;

    if (inflight->queue_count == 0 || inflight->queue_count > device->queue_count || inflight->queue_size == 0 ||
        inflight->queue_size > AIOD_VIRTQUEUE_SIZE_MAX) {
        return refused("it asks for an area for requests in flight of more queues, or larger ones, than there can be");
    }
    if (message->header.bytes > sizeof(*inflight)) {
        return refused("it sends a message that is too long");
    }
    fd = aiod_inflight_create(inflight->queue_count, inflight->queue_size);
    if (fd < 0) {
        return refused("there is no memory for the area for requests in flight");
    }
    inflight->bytes = aiod_inflight_bytes(inflight->queue_count, inflight->queue_size);
    inflight->offset = 0;
    answer = answer_with(device, inflight, message->header.bytes, fd); /* QEMU's have four bytes more */
    close(fd);
    return answer;
}

static struct answer set_inflight_fd(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    const struct aiod_vhost_inflight *inflight = &message->payload.inflight;

    if (any_queue_runs(device)) {
        return refused("it changes the area for requests in flight of a running device");
    }
    aiod_inflight_unmap(&device->inflight);
    return refused(aiod_inflight_map(&device->inflight, message->fd_count == 1 ? message->fds[0] : -1, inflight->offset,
                                     inflight->bytes, inflight->queue_count, inflight->queue_size));
}

struct kind {
    struct answer (*carry_out)(struct aiod_vhost_device *device, struct aiod_vhost_message *message);
    unsigned bytes; /* of the payload, at least */
    bool of_queue;  /* it begins with the number of a queue: in 32 bits, or the lowest 8 of 64 */
    bool answers;   /* with something other than success or failure */
};

static const struct kind kinds[AIOD_VHOST_KINDS] = {
    [AIOD_VHOST_GET_FEATURES] = {.carry_out = get_features, .answers = true},
    [AIOD_VHOST_SET_FEATURES] = {.carry_out = set_features, .bytes = 8},
    [AIOD_VHOST_SET_OWNER] = {.carry_out = ignore},
    [AIOD_VHOST_RESET_OWNER] = {.carry_out = ignore},
    [AIOD_VHOST_SET_MEM_TABLE] = {.carry_out = set_mem_table, .bytes = AIOD_VHOST_MEMORY_HEAD_BYTES},
    [AIOD_VHOST_SET_VRING_NUM] = {.carry_out = set_vring_num, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_SET_VRING_ADDR] = {.carry_out = set_vring_addr, .bytes = 40, .of_queue = true},
    [AIOD_VHOST_SET_VRING_BASE] = {.carry_out = set_vring_base, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_GET_VRING_BASE] = {.carry_out = get_vring_base, .bytes = 8, .of_queue = true, .answers = true},
    [AIOD_VHOST_SET_VRING_KICK] = {.carry_out = set_vring_kick, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_SET_VRING_CALL] = {.carry_out = set_vring_call, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_SET_VRING_ERR] = {.carry_out = set_vring_err, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_GET_PROTOCOL_FEATURES] = {.carry_out = get_protocol_features, .answers = true},
    [AIOD_VHOST_SET_PROTOCOL_FEATURES] = {.carry_out = set_protocol_features, .bytes = 8},
    [AIOD_VHOST_GET_QUEUE_NUM] = {.carry_out = get_queue_num, .answers = true},
    [AIOD_VHOST_SET_VRING_ENABLE] = {.carry_out = set_vring_enable, .bytes = 8, .of_queue = true},
    [AIOD_VHOST_SET_BACKEND_REQ_FD] = {.carry_out = set_backend_req_fd},
    [AIOD_VHOST_GET_CONFIG] = {.carry_out = get_config, .bytes = AIOD_VHOST_CONFIG_HEAD_BYTES, .answers = true},
    [AIOD_VHOST_SET_CONFIG] = {.carry_out = set_config, .bytes = AIOD_VHOST_CONFIG_HEAD_BYTES},
    [AIOD_VHOST_GET_INFLIGHT_FD] = {.carry_out = get_inflight_fd, .bytes = AIOD_VHOST_INFLIGHT_BYTES, .answers = true},
    [AIOD_VHOST_SET_INFLIGHT_FD] = {.carry_out = set_inflight_fd, .bytes = AIOD_VHOST_INFLIGHT_BYTES},
    [AIOD_VHOST_GET_MAX_MEM_SLOTS] = {.carry_out = get_max_mem_slots, .answers = true},
    [AIOD_VHOST_ADD_MEM_REG] = {.carry_out = add_mem_reg, .bytes = sizeof(struct aiod_vhost_one_region)},
    [AIOD_VHOST_REM_MEM_REG] = {.carry_out = rem_mem_reg, .bytes = sizeof(struct aiod_vhost_one_region)},
};

static struct answer carry_out(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    uint32_t number = message->header.kind;
    const struct kind *kind = number < AIOD_VHOST_KINDS ? &kinds[number] : &kinds[0];
    bool in_64_bits = number >= AIOD_VHOST_SET_VRING_KICK && number <= AIOD_VHOST_SET_VRING_ERR;
    uint32_t queue = in_64_bits ? message->payload.number & AIOD_VHOST_QUEUE_MASK : message->payload.state.queue;

    if (kind->carry_out == NULL) {
        return refused("it sends a message that the device does not know");
    }
    if (message->header.bytes < kind->bytes) {
        return refused("it sends a message that is too short");
    }
    if (kind->of_queue && queue >= device->queue_count) {
        return refused("it speaks of a virtqueue that is not there");
    }
    return kind->carry_out(device, message);
}

/*
 * A refusal is answered if the VMM wants an answer. Otherwise it ends the connection: the VMM would go on with a device that is
 * not as it believes.
 */
static void handle(struct aiod_vhost_device *device, struct aiod_vhost_message *message)
{
    struct answer answer = carry_out(device, message);
    bool asked = (message->header.flags & AIOD_VHOST_NEED_REPLY) != 0 &&
                 has(device->protocol_features, AIOD_VHOST_PROTOCOL_F_REPLY_ACK) &&
                 !(message->header.kind < AIOD_VHOST_KINDS && kinds[message->header.kind].answers);
    bool ends = answer.why != NULL && (answer.sent || !asked);

    if (answer.why != NULL && !answer.gone) {
        note(device, "the VMM's message %u is refused%s: %s", message->header.kind,
             ends ? ", and the connection ended" : "", answer.why);
    }
    if (!ends && asked && !answer.sent) {
        ends = answer_number(device, answer.why != NULL).why != NULL;
    }
    if (ends) {
        aiod_vhost_device_disconnect(device);
    }
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

static void read_messages(struct aiod_vhost_device *device)
{
    for (unsigned i = 0; i < MESSAGES_PER_STEP && device->socket >= 0 && device->stopping_queue < 0; i++) {
        const char *why = NULL;

        switch (aiod_vhost_receive(&device->receiver, device->socket, &why)) {
        case AIOD_VHOST_NOTHING:
            return;
        case AIOD_VHOST_MESSAGE:
            handle(device, &device->receiver.message);
            if (device->stopping_queue < 0) { /* else the answer needs the message */
                aiod_vhost_receiver_reset(&device->receiver);
            }
            break;
        case AIOD_VHOST_ENDED:
            aiod_vhost_device_disconnect(device);
            return;
        default:
            note(device, "the VMM's connection is ended: %s", why);
            aiod_vhost_device_disconnect(device);
            return;
        }
    }
}

/* While a queue stops, the socket is watched for its end only. */
static void watch_socket(const struct aiod_vhost_device *device, int operation)
{
    struct epoll_event event = {.events = device->stopping_queue < 0 ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP,
                                .data = {.u32 = SOCKET}};

    epoll_ctl(device->epoll_fd, operation, device->socket, &event);
}

bool aiod_vhost_device_is_free(const struct aiod_vhost_device *device)
{
    return device->socket < 0 && !device->draining;
}

int aiod_vhost_device_connect(struct aiod_vhost_device *device, int socket)
{
    int flags = fcntl(socket, F_GETFL);

    if (flags < 0 || fcntl(socket, F_SETFL, flags | O_NONBLOCK) < 0) {
        int error = -errno;

        close(socket);
        return error;
    }
    device->socket = socket;
    device->stopping_queue = -1;
    device->features = 0;
    device->protocol_features = 0;
    memset(device->settings, 0, sizeof(device->settings));
    device->connections++;
    watch_socket(device, EPOLL_CTL_ADD);
    return 0;
}

static void look_whether_drained(struct aiod_vhost_device *device)
{
    if (device->draining && aiod_vhost_device_inflight(device) == 0) {
        device->draining = false;
        /* no request uses the area any more */
        aiod_inflight_unmap(&device->inflight);
    }
}

void aiod_vhost_device_disconnect(struct aiod_vhost_device *device)
{
    if (device->socket < 0) {
        return;
    }
    for (unsigned i = 0; i < device->queue_count; i++) {
        aiod_vhost_queue_abandon(&device->queues[i]);
    }
    epoll_ctl(device->epoll_fd, EPOLL_CTL_DEL, device->socket, NULL);
    close_if_open(&device->socket);
    close_if_open(&device->backend_socket);
    aiod_memory_table_put(device->table);
    device->table = NULL;
    device->stopping_queue = -1;
    device->draining = true;
    aiod_vhost_receiver_reset(&device->receiver);
    look_whether_drained(device);
}

/* ---- notices ----------------------------------------------------------------------------------------------------- */

static const char *name_of(enum aiod_op op)
{
    switch (op) {
    case AIOD_READ:
        return "read";
    case AIOD_WRITE:
        return "write";
    case AIOD_FLUSH:
        return "flush";
    case AIOD_DISCARD:
        return "discard";
    default:
        return "write_zeroes";
    }
}

static void look_at_queue(struct aiod_vhost_device *device, struct aiod_vhost_queue *queue)
{
    struct aiod_vhost_failure failure;
    uint64_t count;

    if (aiod_vhost_queue_take_failure(queue, &failure, &count)) {
        note(device, "%s of %llu bytes at %llu failed: %s (%llu failures since the last message)", name_of(failure.op),
             (unsigned long long)failure.length, (unsigned long long)failure.offset,
             failure.error != 0 ? strerror(failure.error) : "the file has become shorter", (unsigned long long)count);
    }
    if (aiod_vhost_queue_is_running(queue) && !queue->broken_told && atomic_load(&queue->broken) != NULL) {
        queue->broken_told = true;
        note(device, "the guest broke virtqueue %u, which is not served until its driver resets it: %s", queue->number,
             atomic_load(&queue->broken));
        aiod_notifier_signal(&queue->error);
        aiod_vhost_queue_enable(queue, false);
    }
}

static void stop_if_idle(struct aiod_vhost_device *device)
{
    if (device->stopping_queue >= 0 && aiod_vhost_queue_inflight(&device->queues[device->stopping_queue]) == 0) {
        /* the message that asked is still there */
        struct answer answer = finish_stop(device, (unsigned)device->stopping_queue);

        aiod_vhost_receiver_reset(&device->receiver);
        if (answer.why != NULL) {
            if (!answer.gone) {
                note(device, "the VMM's connection is ended: %s", answer.why);
            }
            aiod_vhost_device_disconnect(device);
            return;
        }
        watch_socket(device, EPOLL_CTL_MOD);
        read_messages(device);
    }
}

static void look_at_size(struct aiod_vhost_device *device)
{
    uint64_t before = __atomic_load_n(&device->backend.blk.sectors, __ATOMIC_RELAXED);
    uint64_t now;

    if (!atomic_exchange(&device->measured_now, false)) {
        return;
    }
    atomic_store(&device->measures, false);
    now = device->measured < 0 ? before : (uint64_t)device->measured / AIOD_BLK_SECTOR_BYTES;
    if (now == before) {
        return;
    }
    note(device, "the file has %llu sectors now, and had %llu", (unsigned long long)now, (unsigned long long)before);
    __atomic_store_n(&device->backend.blk.sectors, now, __ATOMIC_RELAXED);
    if (device->backend_socket >= 0 && has(device->protocol_features, AIOD_VHOST_PROTOCOL_F_BACKEND_REQ) &&
        aiod_vhost_send(device->backend_socket, AIOD_VHOST_BACKEND_CONFIG_CHANGE, 0, NULL, 0, -1) < 0) {
        note(device, "the VMM cannot be told of the new size: it does not read its messages");
    }
}

void aiod_vhost_device_step(struct aiod_vhost_device *device)
{
    struct epoll_event events[2];
    int count = epoll_wait(device->epoll_fd, events, 2, 0);
    bool readable = false;
    bool hung_up = false;

    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == SOCKET) {
            readable = (events[i].events & EPOLLIN) != 0;
            hung_up = (events[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0;
        } else {
            aiod_eventfd_clear(device->backend.notice_fd);
        }
    }
    for (unsigned i = 0; i < device->queue_count; i++) {
        look_at_queue(device, &device->queues[i]);
    }
    look_at_size(device);
    look_whether_drained(device);
    stop_if_idle(device);
    if (device->stopping_queue >= 0 && hung_up) {
        aiod_vhost_device_disconnect(device);
    } else if (readable || hung_up) {
        read_messages(device);
        if (device->stopping_queue >= 0) {
            watch_socket(device, EPOLL_CTL_MOD);
        }
    }
}

/* ---- the size of the file ---------------------------------------------------------------------------------------- */

static struct aiod_vhost_device *device_of(struct aiod_request *request)
{
    return (struct aiod_vhost_device *)(void *)((char *)request - offsetof(struct aiod_vhost_device, measuring));
}

static int64_t measure(struct aiod_request *request)
{
    return aiod_io_size(device_of(request)->backend.handle->fd);
}

static void measured(struct aiod_request *request)
{
    struct aiod_vhost_device *device = device_of(request);

    device->measured = request->result;
    atomic_store(&device->measured_now, true);
    aiod_eventfd_ring(device->backend.notice_fd);
}

void aiod_vhost_device_measure(struct aiod_vhost_device *device)
{
    if (!atomic_exchange(&device->measures, true)) {
        device->measuring = (struct aiod_request){.run = measure, .complete = measured, .queued_ns = aiod_now_ns()};
        aiod_pool_submit(device->backend.pool, &device->measuring, 1);
    }
}

/* ---- creation and end -------------------------------------------------------------------------------------------- */

static int watch_notices(const struct aiod_vhost_device *device)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = NOTICE}};

    return epoll_ctl(device->epoll_fd, EPOLL_CTL_ADD, device->backend.notice_fd, &event) < 0 ? -errno : 0;
}

int aiod_vhost_device_create(struct aiod_vhost_device **result, const struct aiod_vhost_device_config *config)
{
    unsigned queue_count = config->backend.blk.queue_count;
    struct aiod_vhost_device *device = calloc(1, sizeof(*device) + queue_count * sizeof(device->queues[0]));
    int error = 0;

    if (device == NULL) {
        return -ENOMEM;
    }
    device->backend = config->backend;
    device->socket = -1;
    device->backend_socket = -1;
    device->stopping_queue = -1;
    device->backend.notice_fd = aiod_eventfd_create();
    device->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (device->backend.notice_fd < 0 || device->epoll_fd < 0 || watch_notices(device) < 0) {
        error = -EMFILE;
    }
    while (error == 0 && device->queue_count < queue_count) {
        error = aiod_vhost_queue_create(&device->queues[device->queue_count], &device->backend, device->queue_count);
        device->queue_count++;
    }
    if (error < 0) {
        return error; /* the poller may know queues of it: the engine ends */
    }
    *result = device;
    return 0;
}

void aiod_vhost_device_destroy(struct aiod_vhost_device *device)
{
    aiod_vhost_device_disconnect(device);
    aiod_inflight_unmap(&device->inflight);
    for (unsigned i = 0; i < device->queue_count; i++) {
        aiod_vhost_queue_destroy(&device->queues[i]);
    }
    close_if_open(&device->epoll_fd);
    close_if_open(&device->backend.notice_fd);
    free(device);
}

uint32_t aiod_vhost_device_inflight(struct aiod_vhost_device *device)
{
    uint32_t inflight = 0;

    for (unsigned i = 0; i < device->queue_count; i++) {
        inflight += aiod_vhost_queue_inflight(&device->queues[i]);
    }
    return inflight;
}

void aiod_vhost_device_add_stats(struct aiod_vhost_device *device, struct aiod_stats *stats)
{
    for (unsigned i = 0; i < device->queue_count; i++) {
        aiod_vhost_queue_add_stats(&device->queues[i], stats);
    }
}
