/* inflight.c - notes of requests in flight (inflight.h). */
#include "vhost/inflight.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "util/os.h"

#define VERSION 1u
#define LINE_BYTES 64u /* the notes of two queues share no cache line */

struct note {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next; /* of the last batch */
    uint64_t counter;
};

struct aiod_inflight_queue {
    uint64_t features;
    uint16_t version; /* 0: not used yet */
    uint16_t size;
    uint16_t last_batch_head;
    uint16_t used;
    struct note notes[];
};

static_assert(sizeof(struct note) == 16 && sizeof(struct aiod_inflight_queue) == 16, "the protocol");

static uint64_t queue_bytes(uint16_t queue_size)
{
    uint64_t bytes = sizeof(struct aiod_inflight_queue) + (uint64_t)queue_size * sizeof(struct note);

    return (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
}

uint64_t aiod_inflight_bytes(uint16_t queue_count, uint16_t queue_size)
{
    return queue_count * queue_bytes(queue_size);
}

int aiod_inflight_create(uint16_t queue_count, uint16_t queue_size)
{
    int fd = memfd_create("aiod-vhost-inflight", MFD_CLOEXEC);

    if (fd >= 0 && aiod_os->ftruncate(fd, (off_t)aiod_inflight_bytes(queue_count, queue_size)) < 0) {
        int error = -errno;

        close(fd);
        return error;
    }
    return fd < 0 ? -errno : fd;
}

const char *aiod_inflight_map(struct aiod_inflight *area, int fd, uint64_t offset, uint64_t bytes, uint16_t queue_count,
                              uint16_t queue_size)
{
    struct stat file;
    void *start;

    if (fd < 0 || aiod_os->fstat(fd, &file) < 0 || !S_ISREG(file.st_mode)) {
        return "its area for requests in flight is no file in memory";
    }
    if (queue_count == 0 || queue_size == 0 || bytes < aiod_inflight_bytes(queue_count, queue_size) ||
        offset % 4096 != 0 || offset > (uint64_t)file.st_size || bytes > (uint64_t)file.st_size - offset) {
        return "its area for requests in flight has a wrong size";
    }
    start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (start == MAP_FAILED) {
        return "its area for requests in flight cannot be mapped";
    }
    *area = (struct aiod_inflight){
        .start = start,
        .bytes = bytes,
        .queue_bytes = queue_bytes(queue_size),
        .queue_count = queue_count,
        .queue_size = queue_size,
    };
    return NULL;
}

void aiod_inflight_unmap(struct aiod_inflight *area)
{
    if (area->start != NULL) {
        aiod_os->munmap(area->start, area->bytes);
    }
    *area = (struct aiod_inflight){0};
}

struct aiod_inflight_queue *aiod_inflight_of(const struct aiod_inflight *area, unsigned index, uint16_t size)
{
    if (area->start == NULL || index >= area->queue_count || size > area->queue_size) {
        return NULL;
    }
    return (struct aiod_inflight_queue *)(void *)((char *)area->start + index * area->queue_bytes);
}

/* ---- a new engine ------------------------------------------------------------------------------------------------ */

/* A head with its counter, copied once. */
struct found {
    uint64_t counter;
    uint16_t head;
};

static int compare(const void *one, const void *other)
{
    const struct found *a = one;
    const struct found *b = other;

    return (a->counter > b->counter) - (a->counter < b->counter);
}

/*
 * The notes of the last batch may not have been ended. A batch has at most as many entries as the queue; a list that lies
 * about that ends nothing that is not noted.
 */
static void end_last_batch(struct aiod_inflight_queue *notes, uint16_t size, uint16_t used)
{
    uint16_t batch = (uint16_t)(used - __atomic_load_n(&notes->used, __ATOMIC_RELAXED));
    uint16_t head = __atomic_load_n(&notes->last_batch_head, __ATOMIC_RELAXED);

    for (uint16_t i = 0; i < batch && i < size && head < size; i++) {
        __atomic_store_n(&notes->notes[head].inflight, 0, __ATOMIC_RELAXED);
        head = __atomic_load_n(&notes->notes[head].next, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&notes->used, used, __ATOMIC_RELAXED);
}

static void collect(const struct aiod_inflight_queue *notes, uint16_t size, struct aiod_inflight_left *left)
{
    struct found found[1024];

    for (uint16_t head = 0; head < size; head++) {
        if (__atomic_load_n(&notes->notes[head].inflight, __ATOMIC_RELAXED) != 0) {
            found[left->count++] =
                (struct found){.counter = __atomic_load_n(&notes->notes[head].counter, __ATOMIC_RELAXED), .head = head};
        }
    }
    qsort(found, left->count, sizeof(found[0]), compare);
    for (uint16_t i = 0; i < left->count; i++) {
        left->heads[i] = found[i].head;
        left->counter = found[i].counter + 1;
    }
}

void aiod_inflight_begin(struct aiod_inflight_queue *notes, uint16_t size, uint16_t used,
                         struct aiod_inflight_left *left)
{
    left->count = 0;
    left->counter = 0;
    if (notes == NULL) {
        return;
    }
    if (__atomic_load_n(&notes->version, __ATOMIC_RELAXED) != VERSION ||
        __atomic_load_n(&notes->size, __ATOMIC_RELAXED) != size) {
        for (uint16_t head = 0; head < size; head++) {
            __atomic_store_n(&notes->notes[head].inflight, 0, __ATOMIC_RELAXED);
        }
        __atomic_store_n(&notes->size, size, __ATOMIC_RELAXED);
        __atomic_store_n(&notes->last_batch_head, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&notes->used, used, __ATOMIC_RELAXED);
        __atomic_store_n(&notes->version, VERSION, __ATOMIC_RELEASE);
        return;
    }
    end_last_batch(notes, size, used);
    collect(notes, size, left);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

void aiod_inflight_take(struct aiod_inflight_queue *notes, uint16_t head, uint64_t counter)
{
    if (notes != NULL) {
        __atomic_store_n(&notes->notes[head].counter, counter, __ATOMIC_RELAXED);
        __atomic_store_n(&notes->notes[head].inflight, 1, __ATOMIC_RELEASE);
    }
}

/* A batch is one request. */
void aiod_inflight_publishing(struct aiod_inflight_queue *notes, uint16_t head)
{
    if (notes != NULL) {
        __atomic_store_n(&notes->notes[head].next, __atomic_load_n(&notes->last_batch_head, __ATOMIC_RELAXED),
                         __ATOMIC_RELAXED);
        __atomic_store_n(&notes->last_batch_head, head, __ATOMIC_RELEASE);
    }
}

void aiod_inflight_published(struct aiod_inflight_queue *notes, uint16_t head, uint16_t used)
{
    if (notes != NULL) {
        __atomic_store_n(&notes->notes[head].inflight, 0, __ATOMIC_RELEASE);
        __atomic_store_n(&notes->used, used, __ATOMIC_RELEASE);
    }
}
