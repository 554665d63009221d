/*
 * resume.c - going on with another engine (docs/ring.md, "When the engine goes").
 *
 * A session is away from the moment that its connection has ended. Whichever thread then waits, takes completions or calls
 * tries to attach again, every AIOD_RETRY_MS, under socket_lock and without lock; at last all that is the engine's is
 * exchanged under both:
 *
 * - the socket and the doorbell keep their numbers (dup3);
 * - the queues' memory keeps its address: the new one's is moved over it, so that who looks at an index without a lock needs
 *   no pointer that changes under him. He may see an index of either engine, and looks again under the lock in any case;
 * - the area's does not: the caller has pointers into it, and what they point to must stay. It is kept until the last of
 *   its buffers is given back. Since the new area is as large and has the same books, each of them has its place there as
 *   well, through which its bytes go: copied on submission, and on completion of a read.
 *
 * Rejected: copying the old area over the new one's. The caller may be writing there at this moment.
 */
#include "resume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define RETRY_NS (AIOD_RETRY_MS * UINT64_C(1000000))
#define BUSY_NS UINT64_C(5000000) /* before looking again whether another thread has gone on */
#define LOOK_NS UINT64_C(1000000)

/* ---- life ----------------------------------------------------------------------------------------------------------- */

int aiod_resume_init(struct aiod_client *client, const char *path, const char *directory,
                     const struct aiod_options *options)
{
    struct aiod_resume *resume = calloc(1, sizeof(*resume));

    if (resume == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    client->resume = resume;
    resume->timeout_ns = options->reconnect_timeout_ms * UINT64_C(1000000);
    resume->path = strdup(path);
    resume->directory = directory != NULL ? strdup(directory) : NULL;
    resume->software = strdup(options->software != NULL ? options->software : "libaiod");
    resume->options = (struct aiod_options){
        .entries = client->entries, .area_bytes = client->area_bytes, .software = resume->software};
    resume->covers = calloc(client->entries, sizeof(*resume->covers));
    resume->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (resume->path == NULL || (directory != NULL && resume->directory == NULL) || resume->software == NULL ||
        resume->covers == NULL) {
        return aiod_fail(-ENOMEM, "no memory");
    }
    if (resume->timer < 0) {
        return aiod_fail(-errno, "no timer: %s", strerror(errno));
    }
    return 0;
}

void aiod_resume_destroy(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;

    while (resume->old_areas != NULL) {
        struct aiod_old_area *next = resume->old_areas->next;

        if (!aiod_forked(client)) {
            munmap(resume->old_areas->base, client->area_bytes);
        }
        free(resume->old_areas);
        resume->old_areas = next;
    }
    aiod_files_destroy(resume);
    if (resume->timer >= 0) {
        close(resume->timer);
    }
    free(resume->path);
    free(resume->directory);
    free(resume->software);
    free(resume->covers);
    free(resume);
}

const char *aiod_why(const struct aiod_client *client)
{
    return client->resume != NULL && client->resume->said[0] != '\0' ? client->resume->said
                                                                     : "the engine has closed it, or is gone";
}

/* ---- event loops ---------------------------------------------------------------------------------------------------- */

/* Have aiod_fd() readable as often; 0: no more. */
static void wake_every(const struct aiod_resume *resume, uint64_t period_ns)
{
    struct itimerspec spec = {.it_value.tv_nsec = (long)period_ns, .it_interval.tv_nsec = (long)period_ns};

    timerfd_settime(resume->timer, 0, &spec, NULL);
}

int aiod_resume_timer(const struct aiod_client *client)
{
    return client->resume->timer;
}

void aiod_resume_disarm(struct aiod_client *client)
{
    uint64_t times;

    (void)!read(client->resume->timer, &times, sizeof(times));
}

/* ---- areas ---------------------------------------------------------------------------------------------------------- */

const struct aiod_old_area *aiod_old_area_of(const struct aiod_resume *resume, uint64_t bytes, const char *data)
{
    const struct aiod_old_area *old = resume->old_areas;

    while (old != NULL && (data < old->base || data >= old->base + bytes)) {
        old = old->next;
    }
    return old;
}

void aiod_old_area_put(struct aiod_resume *resume, uint64_t bytes, const char *buffer)
{
    struct aiod_old_area **link = &resume->old_areas;
    struct aiod_old_area *old;

    while (*link != NULL && (buffer < (*link)->base || buffer >= (*link)->base + bytes)) {
        link = &(*link)->next;
    }
    old = *link;
    if (old == NULL) {
        resume->taken--;
    } else if (--old->taken == 0) {
        *link = old->next;
        munmap(old->base, bytes);
        free(old);
    }
}

/* The area is at `base` from now on. `old` is for what the caller has of the one before; NULL: it has nothing. */
static void move_area(struct aiod_client *client, char *base, struct aiod_old_area *old)
{
    struct aiod_resume *resume = client->resume;

    if (old == NULL) {
        munmap(client->area_base, client->area_bytes);
    } else {
        *old = (struct aiod_old_area){.base = client->area_base, .taken = resume->taken, .next = resume->old_areas};
        resume->old_areas = old;
    }
    resume->taken = 0;
    client->area_base = base;
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static bool changes(const struct aiod_op *op)
{
    switch (op->op) {
    case AIOD_RING_READ:
    case AIOD_RING_FLUSH:
    case AIOD_RING_SIZE:
    case AIOD_RING_PREFETCH:
    case AIOD_RING_CANCEL:
        return false;
    default:
        return true;
    }
}

void aiod_resume_put(struct aiod_client *client, struct aiod_op *op, struct aiod_ring_sqe *sqe)
{
    struct aiod_resume *resume = client->resume;
    const struct aiod_open_file *file = aiod_files_find(resume, op->handle);
    const struct aiod_open_file *source = aiod_files_find(resume, op->source);

    sqe->handle = file != NULL ? file->engine_handle : 0;
    sqe->source = source != NULL ? source->engine_handle : op->source & 0xffff0000; /* of no file, unless it is 0 */
    resume->covers[(uint32_t)op->cookie] = file != NULL ? file->changes : 0;
    if ((op->op == AIOD_RING_WRITE || op->op == AIOD_RING_APPEND) && op->buffer != NULL &&
        aiod_old_area_of(resume, client->area_bytes, op->buffer) != NULL) {
        memcpy(client->area_base + sqe->buffer, op->buffer, op->length);
    }
}

/* Its completion says that there is no such handle: because it could not be opened again? */
static void tell_lost(const struct aiod_resume *resume, struct aiod_op *op)
{
    const struct aiod_open_file *file = aiod_files_find(resume, op->handle);
    const struct aiod_open_file *source = aiod_files_find(resume, op->source);
    int lost = file != NULL && file->lost != 0 ? file->lost : source != NULL ? source->lost : 0;

    if (lost != 0) {
        op->result = lost;
        op->reason = AIOD_RING_NOT_REOPENED;
    }
}

/* A flush has covered what was acknowledged before it; but with the engine before, nobody knows. */
static void flushed(struct aiod_resume *resume, struct aiod_open_file *file, struct aiod_op *op)
{
    uint64_t covered = resume->covers[(uint32_t)op->cookie];

    if (file->doubt) {
        file->doubt = false;
        op->result = -EIO;
        op->reason = AIOD_RING_RESTARTED;
    } else if (covered > file->flushed) {
        file->flushed = covered;
    }
}

bool aiod_resume_completed(struct aiod_client *client, struct aiod_op *op)
{
    struct aiod_resume *resume = client->resume;
    struct aiod_open_file *file = aiod_files_find(resume, op->handle);

    if (op->result == -ESHUTDOWN && op->reason == AIOD_RING_STOPPING) {
        op->sent = false; /* not executed: it keeps its place */
        return false;
    }
    if (op->result == -EBADF && op->reason == AIOD_RING_NO_HANDLE) {
        tell_lost(resume, op);
    }
    if (op->op == AIOD_RING_READ && op->result > 0 && op->buffer != NULL) {
        const struct aiod_old_area *old = aiod_old_area_of(resume, client->area_bytes, op->buffer);

        if (old != NULL) {
            memcpy(op->buffer, client->area_base + ((char *)op->buffer - old->base), (size_t)op->result);
        }
    }
    if (file != NULL && op->op == AIOD_RING_FLUSH && op->result >= 0) {
        flushed(resume, file, op);
    } else if (file != NULL && changes(op) && (op->result >= 0 || op->reason == AIOD_RING_BY_KERNEL) &&
               (op->result < 0 || (op->flags & AIOD_RING_FUA) == 0)) {
        file->changes++;
    }
    return true;
}

/* What was in flight when the engine went: is it to be done by the next one? If not, it has ended. */
static void sort_out(struct aiod_client *client, struct aiod_op *op, bool drained)
{
    if (!op->sent || drained || !changes(op)) {
        op->sent = false;
        return;
    }
    op->result = -EIO;
    op->written = 0;
    op->reason = AIOD_RING_UNKNOWN;
    aiod_settle(client, op);
}

void aiod_resume_lost(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;
    unsigned last_word = aiod_last_word(client); /* before the completions: it says something about those not there */

    aiod_drain(client);
    client->away = true;
    resume->next_ns = aiod_clock_ns();
    resume->until_ns = resume->next_ns + resume->timeout_ns;
    aiod_files_left(resume, last_word);
    for (uint32_t place = 0; place < client->entries; place++) {
        if (client->places[place] != NULL) {
            sort_out(client, client->places[place], (last_word & AIOD_RING_DRAINED) != 0);
        }
    }
    aiod_loop_leave_socket(client); /* it would be readable all the time */
    wake_every(resume, RETRY_NS);
    aiod_lose_calls(client);
    aiod_loop_ring(client);
    aiod_wake_all(client);
}

/* ---- attaching again ------------------------------------------------------------------------------------------------ */

/* Exchange what is the engine's. Both locks held. */
static int exchange(struct aiod_client *client, struct aiod_attachment *new)
{
    struct aiod_old_area *old = client->resume->taken > 0 ? malloc(sizeof(*old)) : NULL;

    if (client->ended != 0 || (old == NULL && client->resume->taken > 0)) {
        free(old);
        return client->ended != 0 ? -client->ended : aiod_fail(-ENOMEM, "no memory");
    }
    aiod_wake_all(client); /* they sleep on memory that will be nobody's */
    if (mremap(new->base, client->queue_bytes, client->queue_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, client->base) ==
        MAP_FAILED) {
        free(old);
        return aiod_fail(-errno, "the ring's memory cannot be moved: %s", strerror(errno));
    }
    move_area(client, new->base + client->queue_bytes, old);
    new->base = MAP_FAILED; /* ours */
    dup3(new->socket, client->socket, O_CLOEXEC);
    dup3(new->doorbell, client->doorbell, O_CLOEXEC);
    aiod_loop_watch_socket(client);
    client->sq_tail = 0;
    __atomic_store_n(&client->cq_head, 0, __ATOMIC_RELAXED);
    return 0;
}

/* Go on with it. socket_lock held. */
static int go_on(struct aiod_client *client, struct aiod_attachment *new)
{
    int error;

    pthread_mutex_lock(&client->lock);
    error = exchange(client, new);
    if (error == 0) {
        client->engine_pid = aiod_peer(client->socket);
        aiod_files_commit(client->resume);
        client->away = false;
        aiod_submit_again(client);
        wake_every(client->resume, 0);
        aiod_loop_ring(client); /* an event loop may sleep that has told the engine before to wake it */
    }
    pthread_mutex_unlock(&client->lock);
    return error;
}

/* Can this memory take the place of what there was? */
static int check_layout(const struct aiod_client *client, const struct aiod_attachment *new)
{
    const struct aiod_ring_header *header = (const struct aiod_ring_header *)(const void *)new->base;

    if (header->entries != client->entries || header->area_offset != client->queue_bytes ||
        header->area_bytes != client->area_bytes || header->sq_offset != client->header->sq_offset ||
        header->cq_offset != client->header->cq_offset) {
        return aiod_fail(-EPROTO, "the new engine's ring is of another size: has its depth_max been changed?");
    }
    return 0;
}

/* One attempt. socket_lock held. 0; -errno; *final: there is no use in another one. */
static int attempt(struct aiod_client *client, uint64_t deadline_ns, bool *final)
{
    struct aiod_attachment new;
    pid_t engine;
    int error =
        aiod_get_attached(&new, client->resume->path, client->resume->directory, &client->resume->options, deadline_ns);

    if (error < 0) {
        return error;
    }
    engine = aiod_peer(new.socket);
    if (engine != 0 && engine == client->engine_pid) {
        *final = true; /* its requests may be at work there still; and it had a reason */
        error = aiod_fail(-ECONNRESET, "the engine has not gone, it has ended the session: its log says why");
    }
    if (error == 0) {
        error = check_layout(client, &new);
    }
    if (error == 0) {
        error = aiod_files_reopen(client, new.socket, deadline_ns);
    }
    if (error == 0) {
        error = go_on(client, &new);
    }
    aiod_give_back(&new);
    return error;
}

/* Both locks held; lock not meanwhile. */
static void try_now(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;
    uint64_t now = aiod_clock_ns();
    uint64_t deadline_ns = resume->until_ns > now + RETRY_NS ? resume->until_ns : now + RETRY_NS;
    bool final = false;
    int error;

    if (!client->away || client->ended != 0) {
        return;
    }
    pthread_mutex_unlock(&client->lock);
    error = attempt(client, deadline_ns, &final);
    pthread_mutex_lock(&client->lock);
    if (error == 0) {
        return;
    }
    snprintf(resume->said, sizeof(resume->said), "%s", aiod_error());
    now = aiod_clock_ns();
    resume->next_ns = now + RETRY_NS;
    if (final || now >= resume->until_ns) {
        aiod_end_session(client, ECONNRESET);
    }
}

static void sleep_ns(uint64_t ns)
{
    struct timespec time = {.tv_nsec = (long)ns};

    nanosleep(&time, NULL);
}

void aiod_resume_step(struct aiod_client *client, uint64_t deadline_ns)
{
    uint64_t now = aiod_clock_ns();
    uint64_t due_ns = client->resume->next_ns;
    uint64_t until_ns = due_ns < deadline_ns ? due_ns : deadline_ns;

    aiod_begin_leading(client);
    pthread_mutex_unlock(&client->lock);
    if (until_ns > now) {
        sleep_ns(until_ns - now < RETRY_NS ? until_ns - now : RETRY_NS);
    } else if (due_ns <= now && pthread_mutex_trylock(&client->socket_lock) == 0) {
        pthread_mutex_lock(&client->lock);
        try_now(client);
        pthread_mutex_unlock(&client->lock);
        pthread_mutex_unlock(&client->socket_lock);
    } else {
        sleep_ns(BUSY_NS); /* a thread that calls is at it */
    }
    pthread_mutex_lock(&client->lock);
    aiod_end_leading(client);
}

void aiod_resume_look(struct aiod_client *client)
{
    uint64_t now = aiod_clock_ns();

    if (!client->away && client->ended == 0 && now - client->resume->looked_ns > LOOK_NS) {
        client->resume->looked_ns = now;
        aiod_receive(client);
    }
}

void aiod_resume_tick(struct aiod_client *client)
{
    aiod_resume_look(client);
    if (client->away && client->ended == 0 && !client->leading && aiod_clock_ns() >= client->resume->next_ns) {
        aiod_resume_step(client, UINT64_MAX);
        aiod_drain(client);
        aiod_let_lead(client);
    }
}

int aiod_resume_await(struct aiod_client *client)
{
    int ended;

    pthread_mutex_lock(&client->lock);
    while (client->away && client->ended == 0) {
        uint64_t now = aiod_clock_ns();
        uint64_t due_ns = client->resume->next_ns;

        if (due_ns > now) {
            pthread_mutex_unlock(&client->lock);
            sleep_ns(due_ns - now);
            pthread_mutex_lock(&client->lock);
        }
        try_now(client);
    }
    ended = client->ended;
    pthread_mutex_unlock(&client->lock);
    return ended == 0 ? 0 : aiod_fail(-ended, "the session has ended: %s", aiod_why(client));
}
