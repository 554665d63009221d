/*
 * requests.c - submitting, reaping, abandoning and cancelling requests.
 */
#include <errno.h>
#include <stdlib.h>

#include "client.h"
#include "error.h"
#include "forks.h"
#include "resume.h"

int aiod_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count)
{
    unsigned submitted = 0;
    int ended;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    if (client->resume != NULL) { /* a write to an engine that is long dead would be in doubt */
        aiod_resume_check(client);
    }
    ended = client->ended;
    if (ended == 0) {
        submitted = aiod_queue_submit(client, ops, count);
    }
    pthread_mutex_unlock(&client->lock);
    return ended != 0 ? aiod_fail(-ended, "the session has ended: %s", aiod_end_reason(client)) : (int)submitted;
}

unsigned aiod_reap(struct aiod_client *client, struct aiod_op **done, unsigned max)
{
    unsigned count;

    if (aiod_forked(client)) {
        return 0;
    }
    pthread_mutex_lock(&client->lock);
    aiod_queue_drain(client);
    if (client->queue.done == NULL && client->resume != NULL) {
        aiod_resume_poll(client);
    }
    count = aiod_queue_reap(client, done, max);
    pthread_mutex_unlock(&client->lock);
    return count;
}

void aiod_await_no_more(struct aiod_client *client, struct aiod_op *op)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    op->awaited = false;
    if (op->state == OP_DONE) {
        aiod_queue_append_done(client, op);
    } else {
        op->state = OP_INFLIGHT;
    }
    pthread_mutex_unlock(&client->lock);
}

void aiod_abandon(struct aiod_client *client, struct aiod_op *op)
{
    if (aiod_forked(client)) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    aiod_queue_abandon(client, op);
    pthread_mutex_unlock(&client->lock);
}

int aiod_cancel(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns)
{
    struct aiod_op *cancel = calloc(1, sizeof(*cancel));
    int result;

    if (cancel == NULL) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    cancel->op = AIOD_RING_CANCEL;
    cancel->offset = op->cookie;
    cancel->awaited = true; /* so that no other thread reaps it */
    result = aiod_submit(client, &cancel, 1);
    if (result <= 0) {
        free(cancel);
        return result < 0 ? result : aiod_fail(-EAGAIN, "no room in the ring for the cancel");
    }
    if (aiod_wait(client, cancel, timeout_ns) < 0) {
        aiod_abandon(client, cancel);
        return aiod_fail(-ETIMEDOUT, "no answer in time: unknown whether the request is cancelled");
    }
    result = (int)cancel->result;
    free(cancel);
    return result < 0 ? aiod_fail(result, "the session has ended") : result;
}
