/*
 * open_files.c - the handles of a client that continues with another engine: the number of each at the engine,
 * and its unflushed changes.
 *
 * The library makes the caller's numbers the way the engine makes its own: a slot's generation and its index. So
 * the number of a closed file does not soon become another file's.
 */
#include "open_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX 65535u
#define FIRST_SLOTS 16u
#define KEPT_FLAGS (~(unsigned)(AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE))

void aiod_open_files_destroy(struct aiod_open_files *files)
{
    for (uint32_t i = 0; i < files->slot_count; i++) {
        free(files->slots[i].path);
        aiod_held_locks_clear(&files->slots[i].locks);
    }
    free(files->slots);
}

struct aiod_open_file *aiod_open_files_find(const struct aiod_open_files *files, uint32_t handle)
{
    uint32_t index = (handle & 0xffff) - 1;
    struct aiod_open_file *file = index < files->slot_count ? &files->slots[index] : NULL;

    return file != NULL && file->path != NULL && file->generation == handle >> 16 ? file : NULL;
}

/* Returns the index of a free slot; FILES_MAX: there is none. */
static uint32_t find_slot(struct aiod_open_files *files)
{
    uint32_t index = 0;

    while (index < files->slot_count && files->slots[index].path != NULL) {
        index++;
    }
    if (index == files->slot_count && index < FILES_MAX) {
        uint32_t count = index == 0 ? FIRST_SLOTS : index > FILES_MAX / 2 ? FILES_MAX : 2 * index;
        struct aiod_open_file *slots = realloc(files->slots, count * sizeof(*slots));

        if (slots == NULL) {
            return FILES_MAX;
        }
        memset(slots + index, 0, (count - index) * sizeof(*slots));
        files->slots = slots;
        files->slot_count = count;
    }
    return index;
}

int64_t aiod_open_files_add(struct aiod_open_files *files, const char *path, unsigned flags,
                            const struct aiod_ring_file *identity, uint32_t engine_handle)
{
    char *copy = strdup(path);
    uint32_t index = find_slot(files);
    struct aiod_open_file *file;
    uint32_t generation;

    if (copy == NULL || index == FILES_MAX) { /* the engine's handle stays open until the session ends */
        free(copy);
        return -ENOMEM;
    }
    file = &files->slots[index];
    generation = (file->generation + 1) & 0x7fff;
    *file = (struct aiod_open_file){.path = copy,
                                    .generation = generation,
                                    .flags = flags & KEPT_FLAGS,
                                    .identity = *identity,
                                    .engine_handle = engine_handle};
    return (int64_t)generation << 16 | (index + 1);
}

bool aiod_open_files_remove(struct aiod_open_files *files, uint32_t handle)
{
    struct aiod_open_file *file = aiod_open_files_find(files, handle);

    if (file != NULL) {
        free(file->path);
        file->path = NULL;
        aiod_held_locks_clear(&file->locks);
    }
    return file != NULL;
}

uint32_t aiod_open_files_engine_handle(const struct aiod_open_files *files, uint32_t handle)
{
    const struct aiod_open_file *file = aiod_open_files_find(files, handle);

    return file != NULL ? file->engine_handle : 0;
}

void aiod_open_files_flushed(struct aiod_open_files *files)
{
    for (uint32_t i = 0; i < files->slot_count; i++) {
        files->slots[i].flushed = files->slots[i].changes;
    }
}

bool aiod_open_files_changed(const struct aiod_open_file *file)
{
    return file->in_doubt || file->changes > file->flushed;
}

void aiod_open_files_commit(struct aiod_open_files *files, bool resumed)
{
    for (uint32_t i = 0; i < files->slot_count; i++) {
        struct aiod_open_file *file = &files->slots[i];

        if (file->path != NULL && file->lost == 0) {
            file->engine_handle = file->next_handle;
            file->lost = file->next_lost;
            aiod_held_locks_commit(&file->locks);
            file->in_doubt = !resumed && aiod_open_files_changed(file);
        }
    }
}
