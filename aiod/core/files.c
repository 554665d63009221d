#include "files.h"

#include <stdatomic.h>
#include <stdlib.h>

struct aiod_file {
    uint64_t dev;
    uint64_t ino;
    atomic_bool poisoned;
    unsigned refs; /* handles */
    struct aiod_file *next;
};

static struct aiod_file **chain_of(struct aiod_files *files, uint64_t dev, uint64_t ino)
{
    uint64_t mixed = (ino ^ (dev << 32 | dev >> 32)) * 0x9e3779b97f4a7c15u; /* Fibonacci hashing */

    return &files->chains[mixed >> 54];
}

struct aiod_file *aiod_file_get(struct aiod_files *files, uint64_t dev, uint64_t ino)
{
    struct aiod_file **chain = chain_of(files, dev, ino);
    struct aiod_file *file = *chain;

    while (file != NULL && (file->dev != dev || file->ino != ino)) {
        file = file->next;
    }
    if (file == NULL) {
        file = calloc(1, sizeof(*file));
        if (file == NULL) {
            return NULL;
        }
        file->dev = dev;
        file->ino = ino;
        file->next = *chain;
        *chain = file;
    }
    file->refs++;
    return file;
}

void aiod_file_put(struct aiod_files *files, struct aiod_file *file)
{
    struct aiod_file **link = chain_of(files, file->dev, file->ino);

    if (--file->refs > 0) {
        return;
    }
    while (*link != file) {
        link = &(*link)->next;
    }
    *link = file->next;
    free(file);
}

bool aiod_file_poisoned(const struct aiod_file *file)
{
    return atomic_load_explicit(&file->poisoned, memory_order_acquire);
}

void aiod_file_poison(struct aiod_file *file)
{
    atomic_store_explicit(&file->poisoned, true, memory_order_release);
}
