/*
 * core_vhost.h - an engine's file as a block device for a guest (vhost/device.h), as the main loop uses it. Main loop's thread
 * only.
 */
#ifndef AIOD_CORE_VHOST_H
#define AIOD_CORE_VHOST_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"
#include "vhost/blk.h"

/*
 * Serve an open file, until the core is destroyed: once in a core. `blk` has its number of queues, its serial and the size
 * of its blocks; the rest is known from the file. 0, or -EBADF, or another -errno.
 */
int aiod_core_serve_vhost(struct aiod_core *core, struct aiod_session *session, uint32_t handle,
                          const struct aiod_blk *blk);

/* The following functions are for a core with a device. */

/* Readable when aiod_core_vhost_step() has something to do. */
int aiod_core_vhost_fd(const struct aiod_core *core);

/* Handle messages and notices. */
void aiod_core_vhost_step(struct aiod_core *core);

/* Take a line for the log, valid until the next step; NULL: none. */
const char *aiod_core_vhost_log_line(struct aiod_core *core);

/* Serve the VMM at the other end of `socket`, which is taken over; the device is free. 0, or -errno. */
int aiod_core_vhost_connect(struct aiod_core *core, int socket);
void aiod_core_vhost_disconnect(struct aiod_core *core);

/* Look whether the file's size has changed. */
void aiod_core_vhost_measure(struct aiod_core *core);

struct aiod_vhost_status {
    bool connected;
    bool free; /* it can be connected */
    bool read_only;
    unsigned queues;
    unsigned running; /* of them */
    unsigned broken;  /* of them */
    unsigned regions; /* of the guest's memory */
    uint32_t block_bytes;
    uint32_t inflight;
    uint64_t bytes; /* the capacity */
    uint64_t features;
    uint64_t connections; /* so far */
    uint64_t resubmitted; /* requests that a former engine had left */
};

struct aiod_vhost_status aiod_core_vhost_status(struct aiod_core *core);

#endif
