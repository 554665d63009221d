/* flush.c - taking turns for fdatasync(), parked flushes, and the poisoning of files (flush.h). */
#include "ops/flush.h"

#include <errno.h>

#include "ops/notices.h"
#include "ops/worker_io.h"
#include "util/probes.h"

void aiod_flushes_init(struct aiod_flushes *flushes, struct aiod_pool *pool, int fd)
{
    *flushes = (struct aiod_flushes){.pool = pool, .fd = fd, .notice_fd = -1};
    pthread_mutex_init(&flushes->lock, NULL);
    aiod_flush_writers_init(&flushes->writers);
}

void aiod_flushes_destroy(struct aiod_flushes *flushes)
{
    aiod_flush_writers_destroy(&flushes->writers);
    pthread_mutex_destroy(&flushes->lock);
}

bool aiod_flushes_poisoned(const struct aiod_flushes *flushes)
{
    return __atomic_load_n(&flushes->poisoned, __ATOMIC_ACQUIRE);
}

void aiod_flushes_poison(struct aiod_flushes *flushes)
{
    if (__atomic_exchange_n(&flushes->poisoned, true, __ATOMIC_ACQ_REL)) {
        return;
    }
    AIOD_PROBE3(poison, flushes, flushes->dev, flushes->ino);
    if (flushes->notice_fd >= 0) {
        aiod_notice_poisoned(flushes->notice_fd, flushes->dev, flushes->ino);
    }
}

bool aiod_flushes_forget(struct aiod_flushes *flushes, struct aiod_flush_writer *writer)
{
    bool changed = aiod_flush_writer_forget(&flushes->writers, writer);

    __atomic_store_n(&flushes->mount_lost, false, __ATOMIC_RELAXED);
    return __atomic_exchange_n(&flushes->poisoned, false, __ATOMIC_ACQ_REL) || changed;
}

/*
 * Can a write be refused with this error before anything is synced? Disks fail with other errors than EIO as well:
 * ENODATA (medium), ENOLINK (path), EREMOTEIO (target), ETIMEDOUT, and others of their drivers.
 */
static bool may_be_refusal(int64_t error)
{
    switch (-error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EINVAL:
    case EPERM:
    case EACCES:
    case EROFS:
    case EBADF:
    case ETXTBSY:
    case ENOMEM:
    case EAGAIN:
    case EOPNOTSUPP:
        return true;
    default:
        return false;
    }
}

static int64_t sync_all(struct aiod_flushes *flushes)
{
    if (flushes->by_writers) {
        return aiod_flush_writers_sync(&flushes->writers, flushes->fd_is_read ? -1 : flushes->fd);
    }
    return aiod_io_flush(flushes->fd);
}

/*
 * Only the thread that has the turn calls this, so that no other thread consumes an error that this flush must report.
 */
static int64_t flush_once(struct aiod_flushes *flushes, enum aiod_reason *reason)
{
    int64_t result;

    if (aiod_flushes_poisoned(flushes)) {
        *reason = AIOD_REASON_POISONED;
        return -EIO;
    }
    result = sync_all(flushes);
    if (result < 0) {
        if (flushes->by_writers && (result == -ENOTCONN || result == -ECONNABORTED)) {
            __atomic_store_n(&flushes->mount_lost, true, __ATOMIC_RELAXED);
        }
        aiod_flushes_poison(flushes);
    }
    return result;
}

static unsigned length_of(const struct aiod_request *list)
{
    unsigned count = 0;

    for (; list != NULL; list = list->next) {
        count++;
    }
    return count;
}

/*
 * End the requests of `list`, but for `own`. The result of a parked request holds the value that it returns if the flush
 * succeeds.
 */
static void finish_all(struct aiod_pool *pool, struct aiod_request *list, const struct aiod_request *own,
                       int64_t result, enum aiod_reason reason)
{
    while (list != NULL) {
        struct aiod_request *next = list->next;

        list->reason = reason;
        if (list != own) {
            aiod_pool_finish(pool, list, result < 0 ? result : list->result);
        }
        list = next;
    }
}

/* Take the parked requests. If there are none, end the turn. */
static struct aiod_request *take_parked(struct aiod_flushes *flushes)
{
    struct aiod_request *list;

    pthread_mutex_lock(&flushes->lock);
    list = flushes->parked;
    flushes->parked = NULL;
    flushes->running = list != NULL;
    pthread_mutex_unlock(&flushes->lock);
    return list;
}

/* Add the queued flushes of the file to `list`: workers need not be woken for them. */
static struct aiod_request *add_queued(struct aiod_flushes *flushes, struct aiod_request *list)
{
    struct aiod_request *request = aiod_pool_take_group(flushes->pool, flushes, list);

    while (request != NULL) {
        struct aiod_request *next = request->next;

        request->result = 0;
        request->next = list;
        list = request;
        request = next;
    }
    return list;
}

static void count_group(struct aiod_flush_groups *groups, unsigned requests)
{
    unsigned size = requests > 1 ? 32 - (unsigned)__builtin_clz(requests - 1) : 0;

    if (groups != NULL) {
        size = size < AIOD_FLUSH_GROUP_SIZES ? size : AIOD_FLUSH_GROUP_SIZES - 1;
        __atomic_fetch_add(&groups->counts[size], 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&groups->requests, requests, __ATOMIC_RELAXED);
    }
}

/*
 * Carry out `list`, and the requests that are parked meanwhile, in batches. The next batch is taken before the last one
 * ends: its requests keep the file alive, which may otherwise be freed when the last batch has ended.
 *
 * If the first batch is the only one, the caller ends `own`, one of its requests: this is the result. Else AIOD_PARKED.
 */
static int64_t flush_batches(struct aiod_flushes *flushes, struct aiod_request *list, struct aiod_request *own)
{
    struct aiod_pool *pool = flushes->pool;
    struct aiod_flush_groups *groups = flushes->groups;
    uint64_t dev = flushes->dev; /* the last requests to end may free `flushes` */
    uint64_t ino = flushes->ino;

    while (list != NULL) {
        struct aiod_request *all = add_queued(flushes, list);
        enum aiod_reason reason = AIOD_REASON_BY_KERNEL;
        int64_t result = flush_once(flushes, &reason);
        unsigned count = length_of(all);

        list = take_parked(flushes);
        count_group(groups, count); /* before any client sees the end */
        own = list == NULL ? own : NULL;
        finish_all(pool, all, own, result, reason);
        AIOD_PROBE4(flush_group, dev, ino, count, result < 0 ? (int)-result : 0);
        if (own != NULL) {
            return result < 0 ? result : own->result;
        }
    }
    return AIOD_PARKED;
}

/* Take the turn. If another thread has it, park `request` (unless it is NULL), and return false. */
static bool take_turn(struct aiod_flushes *flushes, struct aiod_request *request)
{
    bool taken;

    pthread_mutex_lock(&flushes->lock);
    taken = !flushes->running;
    if (taken) {
        flushes->running = true;
    } else if (request != NULL) {
        request->next = flushes->parked;
        flushes->parked = request;
    }
    pthread_mutex_unlock(&flushes->lock);
    return taken;
}

int64_t aiod_flushes_flush(struct aiod_flushes *flushes, struct aiod_request *request, int64_t success)
{
    request->result = success;
    if (!take_turn(flushes, request)) {
        return AIOD_PARKED;
    }
    request->next = NULL;
    return flush_batches(flushes, request, request);
}

bool aiod_flushes_begin_durable_write(struct aiod_flushes *flushes)
{
    return !flushes->shares_description && !flushes->by_writers && take_turn(flushes, NULL);
}

/*
 * A durable write failed with `error`. ENOSPC may mean that there was no room for this write, or that the sync found
 * dirty pages of other writes without room (delayed allocation, a thin device). A flush by another open file
 * description finds out.
 */
static void check_failed_write(struct aiod_flushes *flushes, int64_t error)
{
    enum aiod_reason reason;

    if (may_be_refusal(error)) {
        flush_once(flushes, &reason);
    } else {
        aiod_flushes_poison(flushes);
    }
}

int64_t aiod_flushes_end_durable_write(struct aiod_flushes *flushes, struct aiod_request *request, int64_t result)
{
    struct aiod_request *parked;

    if (result < 0) {
        check_failed_write(flushes, result);
    }
    parked = take_parked(flushes);
    if (parked == NULL) {
        return result;
    }
    aiod_pool_finish(flushes->pool, request, result);
    return flush_batches(flushes, parked, NULL);
}
