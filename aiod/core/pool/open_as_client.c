/* open_as_client.c - the thread that takes a client's identity, and its queue. */
#include "pool/open_as_client.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pool/pool.h"
#include "util/os.h"

/*
 * The waiting requests are linked by `next` until they are handed to the pool; `group` holds the identity meanwhile.
 * The main loop uses pool, own and started; `lock` protects the rest.
 */
struct aiod_open_as_client {
    struct aiod_pool *pool;
    char name[AIOD_OPEN_AS_CLIENT_NAME_BYTES];
    struct aiod_identity *own; /* the thread's own identity, the daemon's */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* signalled when a request is queued, when the thread is to stop, and when it has ended */
    struct aiod_request *first;
    struct aiod_request **tail;
    size_t waiting;
    struct aiod_request *running; /* NULL: none */
    pid_t tid;
    pthread_t thread;
    bool started; /* and not joined yet */
    bool stopping;
    bool ended; /* set last, before the thread returns */
};

/* ---- identities -------------------------------------------------------------------------------------------------- */

struct aiod_identity *aiod_identity_create(uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
    struct aiod_identity *identity = malloc(sizeof(*identity) + count * sizeof(gid_t));

    if (identity == NULL) {
        return NULL;
    }
    identity->uid = uid;
    identity->gid = gid;
    identity->group_count = count;
    if (count > 0) {
        memcpy(identity->groups, groups, count * sizeof(gid_t));
    }
    return identity;
}

static struct aiod_identity *own_identity(void)
{
    int count = getgroups(0, NULL);
    gid_t *groups = count > 0 ? calloc((size_t)count, sizeof(gid_t)) : NULL;
    struct aiod_identity *own = NULL;

    if (count >= 0 && (count == 0 || (groups != NULL && getgroups(count, groups) == count))) {
        own = aiod_identity_create(geteuid(), getegid(), groups, (size_t)count);
    }
    free(groups);
    return own;
}

/*
 * Applies to the calling thread only; glibc's setgroups() would change all threads. setfsuid() and setfsgid() report no
 * error but return the previous id, and an invalid id changes nothing: hence the second calls.
 */
static int set_identity(const struct aiod_identity *identity)
{
    if (syscall(SYS_setgroups, identity->group_count, identity->groups) < 0) {
        return -errno;
    }
    setfsgid(identity->gid);
    setfsuid(identity->uid);
    return (gid_t)setfsgid((gid_t)-1) == identity->gid && (uid_t)setfsuid((uid_t)-1) == identity->uid ? 0 : -EPERM;
}

/*
 * Drop the capabilities that override file permissions (capabilities(7)): they would become effective again with the
 * fsuid of root.
 */
static void drop_override_capabilities(void)
{
    static const unsigned overrides[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE,    CAP_DAC_READ_SEARCH, CAP_FOWNER,
                                         CAP_FSETID, CAP_LINUX_IMMUTABLE, CAP_MKNOD,           CAP_MAC_OVERRIDE};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

    if (syscall(SYS_capget, &header, data) < 0) {
        abort();
    }
    for (size_t i = 0; i < sizeof(overrides) / sizeof(overrides[0]); i++) {
        struct __user_cap_data_struct *half = &data[CAP_TO_INDEX(overrides[i])];

        half->effective &= ~CAP_TO_MASK(overrides[i]);
        half->permitted &= ~CAP_TO_MASK(overrides[i]);
        half->inheritable &= ~CAP_TO_MASK(overrides[i]);
    }
    if (syscall(SYS_capset, &header, data) < 0) {
        abort(); /* with these capabilities the thread would open files that the client may not open */
    }
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static int64_t run_as(struct aiod_open_as_client *thread, struct aiod_request *request,
                      const struct aiod_identity *identity)
{
    int error = set_identity(identity);
    int64_t result = error < 0 ? error : request->run(request);

    if (set_identity(thread->own) < 0) {
        fprintf(stderr, "aiod: a thread cannot change its uid from %u back to %u\n", (unsigned)identity->uid,
                (unsigned)thread->own->uid);
        abort();
    }
    return result;
}

/* `able`: the thread can change its identity. */
static void run(struct aiod_open_as_client *thread, struct aiod_request *request, bool able)
{
    if (aiod_pool_deadline_passed(request, request->started_ns)) {
        request->started_ns = 0;
        request->reason = AIOD_REASON_DEADLINE;
        request->result = -ETIMEDOUT;
    } else {
        request->result = able ? run_as(thread, request, request->group) : -EPERM;
    }
}

static void complete(struct aiod_open_as_client *thread, struct aiod_request *request)
{
    request->group = NULL;
    request->done_ns = aiod_now_ns();
    aiod_pool_notify(thread->pool, request);
}

static struct aiod_request *take(struct aiod_open_as_client *thread)
{
    struct aiod_request *request = thread->first;

    if (request != NULL) {
        thread->first = request->next;
        if (thread->first == NULL) {
            thread->tail = &thread->first;
        }
        request->next = NULL;
        thread->waiting--;
    }
    return request;
}

static void *thread_main(void *arg)
{
    struct aiod_open_as_client *thread = arg;
    struct aiod_request *request;
    bool able;

    prctl(PR_SET_NAME, thread->name);
    drop_override_capabilities();
    able = set_identity(thread->own) == 0; /* false without the capabilities, or behind a seccomp filter */
    pthread_mutex_lock(&thread->lock);
    thread->tid = gettid();
    while (!thread->stopping) {
        request = take(thread);
        if (request == NULL) {
            pthread_cond_wait(&thread->changed, &thread->lock);
            continue;
        }
        request->started_ns = request->begun_ns = aiod_now_ns();
        request->slow = false;
        thread->running = request;
        pthread_mutex_unlock(&thread->lock);
        run(thread, request, able);
        pthread_mutex_lock(&thread->lock);
        thread->running = NULL;
        pthread_mutex_unlock(&thread->lock);
        complete(thread, request);
        pthread_mutex_lock(&thread->lock);
    }
    thread->ended = true;
    pthread_cond_broadcast(&thread->changed);
    pthread_mutex_unlock(&thread->lock);
    return NULL;
}

/* ---- for the main loop ------------------------------------------------------------------------------------------- */

int aiod_open_as_client_create(struct aiod_open_as_client **result, struct aiod_pool *pool, const char *name)
{
    struct aiod_open_as_client *thread = calloc(1, sizeof(*thread));
    pthread_condattr_t monotonic;

    if (thread == NULL) {
        return -ENOMEM;
    }
    thread->own = own_identity();
    if (thread->own == NULL) {
        free(thread);
        return -ENOMEM;
    }
    thread->pool = pool;
    thread->tail = &thread->first;
    snprintf(thread->name, sizeof(thread->name), "aiod-o/%s", name);
    pthread_mutex_init(&thread->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&thread->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *result = thread;
    return 0;
}

static int start(struct aiod_open_as_client *thread)
{
    int error = aiod_thread_create(&thread->thread, NULL, thread_main, thread);

    thread->started = error == 0;
    return -error;
}

int aiod_open_as_client_submit(struct aiod_open_as_client *thread, struct aiod_request *request,
                               const struct aiod_identity *identity)
{
    int error = thread->started ? 0 : start(thread);

    if (error < 0) {
        return error;
    }
    request->state = AIOD_ACTIVE; /* so that aiod_pool_cancel() leaves it alone */
    request->group = identity;
    request->next = NULL;
    pthread_mutex_lock(&thread->lock);
    *thread->tail = request;
    thread->tail = &request->next;
    thread->waiting++;
    pthread_cond_broadcast(&thread->changed);
    pthread_mutex_unlock(&thread->lock);
    return 0;
}

bool aiod_open_as_client_visit(struct aiod_open_as_client *thread, uint64_t slow_ns,
                               bool (*visit)(const struct aiod_active_request *active, void *argument), void *argument)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *request;
    bool more = true;

    pthread_mutex_lock(&thread->lock);
    request = thread->running;
    if (request != NULL && (slow_ns == 0 || (!request->slow && request->begun_ns + slow_ns <= now_ns))) {
        struct aiod_active_request active = {
            .request = request, .age_ns = now_ns - request->begun_ns, .tid = thread->tid};

        more = visit(&active, argument);
        request->slow = request->slow || (more && slow_ns != 0);
    }
    pthread_mutex_unlock(&thread->lock);
    return more;
}

void aiod_open_as_client_expire(struct aiod_open_as_client *thread)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *late = NULL;

    pthread_mutex_lock(&thread->lock);
    thread->tail = &thread->first;
    while (*thread->tail != NULL) {
        struct aiod_request *request = *thread->tail;

        if (!aiod_pool_deadline_passed(request, now_ns)) {
            thread->tail = &request->next;
            continue;
        }
        *thread->tail = request->next;
        thread->waiting--;
        request->next = late;
        late = request;
    }
    pthread_mutex_unlock(&thread->lock);
    while (late != NULL) {
        struct aiod_request *next = late->next;

        late->result = -ETIMEDOUT;
        late->reason = AIOD_REASON_DEADLINE;
        complete(thread, late);
        late = next;
    }
}

size_t aiod_open_as_client_waiting(struct aiod_open_as_client *thread)
{
    size_t waiting;

    pthread_mutex_lock(&thread->lock);
    waiting = thread->waiting;
    pthread_mutex_unlock(&thread->lock);
    return waiting;
}

static void cancel_all(struct aiod_open_as_client *thread)
{
    struct aiod_request *request;

    while ((request = take(thread)) != NULL) {
        request->result = -ECANCELED;
        request->reason = AIOD_REASON_CANCELLED;
        request->group = NULL;
        aiod_pool_notify(thread->pool, request);
    }
}

bool aiod_open_as_client_stop(struct aiod_open_as_client *thread, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};

    pthread_mutex_lock(&thread->lock);
    thread->stopping = true;
    cancel_all(thread);
    pthread_cond_broadcast(&thread->changed);
    while (thread->started && !thread->ended && pthread_cond_timedwait(&thread->changed, &thread->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&thread->lock);
    if (thread->ended && thread->started) {
        pthread_join(thread->thread, NULL);
        thread->started = false;
    }
    return !thread->started;
}

void aiod_open_as_client_destroy(struct aiod_open_as_client *thread)
{
    pthread_cond_destroy(&thread->changed);
    pthread_mutex_destroy(&thread->lock);
    free(thread->own);
    free(thread);
}
