/*
 * blocking.c - the blocking calls: a request, waited for; long ones in parts, one after the other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"

/* One request with its copy of the data: `in` goes with it, `out` comes back. */
static int64_t perform(struct aiod_client *client, const struct aiod_op *asked, const void *in, void *out,
                       int64_t timeout_ns)
{
    struct aiod_op *op = malloc(sizeof(*op));
    int64_t result;
    int error;

    if (op == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    *op = *asked;
    op->awaited = true; /* or another thread's aiod_reap() may return it */
    if (asked->length > 0) {
        op->buffer = aiod_alloc(client, asked->length);
        if (op->buffer == NULL) {
            free(op);
            return aiod_fail(-ENOBUFS,
                             "the ring's buffer area is used up: wait for others, or attach with more area_bytes");
        }
    }
    if (in != NULL && op->buffer != NULL) {
        memcpy(op->buffer, in, asked->length);
    }
    error = aiod_submit(client, &op, 1);
    if (error <= 0) {
        aiod_free(client, op->buffer);
        free(op);
        return error < 0 ? error : aiod_fail(-EAGAIN, "as many requests are in flight as the ring has entries");
    }
    error = aiod_wait(client, op, timeout_ns);
    if (error < 0) {
        aiod_abandon(client, op);
        return aiod_fail(error, "no answer in time: unknown whether done");
    }
    result = op->result;
    if (result < 0) {
        aiod_fail((int)result, "%s (%s)", strerror((int)-result), aiod_reason_text(op->reason));
    } else if (out != NULL && result > 0) {
        memcpy(out, op->buffer, (size_t)result);
    }
    aiod_free(client, op->buffer);
    free(op);
    return result;
}

static int64_t transfer(struct aiod_client *client, unsigned op, uint32_t handle, const char *in, char *out,
                        uint64_t length, uint64_t offset, int64_t timeout_ns)
{
    uint64_t part_max = aiod_request_bytes_max(client);
    uint64_t done = 0;

    do {
        uint64_t part = length - done < part_max ? length - done : part_max;
        struct aiod_op request = {.op = (uint16_t)op, .handle = handle, .offset = offset + done, .length = part};
        int64_t result =
            perform(client, &request, in == NULL ? NULL : in + done, out == NULL ? NULL : out + done, timeout_ns);

        if (result < 0) {
            return result;
        }
        done += (uint64_t)result;
        if ((uint64_t)result < part) {
            break;
        }
    } while (done < length);
    return (int64_t)done;
}

int64_t aiod_pread(struct aiod_client *client, uint32_t handle, void *data, uint64_t length, uint64_t offset,
                   int64_t timeout_ns)
{
    return transfer(client, AIOD_RING_READ, handle, NULL, data, length, offset, timeout_ns);
}

int64_t aiod_pwrite(struct aiod_client *client, uint32_t handle, const void *data, uint64_t length, uint64_t offset,
                    int64_t timeout_ns)
{
    return transfer(client, AIOD_RING_WRITE, handle, data, NULL, length, offset, timeout_ns);
}

int64_t aiod_flush(struct aiod_client *client, uint32_t handle, int64_t timeout_ns)
{
    struct aiod_op request = {.op = AIOD_RING_FLUSH, .handle = handle};

    return perform(client, &request, NULL, NULL, timeout_ns);
}
