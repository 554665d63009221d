/*
 * calls.c - sending and receiving on the session's socket.
 *
 * Any number of calls are under way at once; the engine answers them in any order, by cookie. Of the threads that
 * wait for answers one (`receiving`) polls the socket and hands out what arrives; a thread that stops waiting lets
 * another one poll. Everything is received by aiod_receive(), under the client's lock.
 */
#include "calls.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "clock.h"
#include "error.h"
#include "wire.h"

/* A call under way. Protected by the client's lock. */
struct aiod_call {
    struct aiod_call_request request; /* its path is the caller's: not valid once the call is abandoned */
    enum aiod_call_state state;
    bool abandoned; /* no thread waits for the answer: freed when it arrives */
    pthread_cond_t cond;
    struct aiod_call *next;
    size_t length; /* of `answer` */
    union aiod_answer answer;
    int64_t result; /* once answered */
};

/* ---- messages ---------------------------------------------------------------------------------------------------- */

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

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void free_call(struct aiod_call *call)
{
    pthread_cond_destroy(&call->cond);
    free(call);
}

void aiod_close_unwanted(struct aiod_client *client, int64_t handle)
{
    struct aiod_ring_close message = {
        .type = AIOD_RING_CLOSE, .handle = (uint32_t)handle, .cookie = aiod_next_cookie(client)};

    (void)aiod_send_now(client->socket, &message, sizeof(message));
}

/* The same for a LOCK. */
static void unlock_unwanted(struct aiod_client *client, const struct aiod_ring_lock *lock)
{
    struct aiod_ring_unlock message = {.type = AIOD_RING_UNLOCK,
                                       .handle = lock->handle,
                                       .cookie = aiod_next_cookie(client),
                                       .offset = lock->offset,
                                       .length = lock->length};

    (void)aiod_send_now(client->socket, &message, sizeof(message));
}

const char aiod_ring_file_call = 0;

static void opened_by_ring(struct aiod_client *client, struct aiod_ring_file_call *call)
{
    struct aiod_ring_opened opened;
    struct aiod_ring_file identity;

    memcpy(&opened, call->op.buffer, sizeof(opened));
    identity = (struct aiod_ring_file){opened.device, opened.inode, opened.generation};
    call->handle = (int64_t)opened.handle;
    if (call->op.state != OP_ABANDONED && client->open_files != NULL) {
        call->handle =
            aiod_open_files_add(client->open_files, call->path, call->flags, &identity, (uint32_t)opened.handle);
    }
    if (call->op.state == OP_ABANDONED || call->handle < 0) {
        aiod_close_unwanted(client, (int64_t)opened.handle);
    } else if (client->open_files != NULL) {
        aiod_open_files_find(client->open_files, (uint32_t)call->handle)->by_ring = true;
    }
}

void aiod_ring_file_call_completed(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_ring_file_call *call = (struct aiod_ring_file_call *)op;

    if (op->user != AIOD_RING_FILE_CALL || op->result < 0) {
        return;
    }
    if (op->op != AIOD_RING_CLOSE_FILE) {
        opened_by_ring(client, call);
    } else if (client->open_files != NULL) {
        aiod_open_files_remove(client->open_files, op->handle);
    }
}

static void add_file(struct aiod_client *client, struct aiod_call *call)
{
    const struct aiod_call_request *request = &call->request;
    struct aiod_ring_file identity = {0};

    if (call->length >= sizeof(call->answer.reply) + sizeof(identity)) {
        memcpy(&identity, call->answer.bytes + sizeof(call->answer.reply), sizeof(identity));
    }
    call->result =
        aiod_open_files_add(client->open_files, request->path, request->flags, &identity, (uint32_t)call->result);
}

static void add_lock(struct aiod_client *client, struct aiod_call *call)
{
    const struct aiod_ring_lock *sent = &call->request.lock;
    struct aiod_open_file *file = aiod_open_files_find(client->open_files, call->request.handle);
    struct aiod_held_lock lock = {.offset = sent->offset,
                                  .length = sent->length,
                                  .exclusive = sent->flags == AIOD_LOCK_EXCLUSIVE,
                                  .number = (uint64_t)call->result};

    if (file != NULL && !aiod_held_locks_add(&file->locks, &lock)) {
        unlock_unwanted(client, sent);
        call->result = -ENOMEM;
    }
}

/* The call has been carried out, or may be. */
static void forget(struct aiod_client *client, const struct aiod_call_request *request)
{
    struct aiod_open_file *file = aiod_open_files_find(client->open_files, request->handle);

    if (request->type == AIOD_RING_CLOSE) {
        aiod_open_files_remove(client->open_files, request->handle);
    } else if (request->type == AIOD_RING_UNLOCK && file != NULL) {
        aiod_held_locks_remove(&file->locks, request->offset, request->length);
    }
}

static void update_open_files(struct aiod_client *client, struct aiod_call *call)
{
    if (call->request.type == AIOD_RING_OPEN) {
        add_file(client, call);
    } else if (call->request.type == AIOD_RING_LOCK) {
        add_lock(client, call);
    } else {
        forget(client, &call->request);
    }
}

static void take_answer(struct aiod_client *client, struct aiod_call *call)
{
    call->state = CALL_ANSWERED;
    call->result = call->answer.reply.result;
    if (call->abandoned) {
        if (call->request.type == AIOD_RING_OPEN && call->result >= 0) {
            aiod_close_unwanted(client, call->result);
        } else if (call->request.type == AIOD_RING_LOCK && call->result >= 0) {
            unlock_unwanted(client, &call->request.lock);
        }
        free_call(call);
        return;
    }
    if (call->result >= 0 && client->open_files != NULL) {
        update_open_files(client, call);
    }
    pthread_cond_signal(&call->cond);
}

/* Find the call that was answered. */
static void hand_out(struct aiod_client *client, const union aiod_answer *received, size_t length)
{
    struct aiod_call **link = &client->calls.unanswered;
    struct aiod_call *call;

    if (length < sizeof(received->reply) || received->type != AIOD_RING_REPLY) {
        return;
    }
    while (*link != NULL && (*link)->request.cookie != received->reply.cookie) {
        link = &(*link)->next;
    }
    call = *link;
    if (call != NULL) {
        *link = call->next;
        call->length = length;
        memcpy(&call->answer, received, length);
        take_answer(client, call);
    }
}

void aiod_lose_calls(struct aiod_client *client)
{
    struct aiod_call *call = client->calls.unanswered;

    client->calls.unanswered = NULL;
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

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static void lose_connection(struct aiod_client *client)
{
    if (client->ended == 0 && !client->away) {
        client->hooks->connection_lost(client);
    }
}

/*
 * Does the next message belong to the thread that receives? That thread is awake, or poll() wakes it; it would
 * sleep on if another thread took the message.
 */
static bool is_for_the_receiver(const struct aiod_client *client)
{
    char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

    return client->calls.receiving && aiod_receive_now(client->socket, &message, MSG_PEEK | MSG_TRUNC) > 1;
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
                lose_connection(client);
            }
            return true;
        }
        if (got == 1) {
            aiod_loop_byte_taken(&client->loop);
        } else {
            hand_out(client, &received, (size_t)got);
        }
    }
    return false;
}

/* ---- calling ----------------------------------------------------------------------------------------------------- */

/* Poll the socket for all threads that wait for answers. The lock is not held meanwhile. */
static int receive_for_all(struct aiod_client *client, uint64_t deadline_ns)
{
    int error;

    client->calls.receiving = true;
    pthread_mutex_unlock(&client->lock);
    error = aiod_poll(client->socket, POLLIN, deadline_ns);
    pthread_mutex_lock(&client->lock);
    client->calls.receiving = false;
    if (!client->away && client->ended == 0) {
        aiod_receive(client);
    }
    if (client->loop.answer_left) { /* it kept aiod_fd() readable, for which the loop counts as notified */
        client->loop.answer_left = false;
        aiod_loop_byte_taken(&client->loop);
    }
    return error;
}

static void choose_receiver(const struct aiod_client *client)
{
    struct aiod_call *call = client->calls.unanswered;

    while (call != NULL && call->abandoned) {
        call = call->next;
    }
    if (call != NULL && !client->calls.receiving) {
        pthread_cond_signal(&call->cond);
    }
}

static void await(struct aiod_client *client, struct aiod_call *call, uint64_t deadline_ns)
{
    struct timespec until = aiod_timespec(deadline_ns);
    int error = 0;

    while (call->state == CALL_SENT && error == 0) {
        error = client->calls.receiving ? pthread_cond_clockwait(&call->cond, &client->lock, CLOCK_MONOTONIC, &until)
                                        : receive_for_all(client, deadline_ns);
    }
    choose_receiver(client);
}

/* 0: it is sent, or its state is still CALL_NOT_SENT since no engine is connected; -ETIMEDOUT: the socket is full. */
static int send_call(struct aiod_client *client, struct aiod_call *call, const void *message, size_t length,
                     uint64_t deadline_ns)
{
    while (client->ended == 0 && !client->away) {
        int error = aiod_send_now(client->socket, message, length);

        if (error == 0) {
            call->state = CALL_SENT;
            call->next = client->calls.unanswered;
            client->calls.unanswered = call;
            return 0;
        }
        if (error != -EAGAIN) {
            lose_connection(client);
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

/*
 * Its caller has given up. A file that is closed, or may be, is not opened again at another engine, and a lock that is
 * released, or may be, is not claimed.
 */
static void abandon(struct aiod_client *client, struct aiod_call *call)
{
    if (client->open_files != NULL && !client->away) {
        forget(client, &call->request);
    }
    call->abandoned = true;
}

static enum aiod_call_state outcome_of(const struct aiod_call *call)
{
    const struct aiod_ring_reply *reply = &call->answer.reply;
    bool stopping = call->state == CALL_ANSWERED && reply->result < 0 && reply->reason == AIOD_RING_STOPPING;

    return stopping ? CALL_STOPPING : call->state;
}

static int64_t result_of(const struct aiod_client *client, const struct aiod_call *call)
{
    if (call->state != CALL_ANSWERED) {
        return aiod_fail(client->ended != 0 ? -client->ended : -ECONNRESET, "the session has ended: %s",
                         aiod_end_reason(client));
    }
    if (call->answer.reply.result < 0) {
        return aiod_fail_refused(&call->answer, call->length);
    }
    return call->result >= 0 ? call->result
                             : aiod_fail((int)call->result, "out of memory for an open file or its lock");
}

int64_t aiod_call(struct aiod_client *client, const struct aiod_call_request *request, const void *message,
                  size_t length, enum aiod_call_state *state)
{
    uint64_t deadline_ns = aiod_deadline(client->call_timeout_ns + request->wait_ns);
    struct aiod_call *call = malloc(sizeof(*call));
    int64_t result;

    *state = CALL_ANSWERED;
    if (call == NULL) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    *call = (struct aiod_call){.request = *request};
    pthread_cond_init(&call->cond, NULL);
    result = send_call(client, call, message, length, deadline_ns);
    if (result == 0) {
        await(client, call, deadline_ns);
    }
    if (call->state == CALL_SENT) {
        abandon(client, call);
        return aiod_fail(-ETIMEDOUT, "no answer from the engine in time: unknown whether done");
    }
    if (result < 0) {
        result = aiod_fail((int)result, "cannot send the call in time: the engine's socket is full");
    } else {
        *state = outcome_of(call);
        result = result_of(client, call);
    }
    free_call(call);
    return result;
}
