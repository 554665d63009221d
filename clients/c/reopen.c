/*
 * reopen.c - open the caller's files at another engine, by name, and check that they are the same files.
 */
#include "reopen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "clock.h"
#include "wire.h"

#define CLAIM_WAIT_MS 500u

/*
 * Send a call on a socket that no other thread uses, and wait for its answer. *identity (may be NULL): of the file
 * that was opened; zeros if the engine does not say. -ECONNRESET, -EPIPE: the connection has ended.
 */
static int64_t call_alone(int socket, const void *message, size_t length, uint64_t cookie,
                          struct aiod_ring_file *identity, uint64_t deadline_ns)
{
    union aiod_answer received;
    ssize_t got = aiod_send(socket, message, length, deadline_ns);

    if (got < 0) {
        return got;
    }
    do {
        struct iovec iov = {.iov_base = &received, .iov_len = sizeof(received)};
        struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

        got = aiod_receive_by(socket, &header, deadline_ns);
        if (got <= 0) {
            return got < 0 ? got : -ECONNRESET;
        }
    } while ((size_t)got < sizeof(received.reply) || received.type != AIOD_RING_REPLY ||
             received.reply.cookie != cookie);
    if (identity != NULL) {
        *identity = (struct aiod_ring_file){0};
        if ((size_t)got >= sizeof(received.reply) + sizeof(*identity)) {
            memcpy(identity, received.bytes + sizeof(received.reply), sizeof(*identity));
        }
    }
    return received.reply.result < 0 ? aiod_fail_refused(&received, (size_t)got) : received.reply.result;
}

/* The errnos of an engine that stops, has gone, has no free worker or is too busy: a later attempt may succeed. */
static bool is_transient(int error)
{
    return error == -ESHUTDOWN || error == -EAGAIN || error == -ETIMEDOUT || error == -EINTR || error == -ECONNRESET ||
           error == -EPIPE;
}

/* Generation 0: unknown, so that no two files are known to be the same. */
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
    int64_t result = call_alone(socket, &message, length, cookie, &now, deadline_ns);
    bool same; /* handles for names are of an export, not of a file */

    if (result < 0 && is_transient((int)result)) {
        return (int)result;
    }
    same = file->flags == AIOD_OPEN_NAMES || is_same(&now, &file->identity);
    file->next_lost = result < 0 ? (int)result : same ? 0 : -ESTALE;
    file->next_handle = file->next_lost == 0 ? (uint32_t)result : 0;
    if (result >= 0 && file->next_lost != 0) {
        struct aiod_ring_close close_it = {
            .type = AIOD_RING_CLOSE, .handle = (uint32_t)result, .cookie = aiod_next_cookie(client)};

        call_alone(socket, &close_it, sizeof(close_it), close_it.cookie, NULL, deadline_ns);
    }
    return 0;
}

/* ---- locks ------------------------------------------------------------------------------------------------------- */

/* How long the engine waits for a lock that the kernel has not taken from the dead engine yet. */
static uint32_t claim_wait_ms(uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / AIOD_NS_PER_MS : 0;

    return left_ms / 2 < CLAIM_WAIT_MS ? (uint32_t)(left_ms / 2) : CLAIM_WAIT_MS;
}

static int64_t claim(struct aiod_client *client, int socket, const struct aiod_open_file *file,
                     const struct aiod_held_lock *lock, uint64_t deadline_ns)
{
    struct aiod_ring_lock message = {
        .type = AIOD_RING_LOCK,
        .handle = file->next_handle,
        .cookie = aiod_next_cookie(client),
        .offset = lock->offset,
        .length = lock->length,
        .number = lock->number,
        .flags = AIOD_RING_LOCK_CLAIM | (lock->exclusive ? AIOD_LOCK_EXCLUSIVE : AIOD_LOCK_SHARED),
        .wait_ms = claim_wait_ms(deadline_ns),
    };

    return call_alone(socket, &message, sizeof(message), message.cookie, NULL, deadline_ns);
}

/* The engine refuses the requests of a handle with a lock that is lost. A claim that it refuses loses the file. */
static int claim_locks(struct aiod_client *client, int socket, uint32_t features, struct aiod_open_file *file,
                       uint64_t deadline_ns)
{
    for (uint32_t i = 0; i < file->locks.count && file->next_lost == 0; i++) {
        struct aiod_held_lock *lock = &file->locks.locks[i];
        int64_t result =
            (features & AIOD_RING_LOCKS) != 0 ? claim(client, socket, file, lock, deadline_ns) : -EOPNOTSUPP;

        if (result < 0 && is_transient((int)result)) {
            return (int)result;
        }
        lock->next_number = result < 0 ? 0 : (uint64_t)result;
        file->next_lost = result < 0 && result != -EOWNERDEAD ? (int)result : 0;
    }
    return 0;
}

int aiod_reopen(struct aiod_client *client, int socket, uint32_t features, uint64_t deadline_ns)
{
    const struct aiod_open_files *files = client->open_files;

    for (uint32_t i = 0; i < files->slot_count; i++) {
        struct aiod_open_file *file = &files->slots[i];
        int error = 0;

        if (file->path != NULL && file->lost == 0) {
            error = reopen(client, socket, file, deadline_ns);
            if (error == 0) {
                error = claim_locks(client, socket, features, file, deadline_ns);
            }
        }
        if (error < 0) {
            return error;
        }
    }
    return 0;
}
