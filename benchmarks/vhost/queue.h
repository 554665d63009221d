/*
 * The driver's end of a split virtqueue for virtio-blk. A queue has `depth` slots; a slot carries one request at a time,
 * and always uses the same descriptors, header and status byte. One thread uses a queue.
 */
#ifndef VHOST_QUEUE_H
#define VHOST_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

/* Header, data, status. */
#define QUEUE_CHAIN_LENGTH 3

struct queue {
    struct vring ring;
    struct queue_slot_memory *slots;
    uint8_t *data; /* block_bytes for each slot */
    size_t block_bytes;
    uint64_t guest_offset; /* guest address of an object, less its address here */
    unsigned depth;
    int kick_fd;
    int call_fd;
    bool event_index;
    bool indirect;
    bool polls;         /* the driver polls: the device need not notify */
    uint16_t published; /* requests that the device may have seen */
    uint16_t filled;    /* requests in the ring */
    uint16_t reaped;    /* completions taken */
    uint64_t kicks;
    uint64_t waits;
};

struct queue_options {
    unsigned depth;
    size_t block_bytes; /* most bytes of data of one request */
    bool event_index;
    bool indirect;
    bool polls;
};

/* Entries of a ring for `depth` slots: a power of two. */
unsigned queue_size(const struct queue_options *options);

/* Bytes of guest memory for a queue: a multiple of the page size. */
size_t queue_bytes(const struct queue_options *options);

/*
 * A queue in `memory`, which is zero, page-aligned, and has queue_bytes() bytes. Returns false, with errno set, if there
 * is no eventfd.
 */
bool queue_init(struct queue *queue, void *memory, uint64_t guest_address, const struct queue_options *options);

void queue_close(struct queue *queue);

/* The data of a slot. */
uint8_t *queue_data(const struct queue *queue, unsigned slot);

/*
 * Put a request into the ring: `type` is VIRTIO_BLK_T_*; `bytes` of the slot's data are read or written by the device,
 * as the type says. The device sees it after queue_publish().
 */
void queue_fill(struct queue *queue, unsigned slot, uint32_t type, uint64_t sector, size_t bytes);

/* Show the filled requests to the device, and kick it if it wants that. */
void queue_publish(struct queue *queue);

/* Kick the device in any case. */
void queue_kick(struct queue *queue);

enum {
    QUEUE_EMPTY = -1,   /* no completion */
    QUEUE_NO_SLOT = -2, /* the device has completed a descriptor that begins no request */
};

/* The slot of the next completion, with its *status (VIRTIO_BLK_S_*), or one of the above. */
int queue_reap(struct queue *queue, uint8_t *status);

/* Wait until the call eventfd says that there may be a completion. Returns at once if there is one. */
void queue_wait(struct queue *queue);

/* Between two looks at the ring in a loop. */
void queue_pause(void);

/*
 * A server has taken the queue: kick it, for requests that the last server has not seen. A server may have made the
 * call eventfd non-blocking, for the driver as well; undone here.
 */
void queue_restart(struct queue *queue);

/* End a queue_wait() of another thread. */
void queue_wake(const struct queue *queue);

/* Requests that the device has completed, by its own count. */
uint16_t queue_used(const struct queue *queue);

#endif
