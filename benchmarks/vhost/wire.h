/*
 * The messages of vhost-user, as far as a front end for virtio-blk sends them: QEMU's docs/interop/vhost-user.rst.
 * All fields have the host's byte order.
 */
#ifndef VHOST_WIRE_H
#define VHOST_WIRE_H

#include <stdint.h>

#define VHOST_REGIONS_MAX 8

enum vhost_request {
    VHOST_GET_FEATURES = 1,
    VHOST_SET_FEATURES = 2,
    VHOST_SET_OWNER = 3,
    VHOST_SET_MEM_TABLE = 5,
    VHOST_SET_VRING_NUM = 8,
    VHOST_SET_VRING_ADDR = 9,
    VHOST_SET_VRING_BASE = 10,
    VHOST_GET_VRING_BASE = 11,
    VHOST_SET_VRING_KICK = 12,
    VHOST_SET_VRING_CALL = 13,
    VHOST_GET_PROTOCOL_FEATURES = 15,
    VHOST_SET_PROTOCOL_FEATURES = 16,
    VHOST_GET_QUEUE_NUM = 17,
    VHOST_SET_VRING_ENABLE = 18,
    VHOST_GET_CONFIG = 24,
    VHOST_GET_INFLIGHT_FD = 31,
    VHOST_SET_INFLIGHT_FD = 32,
};

enum {
    VHOST_VERSION = 1,
    VHOST_REPLY = 4,
    VHOST_NEED_REPLY = 8,
};

/* A feature bit beside those of virtio. */
#define VHOST_F_PROTOCOL_FEATURES 30

enum vhost_protocol_feature {
    VHOST_PROTOCOL_F_MQ = 0,
    VHOST_PROTOCOL_F_REPLY_ACK = 3,
    VHOST_PROTOCOL_F_CONFIG = 9,
    VHOST_PROTOCOL_F_INFLIGHT_SHMFD = 12,
};

struct vhost_header {
    uint32_t request;
    uint32_t flags;
    uint32_t bytes;
};

struct vhost_region {
    uint64_t guest_address;
    uint64_t bytes;
    uint64_t user_address;
    uint64_t file_offset;
};

struct vhost_memory {
    uint32_t region_count;
    uint32_t padding;
    struct vhost_region regions[VHOST_REGIONS_MAX];
};

struct vhost_ring_state {
    uint32_t index;
    uint32_t number;
};

struct vhost_ring_address {
    uint32_t index;
    uint32_t flags;
    uint64_t descriptors;
    uint64_t used;
    uint64_t available;
    uint64_t log;
};

#define VHOST_CONFIG_BYTES_MAX 256

struct vhost_config {
    uint32_t offset;
    uint32_t bytes;
    uint32_t flags;
    uint8_t data[VHOST_CONFIG_BYTES_MAX];
};

struct vhost_inflight {
    uint64_t bytes;
    uint64_t file_offset;
    uint16_t queue_count;
    uint16_t queue_size;
};

union vhost_payload {
    uint64_t number;
    struct vhost_memory memory;
    struct vhost_ring_state state;
    struct vhost_ring_address address;
    struct vhost_config config;
    struct vhost_inflight inflight;
};

#endif
