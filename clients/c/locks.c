/*
 * locks.c - locking ranges of files, repeated at the next engine: a lock that was granted by an engine that died before
 * its answer was dropped with it.
 */
#include <errno.h>

#include "client.h"
#include "clock.h"
#include "error.h"
#include "file_calls.h"
#include "forks.h"
#include "wait.h"

/* 0: the present engine has locks, or none is connected; else -errno. */
static int check_engine(const struct aiod_client *client)
{
    if (client->away || client->ended != 0 || (client->features & AIOD_RING_LOCKS) != 0) {
        return 0;
    }
    return aiod_fail(-EOPNOTSUPP, "the engine is too old for locks, or the session has not begun on the ring's socket");
}

/* The engine's number of a handle. NULL in *file, and the caller's number: the caller has the engine's handles. */
static uint32_t engine_handle(struct aiod_client *client, uint32_t handle, struct aiod_open_file **file)
{
    *file = client->open_files != NULL ? aiod_open_files_find(client->open_files, handle) : NULL;
    if (client->open_files == NULL) {
        return handle;
    }
    return *file != NULL ? (*file)->engine_handle : 0;
}

/* ---- locking ----------------------------------------------------------------------------------------------------- */

/* Milliseconds until the deadline, rounded up, for `wait_ms`. */
static uint32_t wait_ms_until(uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t ms = deadline_ns > now ? (deadline_ns - now - 1) / AIOD_NS_PER_MS + 1 : 1;

    return ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
}

/* One call. The lock is held on entry and return, not meanwhile. */
static int64_t lock_once(struct aiod_client *client, struct aiod_call_request *request, enum aiod_call_state *state)
{
    struct aiod_open_file *file;
    int error = check_engine(client);

    *state = CALL_ANSWERED;
    if (error < 0) {
        return error;
    }
    request->lock.handle = engine_handle(client, request->handle, &file);
    if (!client->away && file != NULL && file->lost != 0) {
        return aiod_fail_because(AIOD_RING_NOT_REOPENED, file->lost,
                                 "lock %s: the engine could not open the file again", file->path);
    }
    request->lock.cookie = request->cookie = aiod_next_cookie(client);
    request->wait_ns = request->lock.wait_ms * AIOD_NS_PER_MS;
    return aiod_call(client, request, &request->lock, sizeof(request->lock), state);
}

/* The engine waits for a day at most. */
static bool is_to_wait_on(int64_t result, int64_t timeout_ns)
{
    return timeout_ns < 0 && result == -ETIMEDOUT && aiod_reason() == AIOD_RING_DEADLINE;
}

int aiod_lock(struct aiod_client *client, uint32_t handle, unsigned flags, uint64_t offset, uint64_t length,
              int64_t timeout_ns)
{
    struct aiod_call_request request = {
        .type = AIOD_RING_LOCK,
        .handle = handle,
        .lock = {.type = AIOD_RING_LOCK, .offset = offset, .length = length, .flags = flags},
    };
    uint64_t deadline_ns = timeout_ns < 0 ? AIOD_NEVER : aiod_deadline((uint64_t)timeout_ns);
    enum aiod_call_state state;
    int64_t result;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    if (flags > AIOD_LOCK_EXCLUSIVE) {
        return aiod_fail_because(AIOD_RING_BAD_ENTRY, -EINVAL, "lock: unknown bits in flags %#x", flags);
    }
    pthread_mutex_lock(&client->lock);
    do {
        request.lock.wait_ms = timeout_ns == 0 ? 0 : wait_ms_until(deadline_ns);
        result = lock_once(client, &request, &state);
    } while (is_to_wait_on(result, timeout_ns) || aiod_files_repeat(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return result < 0 ? (int)result : 0;
}

/* ---- unlocking --------------------------------------------------------------------------------------------------- */

/* Of a file that the engine could not open again: nothing is locked there. */
static int64_t unlock_lost_file(struct aiod_open_file *file, const struct aiod_call_request *request)
{
    uint32_t before = file->locks.count;

    aiod_held_locks_remove(&file->locks, request->offset, request->length);
    return before - file->locks.count;
}

/* One call. The lock is held on entry and return, not meanwhile. */
static int64_t unlock_once(struct aiod_client *client, struct aiod_call_request *request, enum aiod_call_state *state)
{
    struct aiod_ring_unlock message = {.type = AIOD_RING_UNLOCK, .offset = request->offset, .length = request->length};
    struct aiod_open_file *file;
    int error = check_engine(client);

    *state = CALL_ANSWERED;
    if (error < 0) {
        return error;
    }
    if (!aiod_wait_for_handle(client, request->handle, aiod_deadline(client->call_timeout_ns))) {
        return aiod_fail(-ETIMEDOUT, "unlock: requests of the handle are still in flight; nothing was released");
    }
    message.handle = engine_handle(client, request->handle, &file);
    if (!client->away && file != NULL && file->lost != 0) {
        return unlock_lost_file(file, request);
    }
    message.cookie = request->cookie = aiod_next_cookie(client);
    return aiod_call(client, request, &message, sizeof(message), state);
}

int aiod_unlock(struct aiod_client *client, uint32_t handle, uint64_t offset, uint64_t length)
{
    struct aiod_call_request request = {.type = AIOD_RING_UNLOCK, .handle = handle, .offset = offset, .length = length};
    enum aiod_call_state state;
    int64_t result;

    if (aiod_forked(client)) {
        return aiod_fail_forked();
    }
    pthread_mutex_lock(&client->lock);
    do {
        result = unlock_once(client, &request, &state);
    } while (aiod_files_repeat(client, state, &result));
    pthread_mutex_unlock(&client->lock);
    return result < 0 ? (int)result : result > 0;
}
