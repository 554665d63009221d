/* buffers.c - the cache of payload buffers, with one free list for each power of two. */
#include "util/buffers.h"

#include <stdlib.h>
#include <string.h>

void aiod_buffers_init(struct aiod_buffers *buffers, size_t kept_max)
{
    memset(buffers, 0, sizeof(*buffers));
    pthread_mutex_init(&buffers->lock, NULL);
    buffers->kept_max = kept_max;
}

static void release(struct aiod_buffer *buffer)
{
    free(buffer->data);
    free(buffer);
}

void aiod_buffers_destroy(struct aiod_buffers *buffers)
{
    for (size_t i = 0; i < AIOD_BUFFER_CLASSES; i++) {
        while (buffers->kept[i] != NULL) {
            struct aiod_buffer *buffer = buffers->kept[i];

            buffers->kept[i] = buffer->next;
            release(buffer);
        }
    }
    pthread_mutex_destroy(&buffers->lock);
}

/* The smallest size class that holds `capacity`; AIOD_BUFFER_CLASSES if there is none. */
static size_t class_of(size_t capacity)
{
    size_t index = 0;

    while (index < AIOD_BUFFER_CLASSES && ((size_t)AIOD_BUFFER_ALIGNMENT << index) < capacity) {
        index++;
    }
    return index;
}

static struct aiod_buffer *make(struct aiod_buffers *buffers, size_t capacity)
{
    struct aiod_buffer *buffer = calloc(1, sizeof(*buffer));

    if (buffer == NULL) {
        return NULL;
    }
    buffer->data = aligned_alloc(AIOD_BUFFER_ALIGNMENT, capacity);
    if (buffer->data == NULL) {
        free(buffer);
        return NULL;
    }
    buffer->capacity = capacity;
    buffer->home = buffers;
    return buffer;
}

struct aiod_buffer *aiod_buffer_get(struct aiod_buffers *buffers, size_t capacity)
{
    size_t index = class_of(capacity);
    struct aiod_buffer *buffer;

    if (index >= AIOD_BUFFER_CLASSES) {
        return NULL;
    }
    pthread_mutex_lock(&buffers->lock);
    buffer = buffers->kept[index];
    if (buffer != NULL) {
        buffers->kept[index] = buffer->next;
        buffers->kept_bytes -= buffer->capacity;
    }
    pthread_mutex_unlock(&buffers->lock);
    if (buffer == NULL) {
        return make(buffers, (size_t)AIOD_BUFFER_ALIGNMENT << index);
    }
    buffer->length = 0;
    buffer->next = NULL;
    return buffer;
}

void aiod_buffer_put(struct aiod_buffer *buffer)
{
    struct aiod_buffers *home;
    size_t index;

    if (buffer == NULL) {
        return;
    }
    home = buffer->home;
    index = class_of(buffer->capacity);
    pthread_mutex_lock(&home->lock);
    if (home->kept_bytes + buffer->capacity <= home->kept_max) {
        buffer->next = home->kept[index];
        home->kept[index] = buffer;
        home->kept_bytes += buffer->capacity;
        buffer = NULL;
    }
    pthread_mutex_unlock(&home->lock);
    if (buffer != NULL) {
        release(buffer);
    }
}
