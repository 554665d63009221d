/*
 * blk.h - a virtio block device (virtio 1.2, section 5.2): its configuration space, its features, and what a chain of
 * buffers asks for.
 *
 * No I/O, no locks: the capacity is atomic, the rest constant.
 */
#ifndef AIOD_BLK_H
#define AIOD_BLK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/records.h"
#include "vhost/virtqueue.h"

#define AIOD_BLK_CONFIG_BYTES 60u
#define AIOD_BLK_SERIAL_BYTES 20u
#define AIOD_BLK_SECTOR_BYTES 512u
#define AIOD_BLK_QUEUES_MAX 64u

struct aiod_blk {
    uint64_t sectors;        /* the capacity; accessed by atomic operations */
    uint32_t block_bytes;    /* of a logical block */
    uint32_t physical_bytes; /* transfers should be aligned to these; a power of two, at least block_bytes */
    bool read_only;
    uint16_t queue_count;
    char serial[AIOD_BLK_SERIAL_BYTES]; /* padded with zeroes */
};

/* The features that the device offers. */
uint64_t aiod_blk_features(const struct aiod_blk *blk);

/* Copy the configuration space, with zeroes behind its end. */
void aiod_blk_config(const struct aiod_blk *blk, void *space, size_t offset, size_t bytes);

/* The status of a request, its last byte. */
enum aiod_blk_status {
    AIOD_BLK_OK,
    AIOD_BLK_FAILED,
    AIOD_BLK_UNSUPPORTED,
};

/* What a chain asks for. */
struct aiod_blk_request {
    char *status; /* where its status goes */
    bool ended;   /* nothing is to be done: `result` is its status */
    enum aiod_blk_status result;
    uint32_t written;              /* bytes that the device writes, with the status, if it succeeds */
    struct aiod_submission record; /* without handle and cookie */
    struct iovec *data;            /* of a read or write: a part of the chain, which was cut to it */
    unsigned data_count;
};

/*
 * Understand a chain, and carry out what needs no I/O. NULL, or which rule the guest broke: then the request has no place for
 * a status. `through`: writes are durable before they complete.
 */
const char *aiod_blk_understand(const struct aiod_blk *blk, struct aiod_chain *chain, bool through,
                                struct aiod_blk_request *request);

#endif
