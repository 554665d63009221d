/*
 * virtqueue.h - a split virtqueue in the guest's memory (virtio 1.2, section 2.7): available entries, chains of
 * descriptors, used entries, and when the guest wants to be notified.
 *
 * Nothing in the guest's memory is trusted. Each descriptor is copied once, then checked, then used. Chains are bounded: by
 * the size of the table, by AIOD_CHAIN_DESCRIPTORS_MAX, and by AIOD_CHAIN_BYTES_MAX.
 *
 * No locks and no state of its own; queue.h says which thread calls what.
 */
#ifndef AIOD_VIRTQUEUE_H
#define AIOD_VIRTQUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vhost/memory_table.h"

#define AIOD_VIRTQUEUE_SIZE_MAX 1024u
#define AIOD_CHAIN_DESCRIPTORS_MAX 1024u
#define AIOD_CHAIN_BYTES_MAX (UINT64_C(1) << 30)
#define AIOD_CHAIN_INLINE 8u

struct vring_desc;
struct vring_avail;
struct vring_used;

/* The addresses of the VMM at which the parts lie. */
struct aiod_virtqueue_addresses {
    uint64_t descriptors;
    uint64_t available;
    uint64_t used;
};

/* The parts of a queue in the guest's memory. Constant. */
struct aiod_virtqueue {
    struct aiod_memory_table *table; /* a reference */
    const struct vring_desc *descriptors;
    struct vring_avail *available;
    struct vring_used *used;
    uint16_t size;     /* a power of two */
    bool event_idx;    /* the feature is in use */
    bool may_indirect; /* likewise */
};

/* The buffers of one request: first those that the device reads, then those that it writes. */
struct aiod_chain {
    struct iovec *parts;
    unsigned count;
    unsigned readable; /* the number of the first ones */
    unsigned room;
    uint64_t writable_bytes;
    uint64_t bytes;
    struct iovec few[AIOD_CHAIN_INLINE];
};

/* Find the parts. NULL, or the reason why not. Takes a reference to the table. */
const char *aiod_virtqueue_create(struct aiod_virtqueue **queue, struct aiod_memory_table *table,
                                  const struct aiod_virtqueue_addresses *addresses, uint16_t size, uint64_t features);
void aiod_virtqueue_destroy(struct aiod_virtqueue *queue);

/* The index behind the last entry that the guest has made available. */
uint16_t aiod_virtqueue_available(const struct aiod_virtqueue *queue);

/* The head of the chain in the available entry with that index. Not checked. */
uint16_t aiod_virtqueue_head(const struct aiod_virtqueue *queue, uint16_t index);

/*
 * Collect the buffers of the chain that begins at `head`, which is less than the queue's size. NULL, or which rule the
 * guest broke. aiod_chain_release() must follow in both cases.
 */
const char *aiod_virtqueue_collect(const struct aiod_virtqueue *queue, uint16_t head, struct aiod_chain *chain);
void aiod_chain_release(struct aiod_chain *chain);

/* Write the used entry with that index. aiod_virtqueue_publish() must follow. */
void aiod_virtqueue_use(const struct aiod_virtqueue *queue, uint16_t index, uint16_t head, uint32_t written);

/* The used entries before `index` are the guest's. */
void aiod_virtqueue_publish(const struct aiod_virtqueue *queue, uint16_t index);

/* The index that was published last. */
uint16_t aiod_virtqueue_published(const struct aiod_virtqueue *queue);

/* Does the guest want to be notified of the used entries from `before` to `index`, which were published? */
bool aiod_virtqueue_wants_call(const struct aiod_virtqueue *queue, uint16_t before, uint16_t index);

/*
 * Ask the guest to notify the device of the available entry `index` (and later ones), or not to notify of those from `next` on.
 * Available entries must be looked for once more after the first.
 */
void aiod_virtqueue_ask_for_kick(const struct aiod_virtqueue *queue, uint16_t index);
void aiod_virtqueue_need_no_kick(const struct aiod_virtqueue *queue, uint16_t next);

#endif
