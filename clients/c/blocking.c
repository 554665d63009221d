/*
 * blocking.c - the blocking calls: submit a request, or a transfer in parts, wait for it, and copy the data.
 *
 * A long transfer has a few parts in flight at once, each with its own buffer, and takes their results in order. A
 * transfer that finds no room for another part waits for its own oldest part; only a transfer without parts in
 * flight waits for room that others release. So of several transfers that need room one always proceeds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "client.h"
#include "clock.h"
#include "error.h"
#include "forks.h"
#include "wait.h"

#define PARTS_MAX 4u   /* in flight */
#define AREA_PARTS 16u /* a part is this fraction of the area at most, so that several transfers find room */

static _Thread_local uint64_t written;

struct transfer {
    struct aiod_client *client;
    struct aiod_op request; /* the members that all parts share */
    const char *in;
    char *out;
    uint64_t length;
    bool whole;     /* in one part only */
    uint64_t asked; /* bytes in parts that were submitted */
    uint64_t done;  /* bytes from the beginning on, without a gap */
    bool begun;     /* a part was submitted, possibly one without bytes */
    bool ended;     /* no further parts: a part met the end of the file or failed */
    int64_t error;
    uint64_t deadline_ns;
    struct aiod_op *parts[PARTS_MAX]; /* in flight; the oldest is number `first`, modulo PARTS_MAX */
    unsigned first;
    unsigned count;
};

static int64_t left_ns(uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();

    return deadline_ns == AIOD_NEVER ? AIOD_NO_TIMEOUT : deadline_ns > now ? (int64_t)(deadline_ns - now) : 0;
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

/*
 * Get a buffer of *bytes, or for a part a smaller one and its size if no block is so large. NULL: there is no room now.
 */
static void *borrow(const struct transfer *transfer, uint64_t *bytes)
{
    void *buffer = aiod_borrow_buffer(transfer->client, *bytes);

    while (buffer == NULL && !transfer->whole && transfer->count == 0 && *bytes > AIOD_POOL_PAGE_BYTES) {
        *bytes = *bytes / 2 > AIOD_POOL_PAGE_BYTES ? *bytes / 2 : AIOD_POOL_PAGE_BYTES;
        buffer = aiod_borrow_buffer(transfer->client, *bytes);
    }
    return buffer;
}

static uint64_t part_bytes(const struct transfer *transfer)
{
    uint64_t max = aiod_request_bytes_max(transfer->client);
    uint64_t share = transfer->client->areas.bytes / AREA_PARTS;
    uint64_t rest = transfer->length - transfer->asked;

    share = share > AIOD_POOL_PAGE_BYTES ? share : AIOD_POOL_PAGE_BYTES;
    max = share < max ? share : max;
    return rest < max ? rest : max;
}

/* 1: submitted; 0: there is no room now; or -errno. */
static int submit_part(struct transfer *transfer, uint64_t bytes, void *buffer)
{
    struct aiod_op *op = malloc(sizeof(*op));
    int submitted;

    if (op == NULL) {
        aiod_return_buffer(transfer->client, buffer);
        return aiod_fail(-ENOMEM, "out of memory");
    }
    *op = transfer->request;
    op->offset += transfer->asked;
    op->length = bytes;
    op->buffer = buffer;
    op->awaited = true; /* so that no other thread reaps it */
    if (transfer->in != NULL && bytes > 0) {
        memcpy(buffer, transfer->in + transfer->asked, bytes);
    }
    submitted = aiod_submit(transfer->client, &op, 1);
    if (submitted <= 0) {
        aiod_return_buffer(transfer->client, buffer);
        free(op);
        return submitted;
    }
    transfer->parts[(transfer->first + transfer->count++) % PARTS_MAX] = op;
    transfer->asked += bytes;
    transfer->begun = true;
    return 1;
}

/* The size of the buffer that a request in one part needs. */
static uint64_t whole_bytes(const struct transfer *transfer)
{
    switch (transfer->request.op) {
    case AIOD_RING_APPEND:
        return transfer->length;
    case AIOD_RING_STAT:
        return sizeof(struct aiod_ring_stat);
    case AIOD_RING_EXTENTS:
        return AIOD_RING_EXTENTS_MAX * sizeof(struct aiod_ring_extent);
    default:
        return 0;
    }
}

static int ask_whole(struct transfer *transfer)
{
    uint64_t bytes = whole_bytes(transfer);
    void *buffer = bytes > 0 ? borrow(transfer, &bytes) : NULL;

    return bytes > 0 && buffer == NULL ? 0 : submit_part(transfer, transfer->length, buffer);
}

/* Returns as submit_part() does. */
static int ask_part(struct transfer *transfer)
{
    uint64_t bytes = part_bytes(transfer);
    void *buffer = NULL;

    if (bytes > 0) {
        buffer = borrow(transfer, &bytes);
        if (buffer == NULL) {
            return 0;
        }
    }
    return submit_part(transfer, bytes, buffer);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static void fail(struct transfer *transfer, int64_t error)
{
    transfer->ended = true;
    if (transfer->error == 0) {
        transfer->error = error;
    }
}

/* Take the result of the oldest part. The parts before it were done in full, or the transfer has ended. */
static void take_result(struct transfer *transfer, const struct aiod_op *op)
{
    if (transfer->ended) {
        return;
    }
    if (op->result < 0) {
        transfer->done += op->written;
        fail(transfer, aiod_fail_because(op->reason, (int)op->result, "%s (%s)", strerror((int)-op->result),
                                         aiod_reason_text(op->reason)));
        return;
    }
    if (transfer->out != NULL && op->result > 0) { /* what the request returns lies in a buffer of at least that size */
        memcpy(transfer->out + transfer->done, op->buffer, (size_t)op->result);
    }
    transfer->done += (uint64_t)op->result;
    transfer->ended = (uint64_t)op->result < op->length;
}

static void finish_oldest(struct transfer *transfer)
{
    struct aiod_op *op = transfer->parts[transfer->first++ % PARTS_MAX];

    transfer->count--;
    if (aiod_wait(transfer->client, op, left_ns(transfer->deadline_ns)) < 0) {
        fail(transfer, aiod_fail(-ETIMEDOUT, "no answer in time: unknown whether done"));
        aiod_disown_buffer(transfer->client, op->buffer);
        aiod_abandon(transfer->client, op);
        return;
    }
    take_result(transfer, op);
    aiod_return_buffer(transfer->client, op->buffer);
    free(op);
}

/* Submit the next part, or wait until there is room for it. */
static void advance(struct transfer *transfer)
{
    uint64_t room = aiod_room_count(transfer->client); /* counted before ask_part(), which may find no room */
    int asked = transfer->count == PARTS_MAX ? 0 : transfer->whole ? ask_whole(transfer) : ask_part(transfer);

    if (asked == 0 && transfer->count > 0) {
        finish_oldest(transfer);
        return;
    }
    if (asked == 0) {
        asked = aiod_wait_for_room(transfer->client, room, transfer->deadline_ns);
    }
    if (asked < 0) {
        fail(transfer, asked);
    }
}

static int64_t perform(struct transfer *transfer, int64_t timeout_ns)
{
    if (aiod_forked(transfer->client)) {
        return aiod_fail_forked();
    }
    transfer->deadline_ns = timeout_ns < 0 ? AIOD_NEVER : aiod_deadline((uint64_t)timeout_ns);
    while (!transfer->ended && !(transfer->whole && transfer->begun) &&
           (transfer->asked < transfer->length || !transfer->begun)) {
        advance(transfer);
    }
    while (transfer->count > 0) {
        finish_oldest(transfer);
    }
    if (transfer->error < 0) {
        written = transfer->out == NULL ? transfer->done : 0;
        return transfer->error;
    }
    return (int64_t)transfer->done;
}

int64_t aiod_perform(struct aiod_client *client, const struct aiod_op *request, void *data, int64_t timeout_ns)
{
    struct transfer transfer = {.client = client,
                                .request = {.op = request->op,
                                            .flags = request->flags,
                                            .handle = request->handle,
                                            .offset = request->offset,
                                            .source = request->source,
                                            .source_offset = request->source_offset,
                                            .deadline_ms = request->deadline_ms},
                                .length = request->length};

    switch (request->op) {
    case AIOD_RING_READ:
        transfer.out = data;
        break;
    case AIOD_RING_STAT:
    case AIOD_RING_EXTENTS:
        transfer.out = data;
        transfer.whole = true;
        break;
    case AIOD_RING_WRITE:
        transfer.in = data;
        break;
    case AIOD_RING_APPEND:
        transfer.in = data;
        transfer.whole = true;
        break;
    case AIOD_RING_READ_FILE:
    case AIOD_RING_STAT_NAME:
    case AIOD_RING_WRITE_FILE:
    case AIOD_RING_CANCEL:
        return aiod_fail(-EINVAL, "operation %u has a call of its own", request->op);
    default:
        transfer.whole = true;
    }
    return perform(&transfer, timeout_ns);
}

int64_t aiod_pread(struct aiod_client *client, uint32_t handle, void *data, uint64_t length, uint64_t offset,
                   int64_t timeout_ns)
{
    struct transfer transfer = {.client = client,
                                .request = {.op = AIOD_RING_READ, .handle = handle, .offset = offset},
                                .out = data,
                                .length = length};

    return perform(&transfer, timeout_ns);
}

int64_t aiod_pwrite(struct aiod_client *client, uint32_t handle, const void *data, uint64_t length, uint64_t offset,
                    int64_t timeout_ns)
{
    struct transfer transfer = {.client = client,
                                .request = {.op = AIOD_RING_WRITE, .handle = handle, .offset = offset},
                                .in = data,
                                .length = length};

    return perform(&transfer, timeout_ns);
}

int64_t aiod_flush(struct aiod_client *client, uint32_t handle, int64_t timeout_ns)
{
    struct transfer transfer = {.client = client, .request = {.op = AIOD_RING_FLUSH, .handle = handle}};

    return perform(&transfer, timeout_ns);
}

uint64_t aiod_written(void)
{
    return written;
}
