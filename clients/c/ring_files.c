/*
 * ring_files.c - opening and closing files by the ring: OPEN_FILE, OPEN_WRITABLE and CLOSE_FILE (docs/ring.md, Opening
 * and closing). What they cannot do goes by message.
 *
 * They need a handle for the names of the export. It is asked for, by message, when a second file of the export is
 * opened: a program that opens one file needs none.
 */
#include "ring_files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buffers.h"
#include "client.h"
#include "clock.h"
#include "error.h"
#include "file_calls.h"

#define ONCE_FLAGS ((unsigned)(AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE)) /* of an open that is not repeated */
#define MESSAGE_FLAGS (~(unsigned)(AIOD_OPEN_READ | AIOD_OPEN_WRITE | AIOD_OPEN_CREATE | ONCE_FLAGS | AIOD_OPEN_APPEND))

/* An export of which files were opened. Protected by the client's lock. */
struct aiod_export_names {
    struct aiod_export_names *next;
    uint32_t handle; /* for its names; 0: none */
    bool is_callers; /* the caller closes it */
    bool wanted;     /* a file was opened before */
    bool asking;     /* a thread asks for a handle: others go by message meanwhile */
    bool refused;    /* the engine gives none */
    bool no_read;    /* no file of it can be opened by OPEN_FILE */
    bool no_write;   /* or by OPEN_WRITABLE */
    char export[];
};

/* ---- handles for names ------------------------------------------------------------------------------------------- */

/* Lock held. NULL: it is not known, or there is no memory to add it. */
static struct aiod_export_names *find(struct aiod_client *client, const char *export, size_t length, bool add)
{
    struct aiod_export_names *names = client->names;

    while (names != NULL && (strncmp(names->export, export, length) != 0 || names->export[length] != '\0')) {
        names = names->next;
    }
    if (names == NULL && add) {
        names = calloc(1, sizeof(*names) + length + 1);
        if (names != NULL) {
            memcpy(names->export, export, length);
            names->next = client->names;
            client->names = names;
        }
    }
    return names;
}

uint32_t aiod_ring_names_give(struct aiod_client *client, const char *export)
{
    struct aiod_export_names *names;
    uint32_t handle = 0;

    pthread_mutex_lock(&client->lock);
    names = find(client, export, strlen(export), false);
    if (names != NULL && !names->is_callers) {
        handle = names->handle;
        names->is_callers = true;
    }
    pthread_mutex_unlock(&client->lock);
    return handle;
}

void aiod_ring_names_borrow(struct aiod_client *client, const char *export, uint32_t handle)
{
    struct aiod_export_names *names;

    pthread_mutex_lock(&client->lock);
    names = find(client, export, strlen(export), true);
    if (names != NULL && names->handle == 0) {
        names->handle = handle;
        names->is_callers = true;
    }
    pthread_mutex_unlock(&client->lock);
}

/* Lock held. Returns whether it was the library's. */
static bool forget_names(struct aiod_client *client, uint32_t handle)
{
    bool was_own = false;

    for (struct aiod_export_names *names = client->names; names != NULL; names = names->next) {
        if (names->handle == handle) {
            was_own = !names->is_callers;
            names->handle = 0;
            names->is_callers = names->no_read = names->no_write = false;
        }
    }
    return was_own;
}

void aiod_ring_names_forget(struct aiod_client *client, uint32_t handle)
{
    pthread_mutex_lock(&client->lock);
    forget_names(client, handle);
    pthread_mutex_unlock(&client->lock);
}

/* The engine serves it no more. */
static void discard_names(struct aiod_client *client, uint32_t handle)
{
    bool was_own;

    pthread_mutex_lock(&client->lock);
    was_own = forget_names(client, handle);
    pthread_mutex_unlock(&client->lock);
    if (was_own) {
        aiod_discard_by_message(client, handle);
    }
}

void aiod_ring_files_destroy(struct aiod_client *client)
{
    while (client->names != NULL) {
        struct aiod_export_names *names = client->names;

        client->names = names->next;
        free(names);
    }
}

static uint32_t ask(struct aiod_client *client, struct aiod_export_names *names)
{
    int64_t handle = aiod_open_by_message(client, names->export, AIOD_OPEN_NAMES, 0);

    pthread_mutex_lock(&client->lock);
    names->asking = false;
    names->refused = handle == -EINVAL || handle == -EOPNOTSUPP;
    if (handle > 0) {
        names->handle = (uint32_t)handle;
        names->is_callers = false;
    }
    pthread_mutex_unlock(&client->lock);
    return handle > 0 ? (uint32_t)handle : 0;
}

/* A handle for the names of the export, with which `op` opens its files; 0: go by message. */
static uint32_t names_for(struct aiod_client *client, const char *export, size_t length, uint16_t op)
{
    struct aiod_export_names *names;
    uint32_t handle = 0;
    bool asks = false;

    pthread_mutex_lock(&client->lock);
    names = find(client, export, length, true);
    if (names != NULL && !(op == AIOD_RING_OPEN_FILE ? names->no_read : names->no_write)) {
        handle = names->handle;
        asks = handle == 0 && names->wanted && !names->refused && !names->asking;
        names->asking = names->asking || asks;
        names->wanted = true;
    }
    pthread_mutex_unlock(&client->lock);
    return asks ? ask(client, names) : handle;
}

static void go_by_message(struct aiod_client *client, const char *export, size_t length, uint16_t op)
{
    struct aiod_export_names *names;

    pthread_mutex_lock(&client->lock);
    names = find(client, export, length, false);
    if (op == AIOD_RING_OPEN_FILE) {
        names->no_read = true;
    } else {
        names->no_write = true;
    }
    pthread_mutex_unlock(&client->lock);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void release(struct aiod_client *client, struct aiod_ring_file_call *call)
{
    aiod_return_buffer(client, call->op.buffer);
    free(call);
}

/* Submit the request, and wait. 1: it is done; else the call is released: 0: it was not submitted; or -ETIMEDOUT. */
static int carry_out(struct aiod_client *client, struct aiod_ring_file_call *call)
{
    struct aiod_op *op = &call->op;
    int64_t timeout_ns = client->call_timeout_ns == AIOD_NEVER ? AIOD_NO_TIMEOUT : (int64_t)client->call_timeout_ns;

    op->awaited = true;
    op->user = AIOD_RING_FILE_CALL;
    if (aiod_submit(client, &op, 1) != 1) {
        release(client, call);
        return 0;
    }
    if (aiod_wait(client, op, timeout_ns) < 0) {
        aiod_disown_buffer(client, op->buffer);
        aiod_abandon(client, op);
        return aiod_fail(-ETIMEDOUT, "no answer from the engine in time: unknown whether done");
    }
    return 1;
}

/* ---- opening ----------------------------------------------------------------------------------------------------- */

/* NULL: there is no memory, or no room in the buffer area. */
static struct aiod_ring_file_call *prepare_open(struct aiod_client *client, uint16_t op, uint32_t names,
                                                const char *path, const char *inside, unsigned flags, unsigned mode)
{
    const struct aiod_ring_open_file how = {.flags = flags, .mode = mode};
    size_t how_bytes = op == AIOD_RING_OPEN_WRITABLE ? sizeof(how) : 0;
    size_t bytes = how_bytes + strlen(inside);
    struct aiod_ring_file_call *call = calloc(1, sizeof(*call) + strlen(path) + 1);

    if (call == NULL) {
        return NULL;
    }
    call->flags = flags;
    strcpy(call->path, path);
    call->op.op = op;
    call->op.handle = names;
    call->op.source = (uint32_t)bytes;
    call->op.length = sizeof(struct aiod_ring_opened);
    call->op.buffer =
        aiod_borrow_buffer(client, bytes > sizeof(struct aiod_ring_opened) ? bytes : sizeof(struct aiod_ring_opened));
    if (call->op.buffer == NULL) {
        free(call);
        return NULL;
    }
    memcpy(call->op.buffer, &how, how_bytes);
    memcpy((char *)call->op.buffer + how_bytes, inside, bytes - how_bytes);
    return call;
}

/*
 * Has the kernel refused the open, so that a message would end alike? Of OPEN_FILE only that there is no such file. An
 * open for writing may have changed something before it failed; but the causes of two errnos the message explains.
 */
static bool is_final(const struct aiod_op *op)
{
    int64_t error = op->result;

    return op->reason == AIOD_RING_BY_KERNEL && error != -ECONNRESET && error != -ESHUTDOWN &&
           (error == -ENOENT || (op->op == AIOD_RING_OPEN_WRITABLE && error != -EAGAIN && error != -EINVAL));
}

static bool is_ascii(const char *text)
{
    while (*text != '\0' && (unsigned char)*text < 0x80) {
        text++;
    }
    return *text == '\0';
}

/* Will another file of the export be refused, too? A name that is not UTF-8 is a bad entry as well. */
static bool is_refused_for_all(const struct aiod_op *op, const char *path)
{
    return op->result == -EOPNOTSUPP || op->reason == AIOD_RING_NOT_ALLOWED ||
           (op->reason == AIOD_RING_BAD_ENTRY && is_ascii(path));
}

/* An open has failed. True: *result is the errno, with its message. False: by message. */
static bool failed(struct aiod_client *client, const struct aiod_ring_file_call *call, size_t export_bytes,
                   int64_t *result)
{
    const struct aiod_op *op = &call->op;

    if (op->reason == AIOD_RING_UNKNOWN && (call->flags & ONCE_FLAGS) != 0) {
        *result = aiod_fail(-EIO, "open %s: the engine has gone: unknown whether done", call->path);
        return true;
    }
    if (is_final(op)) {
        *result = aiod_fail((int)op->result, "open %s: %s", call->path, strerror((int)-op->result));
        return true;
    }
    if (op->result == -EBADF || op->reason == AIOD_RING_NOT_REOPENED) {
        discard_names(client, op->handle);
    } else if (is_refused_for_all(op, call->path)) {
        go_by_message(client, call->path, export_bytes, op->op);
    }
    return false;
}

bool aiod_ring_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode, int64_t *result)
{
    uint16_t op = flags == AIOD_OPEN_READ ? AIOD_RING_OPEN_FILE : AIOD_RING_OPEN_WRITABLE;
    size_t export_bytes = strcspn(path, "/");
    const char *inside = path[export_bytes] == '/' ? path + export_bytes + 1 : "";
    struct aiod_ring_file_call *call;
    uint32_t names;
    bool done = true;
    int waited;

    if (flags != AIOD_OPEN_READ && ((flags & AIOD_OPEN_WRITE) == 0 || (flags & MESSAGE_FLAGS) != 0)) {
        return false;
    }
    names = names_for(client, path, export_bytes, op);
    call = names != 0 ? prepare_open(client, op, names, path, inside, flags, mode) : NULL;
    waited = call != NULL ? carry_out(client, call) : 0;
    if (waited <= 0) {
        *result = waited;
        return waited < 0;
    }
    if (call->op.result >= 0) {
        *result = call->handle >= 0 ? call->handle : aiod_fail((int)call->handle, "out of memory for an open file");
        __atomic_fetch_add(&client->opened_by_ring, 1, __ATOMIC_RELAXED);
    } else {
        done = failed(client, call, export_bytes, result);
    }
    release(client, call);
    return done;
}

/* ---- closing ----------------------------------------------------------------------------------------------------- */

/* Has the ring opened the file, as far as is known? */
static bool may_close(struct aiod_client *client, uint32_t handle)
{
    const struct aiod_open_file *file;
    bool may;

    if (__atomic_load_n(&client->opened_by_ring, __ATOMIC_RELAXED) == 0) {
        return false;
    }
    if (client->open_files == NULL) {
        return true;
    }
    pthread_mutex_lock(&client->lock);
    file = aiod_open_files_find(client->open_files, handle);
    may = file != NULL && file->by_ring && file->engine_handle != 0 && file->locks.count == 0;
    pthread_mutex_unlock(&client->lock);
    return may;
}

/* The caller has given up: the file is not opened again at another engine, since it may be closed. */
static void forget(struct aiod_client *client, uint32_t handle)
{
    pthread_mutex_lock(&client->lock);
    if (client->open_files != NULL && !client->away) {
        aiod_open_files_remove(client->open_files, handle);
    }
    pthread_mutex_unlock(&client->lock);
}

bool aiod_ring_close(struct aiod_client *client, uint32_t handle, int64_t *result)
{
    struct aiod_ring_file_call *call = may_close(client, handle) ? calloc(1, sizeof(*call)) : NULL;
    bool closed;
    int waited;

    if (call == NULL) {
        return false;
    }
    call->op.op = AIOD_RING_CLOSE_FILE;
    call->op.handle = handle;
    waited = carry_out(client, call);
    if (waited < 0) {
        forget(client, handle);
    }
    if (waited <= 0) {
        *result = waited;
        return waited < 0;
    }
    closed = call->op.result == 0;
    *result = 0;
    if (closed) {
        __atomic_fetch_sub(&client->opened_by_ring, 1, __ATOMIC_RELAXED);
    }
    release(client, call);
    return closed;
}
