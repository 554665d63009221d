/* Payload buffers are aligned, reused, and cached up to the limit only. */
#include "check.h"

#include "util/buffers.h"

static void buffers_are_cached_up_to_the_limit(void)
{
    struct aiod_buffers buffers;
    struct aiod_buffer *taken[4];

    aiod_buffers_init(&buffers, 3 * 8192);
    for (size_t i = 0; i < 4; i++) {
        taken[i] = aiod_buffer_get(&buffers, 5000);
        CHECK(taken[i] != NULL && taken[i]->capacity == 8192 && taken[i]->length == 0);
        CHECK((uintptr_t)taken[i]->data % AIOD_BUFFER_ALIGNMENT == 0);
        taken[i]->length = 5000;
    }
    for (size_t i = 0; i < 4; i++) {
        aiod_buffer_put(taken[i]);
    }
    CHECK(buffers.kept_bytes == 3 * 8192);
    taken[0] = aiod_buffer_get(&buffers, 8192);
    CHECK(taken[0] == taken[2] && taken[0]->length == 0);
    CHECK(buffers.kept_bytes == 2 * 8192);
    aiod_buffer_put(taken[0]);
    aiod_buffer_put(NULL);
    aiod_buffers_destroy(&buffers);
}

static void every_size_is_aligned_and_large_enough(void)
{
    struct aiod_buffers buffers;

    aiod_buffers_init(&buffers, 0);
    for (size_t size = 0; size < 100000; size += 999) {
        struct aiod_buffer *buffer = aiod_buffer_get(&buffers, size);

        CHECK(buffer != NULL && buffer->capacity >= size);
        aiod_buffer_put(buffer);
        CHECK(buffers.kept_bytes == 0);
    }
    CHECK(aiod_buffer_get(&buffers, (size_t)AIOD_BUFFER_ALIGNMENT << AIOD_BUFFER_CLASSES) == NULL);
    CHECK(aiod_buffer_get(&buffers, SIZE_MAX) == NULL);
    aiod_buffers_destroy(&buffers);
}

static void *take_and_give(void *argument)
{
    struct aiod_buffers *buffers = argument;

    for (int i = 0; i < 5000; i++) {
        struct aiod_buffer *buffer = aiod_buffer_get(buffers, (size_t)(i % 4) * 4096);

        CHECK(buffer != NULL);
        buffer->data[0] = 1;
        aiod_buffer_put(buffer);
    }
    return NULL;
}

static void threads_get_distinct_buffers(void)
{
    struct aiod_buffers buffers;
    pthread_t threads[4];

    aiod_buffers_init(&buffers, 1 << 20);
    for (size_t i = 0; i < 4; i++) {
        CHECK(pthread_create(&threads[i], NULL, take_and_give, &buffers) == 0);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    aiod_buffers_destroy(&buffers);
}

int main(void)
{
    buffers_are_cached_up_to_the_limit();
    every_size_is_aligned_and_large_enough();
    threads_get_distinct_buffers();
    return 0;
}
