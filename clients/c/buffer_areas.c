/*
 * buffer_areas.c - buffers of the present area and of those before it.
 *
 * Rejected: copying the old area over the new one. The caller may be writing to a buffer at that moment.
 */
#include "buffer_areas.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

bool aiod_areas_init(struct aiod_buffer_areas *areas, char *base, uint64_t bytes)
{
    *areas = (struct aiod_buffer_areas){.base = base, .bytes = bytes};
    return aiod_buffer_pool_init(&areas->pool, bytes);
}

void aiod_areas_destroy(struct aiod_buffer_areas *areas, bool mapped)
{
    while (areas->old != NULL) {
        struct aiod_old_area *old = areas->old;

        areas->old = old->next;
        if (mapped) {
            munmap(old->base, areas->bytes);
        }
        free(old);
    }
    if (mapped) {
        munmap(areas->base, areas->bytes);
    }
    free(areas->spare);
    aiod_buffer_pool_destroy(&areas->pool);
}

void *aiod_areas_get(struct aiod_buffer_areas *areas, uint64_t bytes)
{
    uint64_t offset = aiod_buffer_pool_get(&areas->pool, bytes);

    if (offset == UINT64_MAX) {
        return NULL;
    }
    areas->in_use++;
    return areas->base + offset;
}

/* NULL: `buffer` lies in no old area. */
static const struct aiod_old_area *old_area_of(const struct aiod_buffer_areas *areas, const char *buffer)
{
    const struct aiod_old_area *old = areas->old;

    while (old != NULL && (buffer < old->base || buffer >= old->base + areas->bytes)) {
        old = old->next;
    }
    return old;
}

static const char *base_of(const struct aiod_buffer_areas *areas, const void *buffer)
{
    const struct aiod_old_area *old = old_area_of(areas, buffer);

    return old != NULL ? old->base : areas->base;
}

uint64_t aiod_areas_offset(const struct aiod_buffer_areas *areas, const void *buffer)
{
    return (uint64_t)((const char *)buffer - base_of(areas, buffer));
}

bool aiod_areas_is_old(const struct aiod_buffer_areas *areas, const void *buffer)
{
    return old_area_of(areas, buffer) != NULL;
}

bool aiod_areas_contain(const struct aiod_buffer_areas *areas, const void *data, uint64_t bytes)
{
    const char *base = base_of(areas, data);
    const char *first = data;

    return first >= base && first <= base + areas->bytes && bytes <= (uint64_t)(base + areas->bytes - first);
}

/* One buffer fewer in `old`: the last one takes the area with it. */
static void release_old(struct aiod_buffer_areas *areas, const struct aiod_old_area *old)
{
    struct aiod_old_area **link = &areas->old;
    struct aiod_old_area *found;

    while (*link != old) {
        link = &(*link)->next;
    }
    found = *link;
    if (--found->in_use == 0) {
        *link = found->next;
        munmap(found->base, areas->bytes);
        free(found);
    }
}

void aiod_areas_release(struct aiod_buffer_areas *areas, void *buffer)
{
    const struct aiod_old_area *old = old_area_of(areas, buffer);

    aiod_buffer_pool_release(&areas->pool, aiod_areas_offset(areas, buffer));
    if (old != NULL) {
        release_old(areas, old);
    } else {
        areas->in_use--;
    }
}

void aiod_areas_copy_in(const struct aiod_buffer_areas *areas, const void *buffer, uint64_t bytes)
{
    memcpy(areas->base + aiod_areas_offset(areas, buffer), buffer, bytes);
}

void aiod_areas_copy_out(const struct aiod_buffer_areas *areas, void *buffer, uint64_t bytes)
{
    memcpy(buffer, areas->base + aiod_areas_offset(areas, buffer), bytes);
}

bool aiod_areas_prepare_move(struct aiod_buffer_areas *areas)
{
    if (areas->spare == NULL) {
        areas->spare = malloc(sizeof(*areas->spare));
    }
    return areas->spare != NULL;
}

void aiod_areas_move(struct aiod_buffer_areas *areas, char *base)
{
    struct aiod_old_area *old = areas->spare;

    if (areas->in_use == 0) {
        munmap(areas->base, areas->bytes);
    } else {
        *old = (struct aiod_old_area){.base = areas->base, .in_use = areas->in_use, .next = areas->old};
        areas->old = old;
        areas->spare = NULL;
    }
    areas->in_use = 0;
    areas->base = base;
}
