/* core_locks.c - locks of the files of sessions, and what depends on them (core.h). Main loop's thread only. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>

static struct aiod_control *create(enum aiod_op op, uint64_t tag, struct aiod_handle *handle)
{
    struct aiod_control *control = aiod_core_create_control(op, tag, handle->use.rate);

    if (control == NULL) {
        return NULL;
    }
    control->handle = handle;
    control->transport = tag != 0 ? handle->session->transport : AIOD_BY_DAEMON;
    handle->inflight++;
    return control;
}

int aiod_core_lock(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                   const struct aiod_file_lock *lock, uint64_t regain)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);
    struct aiod_control *control;

    if (handle == NULL || handle->fd < 0) {
        return -EBADF;
    }
    control = create(AIOD_LOCK, tag, handle);
    if (control == NULL) {
        return -ENOMEM;
    }
    __atomic_store_n(&handle->locked, true, __ATOMIC_RELAXED);
    control->lock = *lock;
    control->regain = regain;
    aiod_core_submit_control(core, control);
    return 0;
}

/* What the client was told to have failed, by its timeout or its cancellation, may still be under way. */
static void wait_for_requests(struct aiod_control *unlock)
{
    const struct aiod_handle *handle = unlock->handle;

    for (struct aiod_message_io *message = handle->session->inflight; message != NULL; message = message->next) {
        if (message->io.handle == handle || message->io.source == handle) {
            message->unlock = unlock;
            unlock->waits_for++;
        }
    }
}

int aiod_core_unlock(struct aiod_core *core, uint64_t tag, struct aiod_session *session, uint32_t number,
                     uint64_t first, uint64_t last)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);
    struct aiod_control *control;

    if (handle == NULL || handle->fd < 0) {
        return -EBADF;
    }
    control = create(AIOD_UNLOCK, tag, handle);
    if (control == NULL) {
        return -ENOMEM;
    }
    control->lock = (struct aiod_file_lock){.first = first, .last = last};
    wait_for_requests(control);
    if (control->waits_for == 0) {
        aiod_core_submit_control(core, control);
    }
    return 0;
}

void aiod_core_continue_unlock(struct aiod_core *core, struct aiod_control *unlock)
{
    if (--unlock->waits_for == 0) {
        aiod_core_submit_control(core, unlock);
    }
}

int aiod_core_release_locks(struct aiod_core *core, struct aiod_handle *handle)
{
    struct aiod_control *control = create(AIOD_UNLOCK, 0, handle);

    __atomic_store_n(&handle->locked, false, __ATOMIC_RELAXED);
    if (control == NULL) {
        return -ENOMEM; /* the end of the description releases them */
    }
    control->lock.last = AIOD_LOCK_LAST;
    aiod_core_submit_control(core, control);
    return 0;
}

int aiod_core_set_locks(struct aiod_session *session, uint32_t number, bool held, bool lost,
                        struct aiod_file_lock *regained, size_t count)
{
    struct aiod_handle *handle = aiod_handle_find(session, number);

    if (handle == NULL) {
        free(regained);
        return -EBADF;
    }
    free(handle->regained);
    handle->regained = regained;
    handle->regained_count = count;
    __atomic_store_n(&handle->holds_locks, held, __ATOMIC_RELAXED);
    __atomic_store_n(&handle->lock_lost, lost, __ATOMIC_RELEASE);
    return 0;
}

bool aiod_core_lock_covers(const struct aiod_handle *handle, uint64_t offset, uint64_t length)
{
    for (size_t i = 0; handle != NULL && i < handle->regained_count; i++) {
        const struct aiod_file_lock *lock = &handle->regained[i];

        if (offset >= lock->first && offset <= lock->last && (length == 0 || length - 1 <= lock->last - offset)) {
            return true;
        }
    }
    return false;
}
