/*
 * The front end of vhost-user for one virtio-blk device: what a VMM does, with memory of this process in the place of a
 * guest's. A lost connection can be replaced: front_start() again, and the server carries on with the same queues.
 */
#ifndef VHOST_FRONT_H
#define VHOST_FRONT_H

#include "queue.h"
#include "wire.h"

struct front_options {
    const char *socket;
    unsigned queue_count;
    struct queue_options queue;
};

struct front {
    struct front_options options;
    int socket;
    uint64_t features;
    uint64_t protocol_features;
    struct virtio_blk_config config;
    int memory_fd;
    void *memory;
    size_t memory_bytes;
    struct queue *queues;
    int inflight_fd; /* -1 before the first start, and if the server has none */
    struct vhost_inflight inflight;
    const char *failed; /* the step that failed, for an error message; errno says why */
};

/* Memory and queues. Returns false with `failed` set. */
bool front_init(struct front *front, const struct front_options *options);

/* Connect, negotiate, and start all queues. Returns false with `failed` set. May be repeated after a lost connection. */
bool front_start(struct front *front);

/* Stop the queues; no request may be in flight. Returns false with `failed` set. */
bool front_stop(struct front *front);

/* Close everything. */
void front_close(struct front *front);

/* Whether a feature of virtio was negotiated. */
bool front_has(const struct front *front, unsigned feature);

/* Whether requests in flight survive the server: it keeps them in a memory that the front end holds. */
bool front_resumes(const struct front *front);

#endif
