/*
 * paths.c - the blocking calls on paths: one request each, with the path at the beginning of its buffer.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "client.h"
#include "error.h"
#include "forks.h"

static bool fits(const struct aiod_client *client, size_t path_bytes, uint64_t length)
{
    return path_bytes < AIOD_RING_PATH_MAX && length <= aiod_request_bytes_max(client);
}

/* Allocate the request, with the path in a buffer of `bytes`. NULL: there is no memory or no room. */
static struct aiod_op *prepare(struct aiod_client *client, uint16_t operation, uint32_t names, const char *path,
                               uint64_t bytes)
{
    size_t path_bytes = strlen(path);
    struct aiod_op *op = calloc(1, sizeof(*op));

    if (op == NULL) {
        return NULL;
    }
    op->buffer = aiod_alloc(client, bytes > path_bytes ? bytes : path_bytes + 1);
    if (op->buffer == NULL) {
        free(op);
        return NULL;
    }
    op->op = operation;
    op->handle = names;
    op->source = (uint32_t)path_bytes;
    op->awaited = true;
    memcpy(op->buffer, path, path_bytes);
    return op;
}

static void release(struct aiod_client *client, struct aiod_op *op)
{
    aiod_free(client, op->buffer);
    free(op);
}

static int64_t refused(const struct aiod_op *op, const char *what, const char *path)
{
    return aiod_fail_because(op->reason, (int)op->result, "%s %s: %s (%s)", what, path, strerror((int)-op->result),
                             aiod_reason_text(op->reason));
}

/* Submit and wait. 0: it is done, with a result or an error; else -errno, and the request belongs to the library. */
static int64_t carry_out(struct aiod_client *client, struct aiod_op *op, const char *what, int64_t timeout_ns)
{
    int submitted = aiod_submit(client, &op, 1);

    if (submitted != 1) {
        release(client, op);
        return submitted < 0 ? submitted : aiod_fail(-EAGAIN, "%s: no room in the ring", what);
    }
    if (aiod_wait(client, op, timeout_ns) < 0) {
        aiod_abandon(client, op);
        return aiod_fail(-ETIMEDOUT, "%s: no answer in time: unknown whether done", what);
    }
    return 0;
}

static int64_t query(struct aiod_client *client, uint16_t operation, uint32_t names, const char *path, void *data,
                     uint64_t length, struct aiod_ring_stat *stat, int64_t timeout_ns)
{
    const char *what = operation == AIOD_RING_READ_FILE ? "read" : "stat";
    uint64_t room = sizeof(*stat) + length;
    struct aiod_op *op;
    int64_t result;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    if (!fits(client, strlen(path), room)) {
        return aiod_fail(-EMSGSIZE, "%s: the path or the room is too long for one request", what);
    }
    op = prepare(client, operation, names, path, room);
    if (op == NULL) {
        return aiod_fail(-ENOBUFS, "%s %s: no room in the buffer area", what, path);
    }
    op->length = room;
    result = carry_out(client, op, what, timeout_ns);
    if (result < 0) {
        return result;
    }
    if (stat != NULL && (op->result >= 0 || op->result == -EFBIG)) {
        memcpy(stat, op->buffer, sizeof(*stat));
    }
    if (op->result > (int64_t)sizeof(*stat)) {
        memcpy(data, (char *)op->buffer + sizeof(*stat), (size_t)op->result - sizeof(*stat));
    }
    result = op->result < 0 ? refused(op, what, path) : op->result - (int64_t)sizeof(*stat);
    release(client, op);
    return result;
}

int64_t aiod_read_file(struct aiod_client *client, uint32_t names, const char *path, void *data, uint64_t length,
                       struct aiod_ring_stat *stat, int64_t timeout_ns)
{
    return query(client, AIOD_RING_READ_FILE, names, path, data, length, stat, timeout_ns);
}

int64_t aiod_stat_name(struct aiod_client *client, uint32_t names, const char *path, struct aiod_ring_stat *stat,
                       int64_t timeout_ns)
{
    return query(client, AIOD_RING_STAT_NAME, names, path, NULL, 0, stat, timeout_ns);
}

int64_t aiod_write_file(struct aiod_client *client, uint32_t names, const char *path, const void *data, uint64_t length,
                        unsigned flags, int64_t timeout_ns)
{
    size_t path_bytes = strlen(path);
    struct aiod_op *op;
    int64_t result;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    if (!fits(client, path_bytes, length)) {
        return aiod_fail(-EMSGSIZE, "write: the path or the data is too long for one request");
    }
    op = prepare(client, AIOD_RING_WRITE_FILE, names, path, path_bytes + length);
    if (op == NULL) {
        return aiod_fail(-ENOBUFS, "write %s: no room in the buffer area", path);
    }
    op->length = length;
    op->flags = (uint16_t)flags;
    if (length > 0) {
        memcpy((char *)op->buffer + path_bytes, data, length);
    }
    result = carry_out(client, op, "write", timeout_ns);
    if (result < 0) {
        return result;
    }
    result = op->result < 0 ? refused(op, "write", path) : op->result;
    release(client, op);
    return result;
}
