/*
 * queue.c - submission and completion of requests. It does not know sessions or sockets: resumption is called
 * by hooks (struct aiod_queue_hooks).
 */
#include "queue.h"

#include <stdlib.h>
#include <unistd.h>

#include "buffers.h"
#include "client.h"

bool aiod_queue_init(struct aiod_client *client)
{
    struct aiod_queue *queue = &client->queue;

    queue->slots = calloc(client->entries, sizeof(struct aiod_op *));
    queue->free_slots = calloc(client->entries, sizeof(*queue->free_slots));
    if (queue->slots == NULL || queue->free_slots == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < client->entries; i++) {
        queue->free_slots[i] = client->entries - 1 - i;
    }
    queue->done_tail = &queue->done;
    return true;
}

void aiod_queue_destroy(struct aiod_queue *queue)
{
    free(queue->slots);
    free(queue->free_slots);
}

/* ---- requests that are done -------------------------------------------------------------------------------------- */

void aiod_queue_append_done(struct aiod_client *client, struct aiod_op *op)
{
    op->listed = true;
    op->next = NULL;
    *client->queue.done_tail = op;
    client->queue.done_tail = &op->next;
    aiod_loop_completion_taken(&client->loop);
}

void aiod_queue_remove_done(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_op **link = &client->queue.done;

    if (!op->listed) {
        return;
    }
    op->listed = false;
    while (*link != op) {
        link = &(*link)->next;
    }
    *link = op->next;
    if (*link == NULL) {
        client->queue.done_tail = link;
    }
}

unsigned aiod_queue_reap(struct aiod_client *client, struct aiod_op **done, unsigned max)
{
    struct aiod_queue *queue = &client->queue;
    unsigned count = 0;

    while (count < max && queue->done != NULL) {
        done[count] = queue->done;
        queue->done->listed = false;
        queue->done = queue->done->next;
        count++;
    }
    if (queue->done == NULL) {
        queue->done_tail = &queue->done;
    }
    return count;
}

static void free_abandoned(struct aiod_client *client, struct aiod_op *op)
{
    if (op->buffer != NULL) {
        aiod_release_buffer(client, op->buffer);
    }
    free(op);
}

void aiod_queue_abandon(struct aiod_client *client, struct aiod_op *op)
{
    if (op->state == OP_DONE) {
        aiod_queue_remove_done(client, op);
        free_abandoned(client, op);
    } else {
        op->state = OP_ABANDONED;
    }
}

/* ---- requests in flight ------------------------------------------------------------------------------------------ */

static bool uses(const struct aiod_op *op, uint32_t handle)
{
    return op->handle == handle || (op->op == AIOD_RING_COPY_RANGE && op->source == handle);
}

bool aiod_queue_uses(const struct aiod_client *client, uint32_t handle, uint64_t before)
{
    for (uint32_t slot = 0; slot < client->entries; slot++) {
        const struct aiod_op *op = client->queue.slots[slot];

        /* the high half of a cookie has the low half of its number */
        if (op != NULL && uses(op, handle) && (int32_t)((uint32_t)(op->cookie >> 32) - (uint32_t)before) < 0) {
            return true;
        }
    }
    return false;
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

void aiod_queue_settle(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_queue *queue = &client->queue;
    bool awaited = op->state == OP_AWAITED;
    uint32_t slot = (uint32_t)op->cookie;

    queue->free_slots[client->entries - queue->inflight--] = slot;
    queue->slots[slot] = NULL;
    queue->done_count++;
    aiod_waiters_count_room(client);
    if (op->state == OP_ABANDONED) {
        free_abandoned(client, op);
        return;
    }
    op->listed = false;
    if (!awaited) {
        aiod_queue_append_done(client, op);
    }
    __atomic_store_n(&op->state, OP_DONE, __ATOMIC_RELEASE); /* aiod_done() loads it without the lock */
    aiod_waiters_wake_for(client, op);                       /* the request may be freed meanwhile */
}

void aiod_queue_drain(struct aiod_client *client)
{
    const struct aiod_queue_hooks *hooks = client->hooks;
    uint32_t tail = __atomic_load_n(&client->header->cq_tail, __ATOMIC_SEQ_CST);
    uint32_t head = client->queue.cq_head;

    if (tail == head) {
        return;
    }
    for (; head != tail; head++) {
        const struct aiod_ring_cqe *cqe = &client->cqes[head & (client->entries - 1)];
        uint32_t slot = (uint32_t)cqe->cookie;
        struct aiod_op *op = slot < client->entries ? client->queue.slots[slot] : NULL;

        if (op == NULL || op->cookie != cqe->cookie) {
            continue;
        }
        op->result = cqe->result;
        op->written = cqe->written;
        op->reason = cqe->reason;
        if (hooks->completed(client, op)) {
            aiod_queue_settle(client, op);
        }
    }
    __atomic_store_n(&client->queue.cq_head, head, __ATOMIC_RELAXED); /* aiod_look_for() loads it without the lock */
    __atomic_store_n(&client->header->cq_head, head, __ATOMIC_RELEASE);
}

void aiod_queue_withdraw(struct aiod_client *client)
{
    struct aiod_ring_withdrawal *withdrawal = (struct aiod_ring_withdrawal *)(void *)(client->header + 1);
    uint32_t begun;

    __atomic_store_n(&withdrawal->sq_withdrawn, 1, __ATOMIC_SEQ_CST);
    begun = __atomic_load_n(&withdrawal->sq_begun, __ATOMIC_SEQ_CST);
    if (withdrawal->shown == 0 || client->queue.sq_tail - begun > client->entries) {
        return;
    }
    for (; begun != client->queue.sq_tail; begun++) {
        uint64_t cookie = client->sqes[begun & (client->entries - 1)].cookie;
        uint32_t slot = (uint32_t)cookie;
        struct aiod_op *op = slot < client->entries ? client->queue.slots[slot] : NULL;

        if (op != NULL && op->cookie == cookie) {
            op->sent = false;
        }
    }
}

void aiod_queue_fail_all(struct aiod_client *client, int error)
{
    for (uint32_t slot = 0; slot < client->entries; slot++) {
        struct aiod_op *op = client->queue.slots[slot];

        if (op != NULL) {
            op->result = -error;
            op->written = 0;
            op->reason = op->sent ? AIOD_RING_BY_KERNEL : AIOD_RING_NOT_TAKEN;
            aiod_queue_settle(client, op);
        }
    }
}

/* ---- submissions ------------------------------------------------------------------------------------------------- */

static void put_entry(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_ring_sqe *sqe = &client->sqes[client->queue.sq_tail++ & (client->entries - 1)];

    *sqe = (struct aiod_ring_sqe){
        .cookie = op->cookie,
        .op = op->op,
        .flags = op->flags,
        .handle = op->handle,
        .offset = op->offset,
        .length = op->length,
        .buffer = op->buffer == NULL ? 0 : aiod_areas_offset(&client->areas, op->buffer),
        .source_offset = op->source_offset,
        .source = op->source,
        .deadline_ms = op->deadline_ms,
    };
    op->sent = true;
    if (client->hooks->prepare != NULL) {
        client->hooks->prepare(client, op, sqe);
    }
}

/* Show the engine the entries, and wake it if it sleeps. */
static void publish(struct aiod_client *client)
{
    uint64_t one = 1;

    __atomic_store_n(&client->header->sq_tail, client->queue.sq_tail, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&client->header->engine_sleeps, __ATOMIC_SEQ_CST) != 0) {
        (void)!write(client->doorbell, &one, sizeof(one));
    }
}

unsigned aiod_queue_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count)
{
    struct aiod_queue *queue = &client->queue;
    unsigned submitted = 0;

    if (queue->inflight + count > client->entries) {
        aiod_queue_drain(client);
    }
    while (submitted < count && queue->inflight < client->entries) {
        struct aiod_op *op = ops[submitted++];
        uint32_t slot = queue->free_slots[client->entries - ++queue->inflight];

        op->cookie = queue->next_number++ << 32 | slot;
        op->state = op->awaited ? OP_AWAITED : OP_INFLIGHT;
        queue->slots[slot] = op;
        op->sent = false;
        if (!client->away) {
            put_entry(client, op);
        }
    }
    if (submitted > 0 && !client->away) {
        publish(client);
    }
    return submitted;
}

static void put_unsent(struct aiod_client *client, bool cancels)
{
    for (uint32_t slot = 0; slot < client->entries; slot++) {
        struct aiod_op *op = client->queue.slots[slot];

        if (op != NULL && !op->sent && (op->op == AIOD_RING_CANCEL) == cancels) {
            put_entry(client, op);
        }
    }
}

void aiod_queue_submit_again(struct aiod_client *client)
{
    put_unsent(client, false);
    put_unsent(client, true); /* after the requests that they cancel */
    publish(client);
}
