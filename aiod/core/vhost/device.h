/*
 * device.h - a vhost-user block device: one VMM at a time, which shares its guest's memory and virtqueues over a socket.
 *
 * The main loop gives the device a connection, and calls aiod_vhost_device_step() when `epoll_fd` is readable. What the VMM
 * does wrong ends the connection, or is refused where the VMM asked for an answer; in both cases with a sentence in the log.
 *
 * The end of a connection: nothing is taken any more; queued requests are cancelled, and those that are being carried out end
 * without an answer. The device accepts the next VMM when all have ended, so no request of a former connection overtakes
 * what the next one resubmits.
 *
 * Main loop's thread for all functions. The device lives as long as its handle's session and the pool.
 */
#ifndef AIOD_VHOST_DEVICE_H
#define AIOD_VHOST_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vhost/messages.h"
#include "vhost/queue.h"

enum {
    AIOD_VHOST_LOG_LINES = 16,
    AIOD_VHOST_LOG_BYTES = 240,
};

/* Lines for the log of one step; more are dropped. */
struct aiod_vhost_log {
    unsigned count;
    unsigned taken;
    char lines[AIOD_VHOST_LOG_LINES][AIOD_VHOST_LOG_BYTES];
};

/* What the VMM has said of one queue. */
struct aiod_vhost_queue_settings {
    uint16_t size;
    uint16_t base;
    bool has_addresses;
    bool kicked; /* it has a doorbell, or is to do without */
    bool enabled;
    struct aiod_virtqueue_addresses addresses;
};

struct aiod_vhost_device {
    /* Constant. */
    struct aiod_vhost_backend backend;
    int epoll_fd;
    unsigned queue_count;

    /* The size of the file, which a worker finds out. */
    struct aiod_request measuring;
    atomic_bool measures;
    int64_t measured; /* bytes, or -errno; written before `measured_now` */
    atomic_bool measured_now;

    /* The connection. */
    int socket;         /* -1: none */
    int backend_socket; /* for messages to the VMM; -1: none */
    bool draining;      /* the last connection has ended, and requests of it are being carried out */
    int stopping_queue; /* the number of the queue that GET_VRING_BASE stops; -1: none. No message is read meanwhile */
    uint64_t features;
    uint64_t protocol_features;
    struct aiod_vhost_receiver receiver;
    struct aiod_memory_table *table; /* NULL: none */
    struct aiod_inflight inflight;
    struct aiod_vhost_queue_settings settings[AIOD_BLK_QUEUES_MAX];

    uint64_t connections;
    struct aiod_vhost_log log;
    struct aiod_vhost_queue queues[]; /* queue_count */
};

struct aiod_vhost_device_config {
    struct aiod_vhost_backend backend; /* without notice_fd, and with the blk's queue_count */
};

/* Create a device, whose queues the poller polls from now on. 0, or -errno. */
int aiod_vhost_device_create(struct aiod_vhost_device **device, const struct aiod_vhost_device_config *config);

/* The pool and the poller have stopped, and no worker is in a system call any more. */
void aiod_vhost_device_destroy(struct aiod_vhost_device *device);

/* May aiod_vhost_device_connect() be called? */
bool aiod_vhost_device_is_free(const struct aiod_vhost_device *device);

/* Serve the VMM at the other end of `socket`, which is taken over. The device is free. 0, or -errno. */
int aiod_vhost_device_connect(struct aiod_vhost_device *device, int socket);

/* End the connection, if there is one. */
void aiod_vhost_device_disconnect(struct aiod_vhost_device *device);

/* Handle messages and notices. Lines of device->log are the caller's. */
void aiod_vhost_device_step(struct aiod_vhost_device *device);

/* Have a worker look at the size of the file; aiod_vhost_device_step() follows it. */
void aiod_vhost_device_measure(struct aiod_vhost_device *device);

uint32_t aiod_vhost_device_inflight(struct aiod_vhost_device *device);
void aiod_vhost_device_add_stats(struct aiod_vhost_device *device, struct aiod_stats *stats);

#endif
