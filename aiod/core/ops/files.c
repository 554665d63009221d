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

void aiod_files_init(struct aiod_files *files)
{
    files->notice_fd = -1;
    pthread_mutex_init(&files->lock, NULL);
}

void aiod_files_destroy(struct aiod_files *files)
{
    pthread_mutex_destroy(&files->lock);
}

/* Lock held. */
static void count_descriptors(struct aiod_files *files, int change)
{
    __atomic_store_n(&files->descriptors, files->descriptors + (uint32_t)change, __ATOMIC_RELAXED);
}

/* Lock held. */
static struct aiod_file *get(struct aiod_files *files, struct aiod_pool *pool, uint64_t dev, uint64_t ino,
                             const struct aiod_file_user *user, int *flush_fd)
{
    struct aiod_file **chain = chain_of(files, dev, ino);
    struct aiod_file *file = *chain;

    while (file != NULL && (file->dev != dev || file->ino != ino)) {
        file = file->next;
    }
    if (file == NULL) {
        file = create(pool, dev, ino, *flush_fd >= 0 ? *flush_fd : user->fd, files->notice_fd);
        if (file == NULL) {
            return NULL;
        }
        file->flushes.groups = &files->groups;
        file->owns_flush_fd = *flush_fd >= 0;
        count_descriptors(files, *flush_fd >= 0);
        file->flushes.shares_description = *flush_fd < 0 && user->writable;
        file->flushes.by_writers = user->on_fuse;
        file->flushes.fd_is_read = *flush_fd < 0 && !user->writable;
        file->flushes.writers.inherited = user->inherited;
        *flush_fd = -1;
        file->next = *chain;
        *chain = file;
    }
    file->refs++;
    count_descriptors(files, user->fd >= 0);
    return file;
}

struct aiod_file *aiod_file_get(struct aiod_files *files, struct aiod_pool *pool, uint64_t dev, uint64_t ino,
                                const struct aiod_file_user *user, int *flush_fd)
{
    struct aiod_file *file;

    pthread_mutex_lock(&files->lock);
    file = get(files, pool, dev, ino, user, flush_fd);
    pthread_mutex_unlock(&files->lock);
    return file;
}

bool aiod_file_is_shared(struct aiod_files *files, const struct aiod_file *file)
{
    bool shared;

    pthread_mutex_lock(&files->lock);
    shared = file->refs > 1;
    pthread_mutex_unlock(&files->lock);
    return shared;
}

/* Lock held. */
static void remove_file(struct aiod_files *files, struct aiod_file *file)
{
    struct aiod_file **link = chain_of(files, file->dev, file->ino);

    while (*link != file) {
        link = &(*link)->next;
    }
    *link = file->next;
    destroy(file);
}

/* Lock held. */
static unsigned put(struct aiod_files *files, struct aiod_file *file, int fd, int close[2])
{
    unsigned count = 0;

    if (--file->refs > 0 && fd == file->flushes.fd) {
        file->owns_flush_fd = true;
        return 0;
    }
    close[count++] = fd;
    count_descriptors(files, -(fd >= 0));
    if (file->refs > 0) {
        return count;
    }
    if (file->owns_flush_fd) {
        close[count++] = file->flushes.fd;
        count_descriptors(files, -1);
    }
    remove_file(files, file);
    return count;
}

unsigned aiod_file_put(struct aiod_files *files, struct aiod_file *file, int fd, int close[2])
{
    unsigned count;

    pthread_mutex_lock(&files->lock);
    count = put(files, file, fd, close);
    pthread_mutex_unlock(&files->lock);
    return count;
}

bool aiod_file_put_reader(struct aiod_files *files, struct aiod_file *file, int fd, int close[2])
{
    bool may;

    close[0] = close[1] = -1;
    pthread_mutex_lock(&files->lock);
    may = file->refs > 1 || !file->owns_flush_fd || file->flushes.fd_is_read;
    if (may) {
        put(files, file, fd, close);
    }
    pthread_mutex_unlock(&files->lock);
    return may;
}

uint32_t aiod_files_descriptors(const struct aiod_files *files)
{
    return __atomic_load_n(&files->descriptors, __ATOMIC_RELAXED);
}
