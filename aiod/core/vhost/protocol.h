/*
 * protocol.h - the vhost-user protocol (QEMU docs/interop/vhost-user.rst): numbers and payloads of the messages that the
 * device knows. Numbers are in the machine's byte order.
 */
#ifndef AIOD_VHOST_PROTOCOL_H
#define AIOD_VHOST_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

#include "vhost/memory_table.h"

enum aiod_vhost_message_kind {
    AIOD_VHOST_GET_FEATURES = 1,
    AIOD_VHOST_SET_FEATURES = 2,
    AIOD_VHOST_SET_OWNER = 3,
    AIOD_VHOST_RESET_OWNER = 4,
    AIOD_VHOST_SET_MEM_TABLE = 5,
    AIOD_VHOST_SET_VRING_NUM = 8,
    AIOD_VHOST_SET_VRING_ADDR = 9,
    AIOD_VHOST_SET_VRING_BASE = 10,
    AIOD_VHOST_GET_VRING_BASE = 11,
    AIOD_VHOST_SET_VRING_KICK = 12,
    AIOD_VHOST_SET_VRING_CALL = 13,
    AIOD_VHOST_SET_VRING_ERR = 14,
    AIOD_VHOST_GET_PROTOCOL_FEATURES = 15,
    AIOD_VHOST_SET_PROTOCOL_FEATURES = 16,
    AIOD_VHOST_GET_QUEUE_NUM = 17,
    AIOD_VHOST_SET_VRING_ENABLE = 18,
    AIOD_VHOST_SET_BACKEND_REQ_FD = 21,
    AIOD_VHOST_GET_CONFIG = 24,
    AIOD_VHOST_SET_CONFIG = 25,
    AIOD_VHOST_GET_INFLIGHT_FD = 31,
    AIOD_VHOST_SET_INFLIGHT_FD = 32,
    AIOD_VHOST_GET_MAX_MEM_SLOTS = 36,
    AIOD_VHOST_ADD_MEM_REG = 37,
    AIOD_VHOST_REM_MEM_REG = 38,
    AIOD_VHOST_KINDS,
};

#define AIOD_VHOST_BACKEND_CONFIG_CHANGE 2u /* a message to the VMM, on a socket of its own */

enum aiod_vhost_flag {
    AIOD_VHOST_VERSION = 1,
    AIOD_VHOST_VERSION_MASK = 3,
    AIOD_VHOST_REPLY = 4,
    AIOD_VHOST_NEED_REPLY = 8,
};

/* Bits of features and of protocol features. */
#define AIOD_VHOST_F_PROTOCOL_FEATURES 30u
#define AIOD_VHOST_PROTOCOL_F_MQ 0u
#define AIOD_VHOST_PROTOCOL_F_REPLY_ACK 3u
#define AIOD_VHOST_PROTOCOL_F_BACKEND_REQ 5u
#define AIOD_VHOST_PROTOCOL_F_CONFIG 9u
#define AIOD_VHOST_PROTOCOL_F_INFLIGHT_SHMFD 12u
#define AIOD_VHOST_PROTOCOL_F_CONFIGURE_MEM_SLOTS 15u

#define AIOD_VHOST_QUEUE_MASK 0xffu
#define AIOD_VHOST_NO_FD 0x100u
#define AIOD_VHOST_CONFIG_BYTES_MAX 256u
#define AIOD_VHOST_PAYLOAD_BYTES_MAX 1056u /* a table of AIOD_MEMORY_REGIONS_MAX regions, with some room */
#define AIOD_VHOST_FDS_MAX AIOD_MEMORY_REGIONS_MAX

struct aiod_vhost_header {
    uint32_t kind;
    uint32_t flags;
    uint32_t bytes; /* of the payload */
};

struct aiod_vhost_queue_state {
    uint32_t queue;
    uint32_t number;
};

struct aiod_vhost_queue_address {
    uint32_t queue;
    uint32_t flags;
    uint64_t descriptors;
    uint64_t used;
    uint64_t available;
    uint64_t log;
};

struct aiod_vhost_region {
    uint64_t guest;
    uint64_t bytes;
    uint64_t user;
    uint64_t offset;
};

struct aiod_vhost_memory {
    uint32_t count;
    uint32_t padding;
    struct aiod_vhost_region regions[AIOD_MEMORY_REGIONS_MAX];
};

struct aiod_vhost_one_region {
    uint64_t padding;
    struct aiod_vhost_region region;
};

struct aiod_vhost_config {
    uint32_t offset;
    uint32_t bytes;
    uint32_t flags;
    uint8_t space[AIOD_VHOST_CONFIG_BYTES_MAX];
};

/* Its bytes on the wire have no padding. */
struct aiod_vhost_inflight {
    uint64_t bytes;
    uint64_t offset;
    uint16_t queue_count;
    uint16_t queue_size;
};

#define AIOD_VHOST_MEMORY_HEAD_BYTES 8u
#define AIOD_VHOST_CONFIG_HEAD_BYTES 12u
#define AIOD_VHOST_INFLIGHT_BYTES 20u

/* A message from the VMM, and its descriptors, which the receiver closes. */
struct aiod_vhost_message {
    struct aiod_vhost_header header;
    union {
        uint64_t number;
        struct aiod_vhost_queue_state state;
        struct aiod_vhost_queue_address address;
        struct aiod_vhost_memory memory;
        struct aiod_vhost_one_region one_region;
        struct aiod_vhost_config config;
        struct aiod_vhost_inflight inflight;
        uint8_t bytes[AIOD_VHOST_PAYLOAD_BYTES_MAX];
    } payload;
    int fds[AIOD_VHOST_FDS_MAX];
    unsigned fd_count;
};

static_assert(sizeof(struct aiod_vhost_header) == 12, "the protocol");
static_assert(sizeof(struct aiod_vhost_queue_address) == 40, "the protocol");
static_assert(sizeof(struct aiod_vhost_memory) == 8 + 32 * AIOD_MEMORY_REGIONS_MAX, "the protocol");
static_assert(sizeof(struct aiod_vhost_memory) <= AIOD_VHOST_PAYLOAD_BYTES_MAX, "the largest payload");

#endif
