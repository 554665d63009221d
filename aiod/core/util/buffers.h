/*
 * buffers.h - page-aligned payload memory, cached for reuse up to a limit.
 *
 * Fresh memory costs a page fault each 4 KiB. For a read of 1 MiB that is as much as the copy itself. Buffers are
 * therefore rounded up to powers of two and cached.
 *
 * Any thread may call these functions. The lock of the cache is taken last, and the only system call under it is
 * free()'s.
 */
#ifndef AIOD_BUFFERS_H
#define AIOD_BUFFERS_H

#include <pthread.h>
#include <stddef.h>

#define AIOD_BUFFER_ALIGNMENT 4096u
#define AIOD_BUFFER_CLASSES 20 /* 4 KiB << 0 ... 4 KiB << 19 */

struct aiod_buffer {
    char *data;
    size_t length;   /* bytes of payload in it */
    size_t capacity; /* a power of two, at least AIOD_BUFFER_ALIGNMENT */
    struct aiod_buffers *home;
    struct aiod_buffer *next;
};

struct aiod_buffers {
    pthread_mutex_t lock;
    struct aiod_buffer *kept[AIOD_BUFFER_CLASSES];
    size_t kept_bytes;
    size_t kept_max;
};

void aiod_buffers_init(struct aiod_buffers *buffers, size_t kept_max);
void aiod_buffers_destroy(struct aiod_buffers *buffers);

/* Get a buffer of at least `capacity` bytes, with length 0. NULL if there is no memory. */
struct aiod_buffer *aiod_buffer_get(struct aiod_buffers *buffers, size_t capacity);

/* Return the buffer to the cache. NULL is ignored. */
void aiod_buffer_put(struct aiod_buffer *buffer);

#endif
