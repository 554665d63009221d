/*
 * inflight.h - the area in which a device notes the requests that it has taken and not completed: it survives the engine
 * (QEMU docs/interop/vhost-user.rst, "Inflight I/O tracking", split virtqueues).
 *
 * The engine makes the area, the VMM keeps it and gives it to the next engine. That one carries out again what was in flight,
 * in the order in which it was taken.
 *
 * Why this is right: a request that is noted was not acknowledged, so the guest has not relied on its result; it may have been
 * carried out, in part or whole. Reads, writes, zeroes, discards and flushes have the same effect a second time. A write that
 * is repeated could undo a later write of the same sectors only if that one was submitted while the first was in flight; a
 * guest must not expect an order between these. The engine that died cannot write any more when the next one begins: that one
 * starts after the last system call and io_uring of its predecessor has ended (engine's lock). A request is acknowledged
 * by the used index. The engine may die between that and the end of the note: the area names the last batch, whose notes do
 * not count if the used index has moved.
 *
 * Nothing in the area is trusted: the VMM can write there.
 *
 * No locks; queue.h says which thread calls what.
 */
#ifndef AIOD_INFLIGHT_H
#define AIOD_INFLIGHT_H

#include <stdint.h>

/* The notes of one virtqueue. */
struct aiod_inflight_queue;

struct aiod_inflight {
    void *start; /* NULL: there is no area */
    uint64_t bytes;
    uint64_t queue_bytes;
    uint16_t queue_count;
    uint16_t queue_size; /* descriptors of each */
};

/* The bytes of an area. */
uint64_t aiod_inflight_bytes(uint16_t queue_count, uint16_t queue_size);

/* Make a file for an area. The descriptor, or -errno. */
int aiod_inflight_create(uint16_t queue_count, uint16_t queue_size);

/* Map an area of `bytes` bytes at `offset` of the file. NULL, or the reason why not. `*area` must have none. */
const char *aiod_inflight_map(struct aiod_inflight *area, int fd, uint64_t offset, uint64_t bytes, uint16_t queue_count,
                              uint16_t queue_size);
void aiod_inflight_unmap(struct aiod_inflight *area);

/* The notes of a virtqueue of `size` descriptors; NULL: there are none. */
struct aiod_inflight_queue *aiod_inflight_of(const struct aiod_inflight *area, unsigned index, uint16_t size);

/* What a former engine has left. */
struct aiod_inflight_left {
    uint16_t heads[1024]; /* in the order in which they were taken */
    uint16_t count;
    uint64_t counter; /* for the next request */
};

/* Begin with a queue whose used index is `used`. */
void aiod_inflight_begin(struct aiod_inflight_queue *notes, uint16_t size, uint16_t used,
                         struct aiod_inflight_left *left);

/* A request is taken. */
void aiod_inflight_take(struct aiod_inflight_queue *notes, uint16_t head, uint64_t counter);

/* A request is going to be published, and has been published with that used index. */
void aiod_inflight_publishing(struct aiod_inflight_queue *notes, uint16_t head);
void aiod_inflight_published(struct aiod_inflight_queue *notes, uint16_t head, uint16_t used);

#endif
