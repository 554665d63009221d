/* core_vhost.c - serves a file to a guest (core_vhost.h). */
#include "core_vhost.h"

#include <errno.h>

#include "ops/worker_io.h"
#include "vhost/device.h"

static struct aiod_blk describe(const struct aiod_handle *handle, const struct aiod_blk *wanted, int64_t bytes)
{
    struct aiod_blk blk = *wanted;
    uint32_t physical = handle->use.direct ? handle->use.alignment.offset : 4096;

    blk.sectors = (uint64_t)bytes / AIOD_BLK_SECTOR_BYTES;
    blk.read_only = !handle->use.writable;
    blk.physical_bytes = physical > blk.block_bytes ? physical : blk.block_bytes;
    return blk;
}

int aiod_core_serve_vhost(struct aiod_core *core, struct aiod_session *session, uint32_t number,
                          const struct aiod_blk *blk)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);
    int64_t bytes = handle == NULL ? -EBADF : aiod_io_size(handle->fd);
    struct aiod_vhost_device_config config;
    int error;

    if (bytes < 0) {
        return (int)bytes;
    }
    config = (struct aiod_vhost_device_config){
        .backend =
            {
                .blk = describe(handle, blk, bytes),
                .handle = handle,
                .pool = core->pool,
                .poller = core->poller,
                .buffers = &core->buffers,
                .draining = &core->draining,
                .inline_read_max = core->inline_read_max,
            },
    };
    error = aiod_vhost_device_create(&core->vhost, &config);
    if (error == 0) {
        handle->inflight++; /* the device uses it as long as there is a core */
    }
    return error;
}

int aiod_core_vhost_fd(const struct aiod_core *core)
{
    return core->vhost->epoll_fd;
}

void aiod_core_vhost_step(struct aiod_core *core)
{
    core->vhost->log = (struct aiod_vhost_log){0};
    aiod_vhost_device_step(core->vhost);
}

const char *aiod_core_vhost_log_line(struct aiod_core *core)
{
    struct aiod_vhost_log *log = &core->vhost->log;

    return log->taken < log->count ? log->lines[log->taken++] : NULL;
}

int aiod_core_vhost_connect(struct aiod_core *core, int socket)
{
    return aiod_vhost_device_connect(core->vhost, socket);
}

void aiod_core_vhost_disconnect(struct aiod_core *core)
{
    aiod_vhost_device_disconnect(core->vhost);
}

void aiod_core_vhost_measure(struct aiod_core *core)
{
    aiod_vhost_device_measure(core->vhost);
}

struct aiod_vhost_status aiod_core_vhost_status(struct aiod_core *core)
{
    struct aiod_vhost_device *device = core->vhost;
    struct aiod_vhost_status status = {
        .connected = device->socket >= 0,
        .free = aiod_vhost_device_is_free(device),
        .read_only = device->backend.blk.read_only,
        .queues = device->queue_count,
        .regions = device->table != NULL ? device->table->count : 0,
        .block_bytes = device->backend.blk.block_bytes,
        .inflight = aiod_vhost_device_inflight(device),
        .bytes = device->backend.blk.sectors * AIOD_BLK_SECTOR_BYTES,
        .features = device->features,
        .connections = device->connections,
    };

    for (unsigned i = 0; i < device->queue_count; i++) {
        status.running += aiod_vhost_queue_is_running(&device->queues[i]);
        status.broken += device->queues[i].broken_told;
        status.resubmitted += device->queues[i].resubmitted;
    }
    return status;
}
