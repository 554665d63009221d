/*
 * open_files.c - the handles of a client that goes on with another engine: what they are there, and what was changed.
 *
 * The caller's numbers are made here, as the engine makes its own: the slot's generation and its index, so that a number that
 * was closed is not soon another file's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resume.h"

#define FILES_MAX 65535u
#define FIRST_FILES 16u
#define KEPT_FLAGS (~(unsigned)(AIOD_OPEN_CREATE | AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE))

struct aiod_open_file *aiod_files_find(const struct aiod_resume *resume, uint32_t handle)
{
    uint32_t index = (handle & 0xffff) - 1;
    struct aiod_open_file *file = index < resume->file_count ? &resume->files[index] : NULL;

    return file != NULL && file->path != NULL && file->generation == handle >> 16 ? file : NULL;
}

/* Index of a free slot, or FILES_MAX. */
static uint32_t find_slot(struct aiod_resume *resume)
{
    uint32_t index = 0;

    while (index < resume->file_count && resume->files[index].path != NULL) {
        index++;
    }
    if (index == resume->file_count && index < FILES_MAX) {
        uint32_t count = index == 0 ? FIRST_FILES : index > FILES_MAX / 2 ? FILES_MAX : 2 * index;
        struct aiod_open_file *files = realloc(resume->files, count * sizeof(*files));

        if (files == NULL) {
            return FILES_MAX;
        }
        memset(files + index, 0, (count - index) * sizeof(*files));
        resume->files = files;
        resume->file_count = count;
    }
    return index;
}

int64_t aiod_files_add(struct aiod_client *client, const char *path, unsigned flags, const struct aiod_ring_file *file,
                       uint32_t engine_handle)
{
    char *copy = strdup(path);
    int64_t handle = -ENOMEM;
    uint32_t index = find_slot(client->resume);
    if (copy != NULL && index < FILES_MAX) {
        struct aiod_open_file *slot = &client->resume->files[index];
        uint32_t generation = (slot->generation + 1) & 0x7fff;

        *slot = (struct aiod_open_file){.path = copy,
                                        .generation = generation,
                                        .flags = flags & KEPT_FLAGS,
                                        .identity = *file,
                                        .engine_handle = engine_handle};
        handle = (int64_t)generation << 16 | (index + 1);
    } else { /* the engine's handle stays open until the session ends */
        free(copy);
    }
    return handle;
}

bool aiod_files_remove(struct aiod_client *client, uint32_t handle)
{
    struct aiod_open_file *file = aiod_files_find(client->resume, handle);

    if (file != NULL) {
        free(file->path);
        file->path = NULL;
    }
    return file != NULL;
}

uint32_t aiod_files_engine_handle(struct aiod_client *client, uint32_t handle)
{
    const struct aiod_open_file *file = aiod_files_find(client->resume, handle);

    return file != NULL ? file->engine_handle : 0;
}

/* ---- going on ------------------------------------------------------------------------------------------------------- */

/* Errnos of an engine that stops, goes, has no worker free or has too much to do: the next attempt may go. */
static bool may_pass(int error)
{
    return error == -ESHUTDOWN || error == -EAGAIN || error == -ETIMEDOUT || error == -EINTR || error == -ECONNRESET ||
           error == -EPIPE;
}

/* Generation 0: the file system tells no two files apart. */
static bool is_same(const struct aiod_ring_file *one, const struct aiod_ring_file *other)
{
    return one->generation != 0 && one->device == other->device && one->inode == other->inode &&
           one->generation == other->generation;
}

static int reopen(struct aiod_client *client, int socket, struct aiod_open_file *file, uint64_t deadline_ns)
{
    struct aiod_open_message message;
    struct aiod_ring_file now;
    uint64_t cookie = aiod_next_cookie(client);
    size_t length = aiod_put_open(&message, file->path, file->flags, 0, cookie);
    int64_t result = aiod_ask(socket, &message, length, cookie, &now, deadline_ns);

    if (result < 0 && may_pass((int)result)) {
        return (int)result;
    }
    file->next_lost = result < 0 ? (int)result : is_same(&now, &file->identity) ? 0 : -ESTALE;
    file->next_handle = file->next_lost == 0 ? (uint32_t)result : 0;
    if (result >= 0 && file->next_lost != 0) {
        struct aiod_ring_close close_it = {
            .type = AIOD_RING_CLOSE, .handle = (uint32_t)result, .cookie = aiod_next_cookie(client)};

        aiod_ask(socket, &close_it, sizeof(close_it), close_it.cookie, NULL, deadline_ns);
    }
    return 0;
}

int aiod_files_reopen(struct aiod_client *client, int socket, uint64_t deadline_ns)
{
    struct aiod_resume *resume = client->resume;

    for (uint32_t i = 0; i < resume->file_count; i++) {
        struct aiod_open_file *file = &resume->files[i];
        int error = 0;

        if (file->path != NULL && file->lost == 0) {
            error = reopen(client, socket, file, deadline_ns);
        }
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

void aiod_files_commit(struct aiod_resume *resume)
{
    for (uint32_t i = 0; i < resume->file_count; i++) {
        struct aiod_open_file *file = &resume->files[i];

        if (file->path != NULL && file->lost == 0) {
            file->engine_handle = file->next_handle;
            file->lost = file->next_lost;
        }
    }
}

void aiod_files_left(struct aiod_resume *resume, unsigned last_word)
{
    for (uint32_t i = 0; i < resume->file_count; i++) {
        struct aiod_open_file *file = &resume->files[i];

        file->doubt = file->doubt || (file->changes > file->flushed && (last_word & AIOD_RING_FLUSHED) == 0);
        file->flushed = file->changes;
    }
}

void aiod_files_destroy(struct aiod_resume *resume)
{
    for (uint32_t i = 0; i < resume->file_count; i++) {
        free(resume->files[i].path);
    }
    free(resume->files);
}
