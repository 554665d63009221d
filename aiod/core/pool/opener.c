#include "pool/opener.h"

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

#include "util/os.h"
#include "pool/pool.h"

/* What waits, in its own order; a request's `next` and `group` are free for it until it is handed to the pool. */
struct aiod_opener {
    struct aiod_pool *pool;
    char name[AIOD_OPENER_NAME_BYTES];
    struct aiod_identity *own; /* whose the thread is */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* something waits, it is to stop, or it has ended */
    struct aiod_request *first;
    struct aiod_request **tail;
    size_t waiting;
    struct aiod_request *running; /* NULL: none */
    pid_t tid;
    pthread_t thread;
    bool started; /* and not joined yet */
    bool stopping;
    bool ended; /* its last word */
};

/* ---- who somebody is ------------------------------------------------------------------------------------------------ */

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
 * Of this thread alone: glibc's setgroups() would change every thread's. setfsuid() and setfsgid() report no error, only
 * what was; asked for an invalid id they change nothing.
 */
static int become(const struct aiod_identity *identity)
{
    if (syscall(SYS_setgroups, identity->group_count, identity->groups) < 0) {
        return -errno;
    }
    setfsgid(identity->gid);
    setfsuid(identity->uid);
    return (gid_t)setfsgid((gid_t)-1) == identity->gid && (uid_t)setfsuid((uid_t)-1) == identity->uid ? 0 : -EPERM;
}

/* What overrides permission (capabilities(7)), and would come back with the fsuid of root. */
static void give_up_overrides(void)
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
        abort(); /* with them it would open what the client may not */
    }
}

/* ---- the thread ----------------------------------------------------------------------------------------------------- */

static int64_t run_as(struct aiod_opener *opener, struct aiod_request *request, const struct aiod_identity *identity)
{
    int error = become(identity);
    int64_t result = error < 0 ? error : request->run(request);

    if (become(opener->own) < 0) {
        fprintf(stderr, "aiod: a thread is still uid %u and cannot be uid %u again\n", (unsigned)identity->uid,
                (unsigned)opener->own->uid);
        abort();
    }
    return result;
}

/* `able`: it can become anybody at all. */
static void run(struct aiod_opener *opener, struct aiod_request *request, bool able)
{
    if (aiod_pool_deadline_passed(request, request->started_ns)) {
        request->started_ns = 0;
        request->reason = AIOD_REASON_DEADLINE;
        request->result = -ETIMEDOUT;
    } else {
        request->result = able ? run_as(opener, request, request->group) : -EPERM;
    }
}

static void tell(struct aiod_opener *opener, struct aiod_request *request)
{
    request->group = NULL;
    request->done_ns = aiod_now_ns();
    aiod_pool_notify(opener->pool, request);
}

static struct aiod_request *take(struct aiod_opener *opener)
{
    struct aiod_request *request = opener->first;

    if (request != NULL) {
        opener->first = request->next;
        if (opener->first == NULL) {
            opener->tail = &opener->first;
        }
        request->next = NULL;
        opener->waiting--;
    }
    return request;
}

static void *opener_main(void *arg)
{
    struct aiod_opener *opener = arg;
    struct aiod_request *request;
    bool able;

    prctl(PR_SET_NAME, opener->name);
    give_up_overrides();
    able = become(opener->own) == 0; /* without the capability, or behind a filter of system calls, it is not */
    pthread_mutex_lock(&opener->lock);
    opener->tid = gettid();
    while (!opener->stopping) {
        request = take(opener);
        if (request == NULL) {
            pthread_cond_wait(&opener->changed, &opener->lock);
            continue;
        }
        request->started_ns = request->begun_ns = aiod_now_ns();
        request->slow = false;
        opener->running = request;
        pthread_mutex_unlock(&opener->lock);
        run(opener, request, able);
        pthread_mutex_lock(&opener->lock);
        opener->running = NULL;
        pthread_mutex_unlock(&opener->lock);
        tell(opener, request);
        pthread_mutex_lock(&opener->lock);
    }
    opener->ended = true;
    pthread_cond_broadcast(&opener->changed);
    pthread_mutex_unlock(&opener->lock);
    return NULL;
}

/* ---- the main loop's end -------------------------------------------------------------------------------------------- */

int aiod_opener_create(struct aiod_opener **result, struct aiod_pool *pool, const char *name)
{
    struct aiod_opener *opener = calloc(1, sizeof(*opener));
    pthread_condattr_t monotonic;

    if (opener == NULL) {
        return -ENOMEM;
    }
    opener->own = own_identity();
    if (opener->own == NULL) {
        free(opener);
        return -ENOMEM;
    }
    opener->pool = pool;
    opener->tail = &opener->first;
    snprintf(opener->name, sizeof(opener->name), "aiod-o/%s", name);
    pthread_mutex_init(&opener->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&opener->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *result = opener;
    return 0;
}

static int start(struct aiod_opener *opener)
{
    int error = aiod_thread_create(&opener->thread, NULL, opener_main, opener);

    opener->started = error == 0;
    return -error;
}

int aiod_opener_submit(struct aiod_opener *opener, struct aiod_request *request, const struct aiod_identity *identity)
{
    int error = opener->started ? 0 : start(opener);

    if (error < 0) {
        return error;
    }
    request->state = AIOD_ACTIVE; /* nobody can cancel it */
    request->group = identity;
    request->next = NULL;
    pthread_mutex_lock(&opener->lock);
    *opener->tail = request;
    opener->tail = &request->next;
    opener->waiting++;
    pthread_cond_broadcast(&opener->changed);
    pthread_mutex_unlock(&opener->lock);
    return 0;
}

bool aiod_opener_visit(struct aiod_opener *opener, uint64_t slow_ns,
                       bool (*visit)(const struct aiod_sight *sight, void *argument), void *argument)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *request;
    bool more = true;

    pthread_mutex_lock(&opener->lock);
    request = opener->running;
    if (request != NULL && (slow_ns == 0 || (!request->slow && request->begun_ns + slow_ns <= now_ns))) {
        struct aiod_sight sight = {.request = request, .age_ns = now_ns - request->begun_ns, .tid = opener->tid};

        more = visit(&sight, argument);
        request->slow = request->slow || (more && slow_ns != 0);
    }
    pthread_mutex_unlock(&opener->lock);
    return more;
}

void aiod_opener_expire(struct aiod_opener *opener)
{
    uint64_t now_ns = aiod_now_ns();
    struct aiod_request *late = NULL;

    pthread_mutex_lock(&opener->lock);
    opener->tail = &opener->first;
    while (*opener->tail != NULL) {
        struct aiod_request *request = *opener->tail;

        if (!aiod_pool_deadline_passed(request, now_ns)) {
            opener->tail = &request->next;
            continue;
        }
        *opener->tail = request->next;
        opener->waiting--;
        request->next = late;
        late = request;
    }
    pthread_mutex_unlock(&opener->lock);
    while (late != NULL) {
        struct aiod_request *next = late->next;

        late->result = -ETIMEDOUT;
        late->reason = AIOD_REASON_DEADLINE;
        tell(opener, late);
        late = next;
    }
}

size_t aiod_opener_waiting(struct aiod_opener *opener)
{
    size_t waiting;

    pthread_mutex_lock(&opener->lock);
    waiting = opener->waiting;
    pthread_mutex_unlock(&opener->lock);
    return waiting;
}

static void cancel_all(struct aiod_opener *opener)
{
    struct aiod_request *request;

    while ((request = take(opener)) != NULL) {
        request->result = -ECANCELED;
        request->reason = AIOD_REASON_CANCELLED;
        request->group = NULL;
        aiod_pool_notify(opener->pool, request);
    }
}

bool aiod_opener_stop(struct aiod_opener *opener, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};

    pthread_mutex_lock(&opener->lock);
    opener->stopping = true;
    cancel_all(opener);
    pthread_cond_broadcast(&opener->changed);
    while (opener->started && !opener->ended && pthread_cond_timedwait(&opener->changed, &opener->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&opener->lock);
    if (opener->ended && opener->started) {
        pthread_join(opener->thread, NULL);
        opener->started = false;
    }
    return !opener->started;
}

void aiod_opener_destroy(struct aiod_opener *opener)
{
    pthread_cond_destroy(&opener->changed);
    pthread_mutex_destroy(&opener->lock);
    free(opener->own);
    free(opener);
}
