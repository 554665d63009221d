#include "queue.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define STATUS_NONE 0xff
#define FULL_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* What a slot has beside its data. The status has a cache line of its own: the device writes it. */
struct queue_slot_memory {
    struct virtio_blk_outhdr header;
    uint8_t padding[48];
    struct vring_desc table[QUEUE_CHAIN_LENGTH];
    uint8_t more_padding[16];
    uint8_t status;
    uint8_t last_padding[63];
};

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

unsigned queue_size(const struct queue_options *options)
{
    unsigned wanted = options->indirect ? options->depth : options->depth * QUEUE_CHAIN_LENGTH;
    unsigned size = 2;

    while (size < wanted) {
        size *= 2;
    }
    return size;
}

static size_t ring_bytes(const struct queue_options *options)
{
    return whole_pages(vring_size(queue_size(options), PAGE_BYTES));
}

static size_t slots_bytes(const struct queue_options *options)
{
    return whole_pages(options->depth * sizeof(struct queue_slot_memory));
}

size_t queue_bytes(const struct queue_options *options)
{
    return ring_bytes(options) + slots_bytes(options) + options->depth * whole_pages(options->block_bytes);
}

bool queue_init(struct queue *queue, void *memory, uint64_t guest_address, const struct queue_options *options)
{
    uint8_t *bytes = memory;

    *queue = (struct queue){.block_bytes = whole_pages(options->block_bytes),
                            .depth = options->depth,
                            .event_index = options->event_index,
                            .indirect = options->indirect,
                            .polls = options->polls,
                            .guest_offset = guest_address - (uintptr_t)memory};
    vring_init(&queue->ring, queue_size(options), memory, PAGE_BYTES);
    queue->slots = (struct queue_slot_memory *)(void *)(bytes + ring_bytes(options));
    queue->data = bytes + ring_bytes(options) + slots_bytes(options);
    queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->call_fd = eventfd(0, EFD_CLOEXEC);
    if (options->polls && !options->event_index) {
        queue->ring.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
    }
    return queue->kick_fd >= 0 && queue->call_fd >= 0;
}

void queue_close(struct queue *queue)
{
    close(queue->kick_fd);
    close(queue->call_fd);
}

uint8_t *queue_data(const struct queue *queue, unsigned slot)
{
    return queue->data + slot * queue->block_bytes;
}

static struct vring_desc descriptor(const struct queue *queue, void *object, size_t bytes, unsigned flags)
{
    return (struct vring_desc){
        .addr = queue->guest_offset + (uintptr_t)object, .len = (uint32_t)bytes, .flags = (uint16_t)flags};
}

/* The chain of a request, in `table`, whose first descriptor has the number `first`. */
static void fill_chain(struct queue *queue, unsigned slot, struct vring_desc *table, unsigned first, size_t bytes)
{
    struct queue_slot_memory *memory = &queue->slots[slot];
    unsigned way =
        memory->header.type == VIRTIO_BLK_T_IN || memory->header.type == VIRTIO_BLK_T_GET_ID ? VRING_DESC_F_WRITE : 0;
    unsigned length = 0;

    table[length++] = descriptor(queue, &memory->header, sizeof(memory->header), VRING_DESC_F_NEXT);
    if (bytes > 0) {
        table[length++] = descriptor(queue, queue_data(queue, slot), bytes, way | VRING_DESC_F_NEXT);
    }
    table[length++] = descriptor(queue, &memory->status, sizeof(memory->status), VRING_DESC_F_WRITE);
    for (unsigned i = 0; i + 1 < length; i++) {
        table[i].next = (uint16_t)(first + i + 1);
    }
}

void queue_fill(struct queue *queue, unsigned slot, uint32_t type, uint64_t sector, size_t bytes)
{
    struct queue_slot_memory *memory = &queue->slots[slot];
    unsigned head = queue->indirect ? slot : slot * QUEUE_CHAIN_LENGTH;

    memory->header = (struct virtio_blk_outhdr){.type = type, .sector = sector};
    memory->status = STATUS_NONE;
    if (queue->indirect) {
        size_t table_bytes = (bytes > 0 ? QUEUE_CHAIN_LENGTH : QUEUE_CHAIN_LENGTH - 1) * sizeof(struct vring_desc);

        fill_chain(queue, slot, memory->table, 0, bytes);
        queue->ring.desc[head] = descriptor(queue, memory->table, table_bytes, VRING_DESC_F_INDIRECT);
    } else {
        fill_chain(queue, slot, &queue->ring.desc[head], head, bytes);
    }
    queue->ring.avail->ring[queue->filled % queue->ring.num] = (uint16_t)head;
    queue->filled++;
}

void queue_kick(struct queue *queue)
{
    uint64_t one = 1;

    queue->kicks++;
    if (write(queue->kick_fd, &one, sizeof(one)) < 0) {
        return; /* the count is at its maximum: a kick is pending */
    }
}

static bool wants_kick(const struct queue *queue, uint16_t old)
{
    if (!queue->event_index) {
        return (__atomic_load_n(&queue->ring.used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY) == 0;
    }
    return vring_need_event(__atomic_load_n(&vring_avail_event(&queue->ring), __ATOMIC_RELAXED), queue->filled, old);
}

void queue_publish(struct queue *queue)
{
    uint16_t old = queue->published;

    if (old == queue->filled) {
        return;
    }
    __atomic_store_n(&queue->ring.avail->idx, queue->filled, __ATOMIC_RELEASE);
    queue->published = queue->filled;
    FULL_FENCE(); /* the index is visible before the device's wish is read: one of both ends sees the other's */
    if (wants_kick(queue, old)) {
        queue_kick(queue);
    }
}

uint16_t queue_used(const struct queue *queue)
{
    return __atomic_load_n(&queue->ring.used->idx, __ATOMIC_ACQUIRE);
}

void queue_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int queue_reap(struct queue *queue, uint8_t *status)
{
    unsigned stride = queue->indirect ? 1 : QUEUE_CHAIN_LENGTH;
    uint32_t head;

    if (queue_used(queue) == queue->reaped) {
        return QUEUE_EMPTY;
    }
    head = queue->ring.used->ring[queue->reaped % queue->ring.num].id;
    queue->reaped++;
    if (queue->polls && queue->event_index) {
        /* The index that the device reaches last. */
        __atomic_store_n(&vring_used_event(&queue->ring), (uint16_t)(queue->reaped - 1), __ATOMIC_RELAXED);
    }
    if (head % stride != 0 || head / stride >= queue->depth) {
        return QUEUE_NO_SLOT;
    }
    *status = queue->slots[head / stride].status;
    return (int)(head / stride);
}

void queue_wait(struct queue *queue)
{
    uint64_t count;

    if (queue->event_index) {
        __atomic_store_n(&vring_used_event(&queue->ring), queue->reaped, __ATOMIC_RELAXED);
        FULL_FENCE(); /* as in queue_publish() */
    }
    if (queue_used(queue) != queue->reaped) {
        return;
    }
    queue->waits++;
    if (read(queue->call_fd, &count, sizeof(count)) < 0 && errno == EAGAIN) {
        struct pollfd readable = {.fd = queue->call_fd, .events = POLLIN};

        poll(&readable, 1, -1);
    }
}

void queue_restart(struct queue *queue)
{
    int flags = fcntl(queue->call_fd, F_GETFL);

    fcntl(queue->call_fd, F_SETFL, flags & ~O_NONBLOCK);
    queue_kick(queue);
}

void queue_wake(const struct queue *queue)
{
    uint64_t one = 1;

    if (write(queue->call_fd, &one, sizeof(one)) < 0) {
        return; /* it is awake */
    }
}
