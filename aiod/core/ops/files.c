/* files.c - the hash table of open files. */
#include "ops/files.h"

#include <stdlib.h>

static struct aiod_file **chain_of(struct aiod_files *files, uint64_t dev, uint64_t ino)
{
    /* Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4) */
    uint64_t mixed = (ino ^ (dev << 32 | dev >> 32)) * 0x9e3779b97f4a7c15u;

    return &files->chains[mixed >> 54];
}

static struct aiod_file *create(struct aiod_pool *pool, uint64_t dev, uint64_t ino, int fd, int notice_fd)
{
    struct aiod_file *file = calloc(1, sizeof(*file));

    if (file == NULL) {
        return NULL;
    }
    file->dev = dev;
    file->ino = ino;
    aiod_flushes_init(&file->flushes, pool, fd);
    file->flushes.dev = dev;
    file->flushes.ino = ino;
    file->flushes.notice_fd = notice_fd;
    aiod_range_locks_init(&file->range_locks);
    pthread_mutex_init(&file->position, NULL);
    return file;
}

static void destroy(struct aiod_file *file)
{
    pthread_mutex_destroy(&file->position);
    aiod_range_locks_destroy(&file->range_locks);
    aiod_flushes_destroy(&file->flushes);
    free(file);
}

struct aiod_file *aiod_file_get(struct aiod_files *files, struct aiod_pool *pool, uint64_t dev, uint64_t ino, int fd,
                                int *flush_fd, bool writable, bool on_fuse)
{
    struct aiod_file **chain = chain_of(files, dev, ino);
    struct aiod_file *file = *chain;

    while (file != NULL && (file->dev != dev || file->ino != ino)) {
        file = file->next;
    }
    if (file == NULL) {
        file = create(pool, dev, ino, *flush_fd >= 0 ? *flush_fd : fd, files->notice_fd);
        if (file == NULL) {
            return NULL;
        }
        file->flushes.groups = &files->groups;
        file->owns_flush_fd = *flush_fd >= 0;
        file->flushes.shares_description = *flush_fd < 0 && writable;
        file->flushes.by_writers = on_fuse;
        file->flushes.fd_is_read = *flush_fd < 0 && !writable;
        *flush_fd = -1;
        file->next = *chain;
        *chain = file;
    }
    file->refs++;
    return file;
}

unsigned aiod_file_put(struct aiod_files *files, struct aiod_file *file, int fd, int close[2])
{
    struct aiod_file **link = chain_of(files, file->dev, file->ino);
    unsigned count = 0;

    if (--file->refs > 0 && fd == file->flushes.fd) {
        file->owns_flush_fd = true;
        return 0;
    }
    close[count++] = fd;
    if (file->refs > 0) {
        return count;
    }
    if (file->owns_flush_fd) {
        close[count++] = file->flushes.fd;
    }
    while (*link != file) {
        link = &(*link)->next;
    }
    *link = file->next;
    destroy(file);
    return count;
}
