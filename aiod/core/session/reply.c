/* reply.c - collects completions, and packs small payloads into shared frames. */
#include "session/reply.h"

#include <stdlib.h>

struct aiod_reply *aiod_reply_create(struct aiod_session *session, struct aiod_buffers *buffers)
{
    struct aiod_reply *reply = malloc(sizeof(*reply)); /* the arrays are valid up to their counts */

    if (reply == NULL) {
        abort();
    }
    aiod_session_ref(session);
    reply->session = session;
    reply->next = NULL;
    reply->buffers = buffers;
    reply->record_count = 0;
    reply->failure_count = 0;
    reply->frame_count = 0;
    reply->shared = NULL;
    reply->shared_index = 0;
    reply->shared_in_frames = false;
    return reply;
}

/* Drop a shared frame that was never used: a frame without a record would be a malformed message. */
static void drop_unused(struct aiod_reply *reply)
{
    if (reply->shared != NULL && !reply->shared_in_frames) {
        aiod_buffer_put(reply->shared);
        reply->shared = NULL;
    }
}

void aiod_reply_destroy(struct aiod_reply *reply)
{
    drop_unused(reply);
    for (uint32_t i = 0; i < reply->frame_count; i++) {
        aiod_buffer_put(reply->frames[i]);
    }
    aiod_session_unref(reply->session);
    free(reply);
}

static void add(struct aiod_reply *reply, uint64_t cookie, int64_t result, uint32_t frame, uint32_t frame_offset)
{
    reply->records[reply->record_count++] = (struct aiod_completion){
        .cookie = cookie,
        .result = result,
        .frame = frame,
        .frame_offset = frame_offset,
    };
}

static uint32_t add_to_frames(struct aiod_reply *reply, struct aiod_buffer *buffer)
{
    reply->frames[reply->frame_count] = buffer;
    return reply->frame_count++;
}

char *aiod_reply_reserve(struct aiod_reply *reply, uint64_t length, uint64_t expected)
{
    struct aiod_buffer *shared = reply->shared;

    if (shared == NULL || shared->capacity - shared->length < length) {
        expected = expected < AIOD_SHARED_FRAME_MAX ? expected : AIOD_SHARED_FRAME_MAX;
        shared = aiod_buffer_get(reply->buffers, expected > length ? expected : length);
        if (shared == NULL) {
            return NULL;
        }
        drop_unused(reply);
        reply->shared = shared;
        reply->shared_in_frames = false;
    }
    return shared->data + shared->length;
}

void aiod_reply_add_shared(struct aiod_reply *reply, uint64_t cookie, int64_t result)
{
    if (!reply->shared_in_frames) {
        reply->shared_index = add_to_frames(reply, reply->shared);
        reply->shared_in_frames = true;
    }
    add(reply, cookie, result, reply->shared_index, (uint32_t)reply->shared->length);
    reply->shared->length += (size_t)result;
}

void aiod_reply_add_frame(struct aiod_reply *reply, uint64_t cookie, int64_t result, struct aiod_buffer *buffer)
{
    buffer->length = (size_t)result;
    add(reply, cookie, result, add_to_frames(reply, buffer), 0);
}

void aiod_reply_add(struct aiod_reply *reply, uint64_t cookie, int64_t result, uint64_t written)
{
    add(reply, cookie, result, 0, 0);
    reply->records[reply->record_count - 1].written = (uint32_t)written; /* requests are shorter than 4 GiB */
}

void aiod_reply_add_failure(struct aiod_reply *reply, const struct aiod_failure *failure)
{
    reply->records[reply->record_count - 1].reason = failure->reason;
    reply->failures[reply->failure_count] = *failure;
    reply->failures[reply->failure_count++].index = reply->record_count - 1;
}
