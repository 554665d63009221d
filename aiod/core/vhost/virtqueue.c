/* virtqueue.c - the split virtqueue (virtqueue.h). */
#include "vhost/virtqueue.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

/* ---- the parts --------------------------------------------------------------------------------------------------- */

static bool has(uint64_t features, unsigned bit)
{
    return (features >> bit & 1) != 0;
}

/* Bytes of the available and of the used ring, each with its event index. */
static uint64_t available_bytes(uint16_t size)
{
    return sizeof(struct vring_avail) + (uint64_t)size * sizeof(__virtio16) + sizeof(__virtio16);
}

static uint64_t used_bytes(uint16_t size)
{
    return sizeof(struct vring_used) + (uint64_t)size * sizeof(struct vring_used_elem) + sizeof(__virtio16);
}

const char *aiod_virtqueue_create(struct aiod_virtqueue **result, struct aiod_memory_table *table,
                                  const struct aiod_virtqueue_addresses *addresses, uint16_t size, uint64_t features)
{
    struct aiod_virtqueue *queue;
    void *descriptors = aiod_memory_table_find_user(table, addresses->descriptors, (uint64_t)size * 16);
    void *available = aiod_memory_table_find_user(table, addresses->available, available_bytes(size));
    void *used = aiod_memory_table_find_user(table, addresses->used, used_bytes(size));

    if (size == 0 || size > AIOD_VIRTQUEUE_SIZE_MAX || (size & (size - 1)) != 0) {
        return "a virtqueue has a size that is not a power of two up to 1024";
    }
    if (descriptors == NULL || available == NULL || used == NULL) {
        return "a virtqueue lies outside of the guest's memory";
    }
    if ((uintptr_t)descriptors % 16 != 0 || (uintptr_t)available % 2 != 0 || (uintptr_t)used % 4 != 0) {
        return "a virtqueue is not aligned";
    }
    queue = malloc(sizeof(*queue));
    if (queue == NULL) {
        return "no memory for a virtqueue";
    }
    *queue = (struct aiod_virtqueue){
        .table = aiod_memory_table_get(table),
        .descriptors = descriptors,
        .available = available,
        .used = used,
        .size = size,
        .event_idx = has(features, VIRTIO_RING_F_EVENT_IDX),
        .may_indirect = has(features, VIRTIO_RING_F_INDIRECT_DESC),
    };
    *result = queue;
    return NULL;
}

void aiod_virtqueue_destroy(struct aiod_virtqueue *queue)
{
    if (queue != NULL) {
        aiod_memory_table_put(queue->table);
        free(queue);
    }
}

/* ---- available entries ------------------------------------------------------------------------------------------- */

uint16_t aiod_virtqueue_available(const struct aiod_virtqueue *queue)
{
    return __atomic_load_n(&queue->available->idx, __ATOMIC_SEQ_CST); /* after aiod_virtqueue_ask_for_kick() */
}

uint16_t aiod_virtqueue_head(const struct aiod_virtqueue *queue, uint16_t index)
{
    return __atomic_load_n(&queue->available->ring[index & (queue->size - 1)], __ATOMIC_RELAXED);
}

/* ---- chains ------------------------------------------------------------------------------------------------------ */

/* A table of descriptors that is walked: that of the queue, or an indirect one. */
struct walk {
    const struct vring_desc *table;
    unsigned size;
    unsigned next;
    bool indirect;
};

/* The only access to a descriptor: word by word and atomic, so that the compiler cannot read a field again. */
static struct vring_desc copy_descriptor(const struct vring_desc *shared)
{
    const uint64_t *from = (const uint64_t *)(const void *)shared;
    uint64_t words[2] = {__atomic_load_n(&from[0], __ATOMIC_RELAXED), __atomic_load_n(&from[1], __ATOMIC_RELAXED)};
    struct vring_desc descriptor;

    memcpy(&descriptor, words, sizeof(descriptor));
    return descriptor;
}

static const char *make_room(struct aiod_chain *chain)
{
    unsigned room = chain->room * 4;
    struct iovec *parts;

    if (chain->count < chain->room) {
        return NULL;
    }
    if (room > 4 * AIOD_CHAIN_DESCRIPTORS_MAX) {
        return "a chain of descriptors has too many parts";
    }
    parts = malloc(room * sizeof(*parts));
    if (parts == NULL) {
        return "no memory for a chain of descriptors";
    }
    memcpy(parts, chain->parts, chain->count * sizeof(*parts));
    if (chain->parts != chain->few) {
        free(chain->parts);
    }
    chain->parts = parts;
    chain->room = room;
    return NULL;
}

/* Parts that are next to each other become one, unless one is read and the other one written. */
static const char *add_part(struct aiod_chain *chain, char *memory, uint64_t bytes, bool writable)
{
    struct iovec *last = chain->count > 0 ? &chain->parts[chain->count - 1] : NULL;
    bool begins = writable && chain->count == chain->readable;
    const char *why;

    if (last != NULL && !begins && (char *)last->iov_base + last->iov_len == memory) {
        last->iov_len += bytes;
        return NULL;
    }
    why = make_room(chain);
    if (why == NULL) {
        chain->parts[chain->count++] = (struct iovec){.iov_base = memory, .iov_len = bytes};
        chain->readable += !writable;
    }
    return why;
}

/* Add the memory of a descriptor, which may lie in several regions. */
static const char *add_buffer(const struct aiod_virtqueue *queue, struct aiod_chain *chain,
                              const struct vring_desc *descriptor)
{
    bool writable = (descriptor->flags & VRING_DESC_F_WRITE) != 0;
    uint64_t address = descriptor->addr;
    uint64_t left = descriptor->len;

    if (!writable && chain->writable_bytes > 0) {
        return "a chain has a buffer to read behind one to write";
    }
    chain->bytes += left;
    chain->writable_bytes += writable ? left : 0;
    if (chain->bytes > AIOD_CHAIN_BYTES_MAX) {
        return "a chain of descriptors has more than 1 GiB";
    }
    while (left > 0) {
        uint64_t there;
        char *memory = aiod_memory_table_find(queue->table, address, &there);
        uint64_t bytes = memory != NULL && there < left ? there : left;
        const char *why = memory == NULL ? "a descriptor points outside of the guest's memory"
                                         : add_part(chain, memory, bytes, writable);

        if (why != NULL) {
            return why;
        }
        address += bytes;
        left -= bytes;
    }
    return NULL;
}

static const char *enter_indirect(const struct aiod_virtqueue *queue, struct walk *walk,
                                  const struct vring_desc *descriptor)
{
    uint64_t there;
    char *table = aiod_memory_table_find(queue->table, descriptor->addr, &there);

    if (!queue->may_indirect || walk->indirect || (descriptor->flags & VRING_DESC_F_NEXT) != 0) {
        return "an indirect descriptor is where none may be";
    }
    if (descriptor->len == 0 || descriptor->len % sizeof(*walk->table) != 0 || table == NULL ||
        there < descriptor->len || (uintptr_t)table % sizeof(uint64_t) != 0) {
        return "an indirect table has a wrong length, or lies outside of the guest's memory";
    }
    *walk = (struct walk){.table = (const struct vring_desc *)(const void *)table,
                          .size = (unsigned)(descriptor->len / sizeof(*walk->table)),
                          .indirect = true};
    return NULL;
}

const char *aiod_virtqueue_collect(const struct aiod_virtqueue *queue, uint16_t head, struct aiod_chain *chain)
{
    struct walk walk = {.table = queue->descriptors, .size = queue->size, .next = head};
    const char *why = NULL;

    chain->parts = chain->few;
    chain->room = AIOD_CHAIN_INLINE;
    chain->count = chain->readable = 0;
    chain->bytes = chain->writable_bytes = 0;
    for (unsigned steps = 0; steps <= AIOD_CHAIN_DESCRIPTORS_MAX; steps++) {
        struct vring_desc descriptor;

        if (walk.next >= walk.size) {
            return "a descriptor has a number that is out of range";
        }
        descriptor = copy_descriptor(&walk.table[walk.next]);
        if ((descriptor.flags & VRING_DESC_F_INDIRECT) != 0) {
            why = enter_indirect(queue, &walk, &descriptor);
        } else {
            why = add_buffer(queue, chain, &descriptor);
            if (why == NULL && (descriptor.flags & VRING_DESC_F_NEXT) == 0) {
                return NULL;
            }
            walk.next = descriptor.next;
        }
        if (why != NULL) {
            return why;
        }
    }
    return "a chain of descriptors is too long, or a loop";
}

void aiod_chain_release(struct aiod_chain *chain)
{
    if (chain->parts != chain->few) {
        free(chain->parts);
    }
    chain->parts = chain->few;
}

/* ---- used entries ------------------------------------------------------------------------------------------------ */

void aiod_virtqueue_use(const struct aiod_virtqueue *queue, uint16_t index, uint16_t head, uint32_t written)
{
    struct vring_used_elem *entry = &queue->used->ring[index & (queue->size - 1)];

    __atomic_store_n(&entry->id, head, __ATOMIC_RELAXED);
    __atomic_store_n(&entry->len, written, __ATOMIC_RELAXED);
}

void aiod_virtqueue_publish(const struct aiod_virtqueue *queue, uint16_t index)
{
    __atomic_store_n(&queue->used->idx, index, __ATOMIC_SEQ_CST); /* before aiod_virtqueue_wants_call() */
}

uint16_t aiod_virtqueue_published(const struct aiod_virtqueue *queue)
{
    return __atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE);
}

/* ---- notifications ----------------------------------------------------------------------------------------------- */

bool aiod_virtqueue_wants_call(const struct aiod_virtqueue *queue, uint16_t before, uint16_t index)
{
    if (!queue->event_idx) {
        return (__atomic_load_n(&queue->available->flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT) == 0;
    }
    return vring_need_event(__atomic_load_n(&queue->available->ring[queue->size], __ATOMIC_SEQ_CST), index, before) !=
           0;
}

/* Behind the used ring. */
static __virtio16 *available_event(const struct aiod_virtqueue *queue)
{
    return (__virtio16 *)(void *)&queue->used->ring[queue->size];
}

void aiod_virtqueue_ask_for_kick(const struct aiod_virtqueue *queue, uint16_t index)
{
    if (queue->event_idx) {
        __atomic_store_n(available_event(queue), index, __ATOMIC_SEQ_CST);
    } else {
        __atomic_store_n(&queue->used->flags, (__virtio16)0, __ATOMIC_SEQ_CST);
    }
}

/*
 * With event indices the guest notifies when it makes the entry available that it was asked for. It was asked for `next` when
 * the device last slept: the one before that is past, and comes again only after 2^16 entries.
 */
void aiod_virtqueue_need_no_kick(const struct aiod_virtqueue *queue, uint16_t next)
{
    if (queue->event_idx) {
        __atomic_store_n(available_event(queue), (__virtio16)(next - 1), __ATOMIC_RELAXED);
    } else {
        __atomic_store_n(&queue->used->flags, (__virtio16)VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
    }
}
