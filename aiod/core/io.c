#include "io.h"

#include <errno.h>
#include <unistd.h>

#include "flush.h"
#include "worker_io.h"

static int64_t run_write(const struct aiod_io *io)
{
    struct iovec whole = {.iov_base = (void *)(uintptr_t)io->data, .iov_len = io->length};
    uint64_t written;

    return aiod_io_write(io->fd, &whole, 1, io->offset, 0, &written);
}

int64_t aiod_io_run(struct aiod_request *request)
{
    struct aiod_io *io = (struct aiod_io *)request;

    switch (io->op) {
    case AIOD_READ:
        return aiod_io_read(io->fd, io->buffer->data, io->length, io->offset, io->have);
    case AIOD_WRITE:
        return run_write(io);
    case AIOD_FLUSH:
        return aiod_flush(&io->handle->flushes, io->file, io->fd, &io->task.request.reason);
    case AIOD_SIZE:
        return aiod_io_size(io->fd);
    default:
        break;
    }
    return -EINVAL;
}

int64_t aiod_control_run(struct aiod_request *request)
{
    struct aiod_control *control = (struct aiod_control *)request;

    if (control->op == AIOD_OPEN) {
        int error = aiod_confined_open(control->root, control->path, control->flags, control->mode, &control->opened);

        return error < 0 ? error : control->opened.fd;
    }
    /* Linux closes the descriptor whatever close() says: never again after EINTR. */
    return close(control->fd) < 0 && errno != EINTR ? -errno : 0;
}

void aiod_payload_put(struct aiod_payload *payload)
{
    if (payload != NULL && --payload->refs == 0) {
        payload->release(payload);
    }
}
