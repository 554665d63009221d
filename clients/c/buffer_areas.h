/*
 * buffer_areas.h - the buffer area of the engine's memory, and the areas of earlier engines (buffer_areas.c).
 *
 * The caller has pointers into an area, and what they point to must stay when another engine takes over. So the old
 * area stays mapped until its last buffer is released. The new area is as large and has the same allocator state: a
 * buffer in an old area keeps its offset, and its bytes are copied to or from that offset of the new area.
 * Protected by the client's lock.
 */
#ifndef LIBAIOD_BUFFER_AREAS_H
#define LIBAIOD_BUFFER_AREAS_H

#include "buffer_pool.h"

struct aiod_old_area {
    char *base;
    uint64_t in_use; /* buffers */
    struct aiod_old_area *next;
};

struct aiod_buffer_areas {
    char *base;
    uint64_t bytes;
    uint64_t in_use; /* buffers of the area at `base` */
    struct aiod_old_area *old;
    struct aiod_old_area *spare; /* for aiod_areas_move(); or NULL */
    struct aiod_buffer_pool pool;
};

/* False: out of memory. */
bool aiod_areas_init(struct aiod_buffer_areas *areas, char *base, uint64_t bytes);

/* `mapped`: the areas are mapped in this process; they are not in a forked child. */
void aiod_areas_destroy(struct aiod_buffer_areas *areas, bool mapped);

/* NULL: there is no free block of `bytes`. */
void *aiod_areas_get(struct aiod_buffer_areas *areas, uint64_t bytes);
void aiod_areas_release(struct aiod_buffer_areas *areas, void *buffer);

/* The offset of `buffer` in its area. */
uint64_t aiod_areas_offset(const struct aiod_buffer_areas *areas, const void *buffer);

/* Does `buffer` lie in an old area? */
bool aiod_areas_is_old(const struct aiod_buffer_areas *areas, const void *buffer);

/* Do the `bytes` at `data` lie in one area? */
bool aiod_areas_contain(const struct aiod_buffer_areas *areas, const void *data, uint64_t bytes);

/* Copy a buffer of an old area to its offset in the present area, or back. */
void aiod_areas_copy_in(const struct aiod_buffer_areas *areas, const void *buffer, uint64_t bytes);
void aiod_areas_copy_out(const struct aiod_buffer_areas *areas, void *buffer, uint64_t bytes);

/* Allocate what aiod_areas_move() needs, so that it cannot fail. False: out of memory. */
bool aiod_areas_prepare_move(struct aiod_buffer_areas *areas);

/* The present area is at `base` from now on. */
void aiod_areas_move(struct aiod_buffer_areas *areas, char *base);

#endif
