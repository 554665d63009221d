/*
 * calls.c - what goes by the socket: open and close.
 *
 * Any number of calls are under way at once; the engine answers them in any order, by cookie. Of the threads that wait for
 * answers one looks at the socket (`receiving`), and hands out what it finds; whoever leaves lets another one look. All
 * that is received on the socket is received under `lock`, by aiod_receive().
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "resume.h"

enum call_state {
    CALL_NOT_SENT,
    CALL_ASKED,
    CALL_ANSWERED,
    CALL_LOST, /* the session ended before there was an answer */
};

/* A call under way. Protected by the client's lock. */
struct aiod_call {
    enum call_state state;
    bool abandoned; /* nobody waits for it any more: freed when it is answered */
    uint64_t cookie;
    const char *path; /* of an OPEN; NULL: it is a CLOSE. The caller's: not to be looked into once it is abandoned */
    unsigned flags;
    uint32_t handle; /* of a CLOSE: the caller's */
    pthread_cond_t cond;
    struct aiod_call *next;
    size_t length; /* of `answer` */
    union aiod_answer answer;
    int64_t result; /* of one that was answered */
};

/* ---- answers: lock held --------------------------------------------------------------------------------------------- */

static void free_call(struct aiod_call *call)
{
    pthread_cond_destroy(&call->cond);
    free(call);
}

/* An OPEN that nobody waits for was answered: its file is nobody's. What is answered to that CLOSE is passed over. */
static void close_unwanted(struct aiod_client *client, int64_t handle)
{
    struct aiod_ring_close message = {
        .type = AIOD_RING_CLOSE, .handle = (uint32_t)handle, .cookie = aiod_next_cookie(client)};

    (void)aiod_send_now(client->socket, &message, sizeof(message));
}

static void remember_file(struct aiod_client *client, struct aiod_call *call)
{
    struct aiod_ring_file file = {0};

    if (call->path == NULL) {
        aiod_files_remove(client, call->handle);
        return;
    }
    if (call->length >= sizeof(call->answer.reply) + sizeof(file)) {
        memcpy(&file, call->answer.bytes + sizeof(call->answer.reply), sizeof(file));
    }
    call->result = aiod_files_add(client, call->path, call->flags, &file, (uint32_t)call->result);
}

static void answer(struct aiod_client *client, struct aiod_call *call)
{
    call->state = CALL_ANSWERED;
    call->result = call->answer.reply.result;
    if (call->abandoned) {
        if (call->path != NULL && call->result >= 0) {
            close_unwanted(client, call->result);
        }
        free_call(call);
        return;
    }
    if (call->result >= 0 && client->resume != NULL) {
        remember_file(client, call);
    }
    pthread_cond_signal(&call->cond);
}

/* Hand an answer to whose it is. */
static void hand_out(struct aiod_client *client, const union aiod_answer *received, size_t length)
{
    struct aiod_call **link = &client->calls;
    struct aiod_call *call;

    if (length < sizeof(received->reply) || received->type != AIOD_RING_REPLY) {
        return;
    }
    while (*link != NULL && (*link)->cookie != received->reply.cookie) {
        link = &(*link)->next;
    }
    call = *link;
    if (call != NULL) {
        *link = call->next;
        call->length = length;
        memcpy(&call->answer, received, length);
        answer(client, call);
    }
}

void aiod_lose_calls(struct aiod_client *client)
{
    struct aiod_call *call = client->calls;

    client->calls = NULL;
    while (call != NULL) {
        struct aiod_call *next = call->next;

        call->state = CALL_LOST;
        if (call->abandoned) {
            free_call(call);
        } else {
            pthread_cond_signal(&call->cond);
        }
        call = next;
    }
}

/*
 * Is the next message another thread's to receive? That thread is awake, or sees that there is something; if it were taken from
 * it, it would sleep on.
 */
static bool is_for_the_receiver(const struct aiod_client *client)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    return client->receiving && aiod_receive_now(client->socket, &message, MSG_PEEK | MSG_TRUNC) > 1;
}

bool aiod_receive(struct aiod_client *client)
{
    union aiod_answer received;
    ssize_t got;

    while (!is_for_the_receiver(client)) {
        struct iovec iov = {.iov_base = &received, .iov_len = sizeof(received)};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

        got = aiod_receive_now(client->socket, &message, 0);
        if (got <= 0) {
            if (got != -EAGAIN) {
                aiod_lose_session(client);
            }
            return true;
        }
        if (got == 1) {
            aiod_loop_pass_byte_on(client);
        } else {
            hand_out(client, &received, (size_t)got);
        }
    }
    return false;
}

/* ---- asking: lock held on entry and return, not while it waits --------------------------------------------------------- */

/* Look at the socket for all who wait. */
static int receive_for_all(struct aiod_client *client, uint64_t deadline_ns)
{
    int error;

    client->receiving = true;
    pthread_mutex_unlock(&client->lock);
    error = aiod_poll(client->socket, POLLIN, deadline_ns);
    pthread_mutex_lock(&client->lock);
    client->receiving = false;
    if (!client->away && client->ended == 0) {
        aiod_receive(client);
    }
    if (client->left) { /* which the loop has taken for being woken */
        client->left = false;
        aiod_loop_pass_byte_on(client);
    }
    return error;
}

static void let_receive(struct aiod_client *client)
{
    struct aiod_call *call = client->calls;

    while (call != NULL && call->abandoned) {
        call = call->next;
    }
    if (call != NULL && !client->receiving) {
        pthread_cond_signal(&call->cond);
    }
}

static void await(struct aiod_client *client, struct aiod_call *call, uint64_t deadline_ns)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                             .tv_nsec = (long)(deadline_ns % 1000000000u)};
    int error = 0;

    while (call->state == CALL_ASKED && error == 0) {
        error = client->receiving ? pthread_cond_clockwait(&call->cond, &client->lock, CLOCK_MONOTONIC, &until)
                                  : receive_for_all(client, deadline_ns);
    }
    let_receive(client);
}

/* 0: it is asked; -ETIMEDOUT; else the state says what became of it. */
static int send_call(struct aiod_client *client, struct aiod_call *call, const void *message, size_t length,
                     uint64_t deadline_ns)
{
    while (client->ended == 0 && !client->away) {
        int error = aiod_send_now(client->socket, message, length);

        if (error == 0) {
            call->state = CALL_ASKED;
            call->next = client->calls;
            client->calls = call;
            return 0;
        }
        if (error != -EAGAIN) {
            aiod_lose_session(client);
            break;
        }
        pthread_mutex_unlock(&client->lock);
        error = aiod_poll(client->socket, POLLOUT, deadline_ns);
        pthread_mutex_lock(&client->lock);
        if (error < 0) {
            return error;
        }
    }
    return 0;
}

/* Nobody waits for it any more; a file that was closed, or may be, is not opened again at another engine. */
static void abandon(struct aiod_client *client, struct aiod_call *call)
{
    if (call->path == NULL && client->resume != NULL && !client->away) {
        aiod_files_remove(client, call->handle);
    }
    call->abandoned = true;
}

static int64_t result_of(const struct aiod_client *client, const struct aiod_call *call)
{
    if (call->state != CALL_ANSWERED) {
        return aiod_fail(client->ended != 0 ? -client->ended : -ECONNRESET, "the session has ended: %s",
                         aiod_why(client));
    }
    if (call->answer.reply.result < 0) {
        return aiod_refused(&call->answer, call->length);
    }
    return call->result >= 0 ? call->result : aiod_fail((int)call->result, "no memory for an open file");
}

/* Ask once. *state: what became of it. */
static int64_t ask_once(struct aiod_client *client, const struct aiod_call *asked, const void *message, size_t length,
                        enum call_state *state)
{
    uint64_t deadline_ns = aiod_deadline(client->call_timeout_ns);
    struct aiod_call *call = malloc(sizeof(*call));
    int64_t result;

    *state = CALL_ANSWERED;
    if (call == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    *call = *asked;
    pthread_cond_init(&call->cond, NULL);
    result = send_call(client, call, message, length, deadline_ns);
    if (result == 0) {
        await(client, call, deadline_ns);
    }
    if (call->state == CALL_ASKED) {
        abandon(client, call);
        return aiod_fail(-ETIMEDOUT, "the engine has not answered in time: unknown whether done");
    }
    *state = result < 0 ? CALL_ANSWERED : call->state;
    result =
        result < 0 ? aiod_fail((int)result, "the engine takes no call: its socket is full") : result_of(client, call);
    free_call(call);
    return result;
}

/* Is it to be asked for again? Not before there is an engine for it; *result is the end's errno if there is none. */
static bool ask_again(struct aiod_client *client, enum call_state state, int64_t *result)
{
    int error;

    if (client->resume == NULL || (state == CALL_ANSWERED && *result != -ESHUTDOWN)) {
        return false;
    }
    pthread_mutex_unlock(&client->lock);
    pthread_mutex_lock(&client->socket_lock);
    if (state == CALL_ANSWERED) { /* the daemon is stopping, and will end the session */
        aiod_poll(client->socket, POLLRDHUP, aiod_deadline(AIOD_RETRY_MS * UINT64_C(1000000)));
        pthread_mutex_lock(&client->lock);
        aiod_receive(client);
        pthread_mutex_unlock(&client->lock);
    }
    error = aiod_resume_await(client);
    pthread_mutex_unlock(&client->socket_lock);
    pthread_mutex_lock(&client->lock);
    if (error < 0) {
        *result = error;
    }
    return error == 0;
}

int64_t aiod_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode)
{
    struct aiod_open_message message;
    struct aiod_call call = {.path = path, .flags = flags};
    size_t length = strlen(path);
    enum call_state state;
    int64_t result;

    if (length > AIOD_RING_PATH_MAX) {
        return aiod_fail(-ENAMETOOLONG, "a path of %zu bytes: at most %u", length, AIOD_RING_PATH_MAX);
    }
    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    do {
        call.cookie = aiod_next_cookie(client);
        length = aiod_put_open(&message, path, flags, mode, call.cookie);
        result = ask_once(client, &call, &message, length, &state);
        if (state == CALL_LOST && client->resume != NULL && (flags & (AIOD_OPEN_EXCLUSIVE | AIOD_OPEN_TRUNCATE)) != 0) {
            result = aiod_fail(-EIO, "open %s: the engine has gone: unknown whether done", path);
            break;
        }
    } while (ask_again(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return result;
}

/* False: it could not be opened again, so that there is nothing to close. */
static bool find_engine_handle(struct aiod_client *client, uint32_t handle, uint32_t *number)
{
    *number = handle;
    if (client->resume == NULL || client->away) {
        return true;
    }
    *number = aiod_files_engine_handle(client, handle);
    return *number != 0 || !aiod_files_remove(client, handle);
}

int aiod_close(struct aiod_client *client, uint32_t handle)
{
    struct aiod_ring_close message = {.type = AIOD_RING_CLOSE};
    struct aiod_call call = {.handle = handle};
    enum call_state state;
    int64_t result = 0;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    do {
        message.cookie = call.cookie = aiod_next_cookie(client);
        if (!find_engine_handle(client, handle, &message.handle)) {
            result = 0;
            break;
        }
        result = ask_once(client, &call, &message, sizeof(message), &state);
    } while (ask_again(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return (int)result;
}

/* ---- by a socket that nobody else knows -------------------------------------------------------------------------------- */

uint64_t aiod_next_cookie(struct aiod_client *client)
{
    return __atomic_fetch_add(&client->next_cookie, 1, __ATOMIC_RELAXED);
}

size_t aiod_put_open(struct aiod_open_message *message, const char *path, unsigned flags, unsigned mode,
                     uint64_t cookie)
{
    size_t length = strlen(path);

    message->open = (struct aiod_ring_open){.type = AIOD_RING_OPEN, .flags = flags, .mode = mode, .cookie = cookie};
    memcpy(message->path, path, length);
    return sizeof(message->open) + length;
}

int64_t aiod_ask(int socket, const void *message, size_t length, uint64_t cookie, struct aiod_ring_file *file,
                 uint64_t deadline_ns)
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
    if (file != NULL) {
        *file = (struct aiod_ring_file){0};
        if ((size_t)got >= sizeof(received.reply) + sizeof(*file)) {
            memcpy(file, received.bytes + sizeof(received.reply), sizeof(*file));
        }
    }
    return received.reply.result < 0 ? aiod_refused(&received, (size_t)got) : received.reply.result;
}
