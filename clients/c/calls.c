/*
 * calls.c - what goes by the socket: open and close.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "resume.h"

/* The answer with `cookie`. Words that only wake, and answers to calls given up, are passed over. */
static int64_t receive_reply(int socket, uint64_t cookie, struct aiod_ring_file *file, bool *lost)
{
    union aiod_answer answer;
    ssize_t got;

    for (;;) {
        got = recv(socket, &answer, sizeof(answer), 0);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            *lost = true;
            return aiod_fail(-ECONNRESET, "the session has ended: the engine has closed it, or is gone");
        }
        if ((size_t)got >= sizeof(answer.reply) && answer.type == AIOD_RING_REPLY && answer.reply.cookie == cookie) {
            break;
        }
    }
    if (answer.reply.result < 0) {
        return aiod_refused(&answer, (size_t)got);
    }
    if (file != NULL && (size_t)got >= sizeof(answer.reply) + sizeof(*file)) {
        memcpy(file, answer.bytes + sizeof(answer.reply), sizeof(*file));
    }
    return answer.reply.result;
}

int64_t aiod_ask(int socket, const void *message, size_t length, uint64_t cookie, struct aiod_ring_file *file,
                 bool *lost)
{
    *lost = false;
    if (file != NULL) {
        *file = (struct aiod_ring_file){0};
    }
    if (send(socket, message, length, MSG_NOSIGNAL) < 0) {
        *lost = true;
        return aiod_fail(-errno, "the session has ended: %s", strerror(errno));
    }
    return receive_reply(socket, cookie, file, lost);
}

int64_t aiod_ask_open(struct aiod_client *client, int socket, const char *path, size_t length, unsigned flags,
                      unsigned mode, struct aiod_ring_file *file, bool *lost)
{
    struct {
        struct aiod_ring_open open;
        char path[AIOD_RING_PATH_MAX];
    } message = {.open = {.type = AIOD_RING_OPEN, .flags = flags, .mode = mode, .cookie = client->next_cookie++}};

    memcpy(message.path, path, length);
    return aiod_ask(socket, &message, sizeof(message.open) + length, message.open.cookie, file, lost);
}

static void lose(struct aiod_client *client)
{
    pthread_mutex_lock(&client->lock);
    aiod_lose_session(client);
    pthread_mutex_unlock(&client->lock);
}

/*
 * After a call was answered with `result`, or not at all (`lost`): is it to be asked for again? Not before there is an engine
 * for it. *result is the end's errno if there is none.
 */
static bool ask_again(struct aiod_client *client, bool lost, int64_t *result)
{
    int error;

    if (lost) {
        lose(client);
    }
    if (client->resume == NULL || (!lost && *result != -ESHUTDOWN)) {
        return false;
    }
    if (!lost) { /* the daemon is stopping, and will end the session */
        struct pollfd end = {.fd = client->socket, .events = POLLRDHUP};

        poll(&end, 1, AIOD_RETRY_MS);
    }
    error = aiod_resume_await(client);
    if (error < 0) {
        *result = error;
    }
    return error == 0;
}

int64_t aiod_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode)
{
    size_t length = strlen(path);
    struct aiod_ring_file file;
    int64_t result;
    bool lost;

    if (length > AIOD_RING_PATH_MAX) {
        return aiod_fail(-ENAMETOOLONG, "a path of %zu bytes: at most %u", length, AIOD_RING_PATH_MAX);
    }
    pthread_mutex_lock(&client->socket_lock);
    do {
        result = aiod_ask_open(client, client->socket, path, length, flags, mode, &file, &lost);
        if (lost && result != -EPIPE && client->resume != NULL &&
            (flags & (AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE)) != 0) {
            lose(client);
            result = aiod_fail(-EIO, "open %s: the engine has gone: unknown whether done", path);
            break;
        }
    } while (ask_again(client, lost, &result));
    if (result >= 0 && client->resume != NULL) {
        result = aiod_files_add(client, path, flags, &file, (uint32_t)result);
    }
    pthread_mutex_unlock(&client->socket_lock);
    return result;
}

int aiod_close(struct aiod_client *client, uint32_t handle)
{
    struct aiod_ring_close message = {.type = AIOD_RING_CLOSE};
    int64_t result;
    bool lost;

    pthread_mutex_lock(&client->socket_lock);
    do {
        message.cookie = client->next_cookie++;
        message.handle = client->resume != NULL ? aiod_files_engine_handle(client, handle) : handle;
        if (message.handle == 0 && client->resume != NULL && aiod_files_remove(client, handle)) {
            result = 0; /* it could not be opened again: there is nothing to close */
            break;
        }
        result = aiod_ask(client->socket, &message, sizeof(message), message.cookie, NULL, &lost);
    } while (ask_again(client, lost, &result));
    if (result == 0 && client->resume != NULL) {
        aiod_files_remove(client, handle);
    }
    pthread_mutex_unlock(&client->socket_lock);
    return (int)result;
}
