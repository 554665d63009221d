/*
 * resume_requests.c - requests in flight when their engine goes: which ones end, and how the others reach the next
 * engine.
 */
#include <assert.h>
#include <errno.h>

#include "../../protocol/op_properties.h"
#include "client.h"
#include "resume.h"

#define AIOD_OPERATION(...)
#define AIOD_RING_OPERATION(number, NAME, ...) static_assert(AIOD_RING_##NAME == (number), "protocol/operations.def");
#include "../../protocol/operations.def"

/* Requests that change a file are not repeated: another client's change may have been acknowledged since. */
static bool changes(const struct aiod_op *op)
{
    switch (op->op) {
#define AIOD_OPERATION(number, NAME, name, access, fields, flags, properties)                                          \
    case number:                                                                                                       \
        return ((properties) & OP_CHANGES) != 0;
#include "../../protocol/operations.def"
    case AIOD_RING_CANCEL:
        return false;
    default:
        return true; /* nothing is known about it */
    }
}

/* Does the path of a file come with it, in its buffer? */
static bool is_on_path(const struct aiod_op *op)
{
    return op->op == AIOD_RING_READ_FILE || op->op == AIOD_RING_STAT_NAME || op->op == AIOD_RING_WRITE_FILE ||
           op->op == AIOD_RING_OPEN_FILE || op->op == AIOD_RING_NAME || op->op == AIOD_RING_OPEN_WRITABLE;
}

/* The bytes that the request brings along in its buffer. */
static uint64_t payload_bytes(const struct aiod_op *op)
{
    uint64_t path_bytes = is_on_path(op) ? op->source : 0;
    bool writes = op->op == AIOD_RING_WRITE || op->op == AIOD_RING_APPEND || op->op == AIOD_RING_WRITE_FILE;

    return op->buffer == NULL ? 0 : path_bytes + (writes ? op->length : 0);
}

/* Does its result lie in its buffer? */
static bool replies(const struct aiod_op *op)
{
    switch (op->op) {
#define AIOD_OPERATION(number, NAME, name, access, fields, flags, properties)                                          \
    case number:                                                                                                       \
        return ((properties) & OP_REPLIES) != 0;
#include "../../protocol/operations.def"
    default:
        return false;
    }
}

/* The bytes of the result in its buffer. */
static uint64_t result_bytes(const struct aiod_op *op)
{
    if (op->buffer == NULL || !replies(op)) {
        return 0;
    }
    if (op->op == AIOD_RING_READ_FILE && op->result == -EFBIG) {
        return sizeof(struct aiod_ring_stat);
    }
    return op->result > 0 ? (uint64_t)op->result : 0;
}

/* ---- submission -------------------------------------------------------------------------------------------------- */

void aiod_resume_prepare(struct aiod_client *client, const struct aiod_op *op, struct aiod_ring_sqe *sqe)
{
    struct aiod_resume *resume = client->resume;
    struct aiod_open_file *file = aiod_open_files_find(&resume->files, op->handle);
    const struct aiod_open_file *source = aiod_open_files_find(&resume->files, op->source);

    sqe->handle = file != NULL ? file->engine_handle : 0;
    if (!is_on_path(op)) {
        sqe->source = source != NULL ? source->engine_handle : op->source & 0xffff0000; /* no handle, unless it is 0 */
    }
    if (file != NULL && op->op == AIOD_RING_FLUSH && file->by_ring && (file->flags & AIOD_OPEN_WRITE) == 0) {
        file->changes++; /* no descriptor may be kept: without its answer, an error that it has got may be lost */
    }
    resume->flush_covers[(uint32_t)op->cookie] = file != NULL ? file->changes : 0;
    if (payload_bytes(op) > 0 && aiod_areas_is_old(&client->areas, op->buffer)) {
        aiod_areas_copy_in(&client->areas, op->buffer, payload_bytes(op));
    }
}

/* ---- completion -------------------------------------------------------------------------------------------------- */

/* The engine does not know the handle: did it fail to open the file again? */
static void explain_lost(const struct aiod_resume *resume, struct aiod_op *op)
{
    const struct aiod_open_file *file = aiod_open_files_find(&resume->files, op->handle);
    const struct aiod_open_file *source = is_on_path(op) ? NULL : aiod_open_files_find(&resume->files, op->source);
    int lost = file != NULL && file->lost != 0 ? file->lost : source != NULL ? source->lost : 0;

    if (lost != 0) {
        op->result = lost;
        op->reason = AIOD_RING_NOT_REOPENED;
    }
}

/*
 * A flush covers what was acknowledged before it was submitted; but not the unflushed changes that died with an
 * engine, unless this one fails a flush that it cannot answer for.
 */
static void count_flush(const struct aiod_resume *resume, struct aiod_open_file *file, struct aiod_op *op)
{
    uint64_t covered = resume->flush_covers[(uint32_t)op->cookie];

    if (file->in_doubt) {
        file->in_doubt = false;
        op->result = -EIO;
        op->reason = AIOD_RING_RESTARTED;
    }
    if (covered > file->flushed) {
        file->flushed = covered;
    }
}

/* Has the request, which is done, left changes that no flush covers? */
static bool left_changes(const struct aiod_op *op)
{
    if (!changes(op)) {
        return false;
    }
    return op->result < 0 ? op->reason == AIOD_RING_BY_KERNEL : (op->flags & AIOD_RING_FUA) == 0;
}

bool aiod_resume_completed(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_resume *resume = client->resume;
    struct aiod_open_file *file = aiod_open_files_find(&resume->files, op->handle);

    if (op->result == -ESHUTDOWN && op->reason == AIOD_RING_STOPPING) {
        op->sent = false; /* not executed */
        return false;
    }
    if (op->result == -EBADF && op->reason == AIOD_RING_NO_HANDLE) {
        explain_lost(resume, op);
    }
    if (result_bytes(op) > 0 && aiod_areas_is_old(&client->areas, op->buffer)) {
        aiod_areas_copy_out(&client->areas, op->buffer, result_bytes(op));
    }
    if (file != NULL && op->op == AIOD_RING_FLUSH && op->result >= 0) {
        count_flush(resume, file, op);
    } else if (file != NULL && left_changes(op)) {
        file->changes++;
    }
    aiod_ring_file_call_completed(client, op); /* last: it may move the files */
    return true;
}

/* ---- the engine has gone ----------------------------------------------------------------------------------------- */

/* The result of one on a path may have been written over the path: it cannot be submitted again. */
static void sort(struct aiod_client *client, struct aiod_op *op, bool drained)
{
    if (!op->sent || drained || (!changes(op) && !is_on_path(op))) {
        op->sent = false;
        return;
    }
    op->result = -EIO;
    op->written = 0;
    op->reason = AIOD_RING_UNKNOWN;
    aiod_queue_settle(client, op);
}

void aiod_resume_sort_requests(struct aiod_client *client, bool drained)
{
    for (uint32_t slot = 0; slot < client->entries; slot++) {
        if (client->queue.slots[slot] != NULL) {
            sort(client, client->queue.slots[slot], drained);
        }
    }
}
