/*
 * reopen.c - open the caller's files at another engine, and check that they are the same files. An engine that resumes
 * the session does so itself, and by the descriptors that were kept; another one opens them by name.
 */
#include "reopen.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "attach.h"
#include "client.h"
#include "clock.h"
#include "wire.h"

#define CLAIM_WAIT_MS 500u

/* An OPEN or a REOPEN, as it is sent. */
union open_message {
    struct aiod_open_message open;
    struct {
        struct aiod_ring_reopen reopen;
        char path[AIOD_RING_PATH_MAX];
    };
};

/* Receive a message on a socket that no other thread uses. Returns its length; or -errno. */
static ssize_t receive(struct aiod_attachment *attachment, union aiod_answer *received, uint64_t deadline_ns)
{
    struct iovec iov = {.iov_base = received, .iov_len = sizeof(*received)};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t got = aiod_receive_by(attachment->socket, &header, deadline_ns);

    if ((size_t)got == sizeof(struct aiod_ring_plain) && received->type == AIOD_RING_GO) {
        attachment->grace = false;
    }
    return got == 0 ? -ECONNRESET : got;
}

/*
 * Send a call, and wait for its answer. *identity (may be NULL): of the file that was opened; zeros if the engine does
 * not say.
 */
static int64_t call_alone(struct aiod_attachment *attachment, const void *message, size_t length, uint64_t cookie,
                          struct aiod_ring_file *identity, uint64_t deadline_ns)
{
    union aiod_answer received;
    ssize_t got = aiod_send(attachment->socket, message, length, deadline_ns);

    if (got < 0) {
        return got;
    }
    do {
        got = receive(attachment, &received, deadline_ns);
        if (got < 0) {
            return got;
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

static bool is_of_names(const struct aiod_open_file *file)
{
    return file->flags == AIOD_OPEN_NAMES;
}

/* Fill in the message that opens the file again; returns its length. */
static size_t put_message(union open_message *message, const struct aiod_open_file *file, bool reopens, uint64_t cookie)
{
    size_t length = strlen(file->path);

    if (!reopens) {
        return aiod_put_open(&message->open, file->path, file->flags, 0, cookie);
    }
    message->reopen = (struct aiod_ring_reopen){.type = AIOD_RING_REOPEN,
                                                .flags = file->flags,
                                                .cookie = cookie,
                                                .handle = file->engine_handle,
                                                .changed = aiod_open_files_changed(file),
                                                .file = file->identity};
    memcpy(message->path, file->path, length);
    return sizeof(message->reopen) + length;
}

/* An engine that resumes the session compares the file itself. */
static int reopen(struct aiod_client *client, struct aiod_attachment *attachment, struct aiod_open_file *file,
                  uint64_t deadline_ns)
{
    union open_message message;
    struct aiod_ring_file now;
    uint64_t cookie = aiod_next_cookie(client);
    bool compared =
        is_of_names(file) || attachment->token.known; /* handles for names are of an export, not of a file */
    size_t length = put_message(&message, file, !is_of_names(file) && attachment->token.known, cookie);
    int64_t result = call_alone(attachment, &message, length, cookie, &now, deadline_ns);

    if (result < 0 && is_transient((int)result)) {
        return (int)result;
    }
    file->next_lost = result < 0 ? (int)result : compared || is_same(&now, &file->identity) ? 0 : -ESTALE;
    file->next_handle = file->next_lost == 0 ? (uint32_t)result : 0;
    if (result >= 0 && file->next_lost != 0) {
        struct aiod_ring_close close_it = {
            .type = AIOD_RING_CLOSE, .handle = (uint32_t)result, .cookie = aiod_next_cookie(client)};

        call_alone(attachment, &close_it, sizeof(close_it), close_it.cookie, NULL, deadline_ns);
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

static int64_t claim(struct aiod_client *client, struct aiod_attachment *attachment, const struct aiod_open_file *file,
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

    return call_alone(attachment, &message, sizeof(message), message.cookie, NULL, deadline_ns);
}

/* The engine refuses the requests of a handle with a lock that is lost. A claim that it refuses loses the file. */
static int claim_locks(struct aiod_client *client, struct aiod_attachment *attachment, struct aiod_open_file *file,
                       uint64_t deadline_ns)
{
    for (uint32_t i = 0; i < file->locks.count && file->next_lost == 0; i++) {
        struct aiod_held_lock *lock = &file->locks.locks[i];
        int64_t result = (attachment->features & AIOD_RING_LOCKS) != 0
                             ? claim(client, attachment, file, lock, deadline_ns)
                             : -EOPNOTSUPP;

        if (result < 0 && is_transient((int)result)) {
            return (int)result;
        }
        lock->next_number = result < 0 ? 0 : (uint64_t)result;
        file->next_lost = result < 0 && result != -EOWNERDEAD ? (int)result : 0;
    }
    return 0;
}

static int reopen_all(struct aiod_client *client, struct aiod_attachment *attachment, bool names, uint64_t deadline_ns)
{
    const struct aiod_open_files *files = client->open_files;

    for (uint32_t i = 0; i < files->slot_count; i++) {
        struct aiod_open_file *file = &files->slots[i];
        int error = 0;

        if (file->path != NULL && file->lost == 0 && is_of_names(file) == names) {
            error = reopen(client, attachment, file, deadline_ns);
            if (error == 0) {
                error = claim_locks(client, attachment, file, deadline_ns);
            }
        }
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

/* The files first: they keep their numbers, which no handle of names may take. */
int aiod_reopen_files(struct aiod_client *client, struct aiod_attachment *attachment, uint64_t deadline_ns)
{
    return reopen_all(client, attachment, false, deadline_ns);
}

int aiod_reopen_names(struct aiod_client *client, struct aiod_attachment *attachment, uint64_t deadline_ns)
{
    return reopen_all(client, attachment, true, deadline_ns);
}

int aiod_reopen_done(const struct aiod_attachment *attachment, uint64_t deadline_ns)
{
    const struct aiod_ring_plain repeated = {.type = AIOD_RING_REPEATED};

    return attachment->grace ? aiod_send(attachment->socket, &repeated, sizeof(repeated), deadline_ns) : 0;
}

int aiod_reopen_await_go(struct aiod_attachment *attachment, uint64_t deadline_ns)
{
    union aiod_answer received;

    while (attachment->grace) {
        ssize_t got = receive(attachment, &received, deadline_ns);

        if (got < 0) {
            return (int)got;
        }
    }
    return 0;
}
