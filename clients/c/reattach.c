/*
 * reattach.c - attach to another engine, and exchange everything that belongs to the engine.
 *
 * The attempt is made under socket_lock and without lock; the exchange at its end under both:
 *
 * - the socket and the doorbell keep their numbers (dup3);
 * - the queues keep their address: the new memory is moved over the old (mremap). So a thread that reads an index
 *   without the lock needs no pointer that changes under it. It may see an index of either engine, and reads again
 *   under the lock;
 * - the buffer area gets another address, and the old one stays mapped (buffer_areas.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "attach.h"
#include "client.h"
#include "clock.h"
#include "error.h"
#include "reopen.h"
#include "resume.h"
#include "wire.h"

#define GO_WAIT_NS UINT64_C(10000000) /* in an attempt: an event loop may make it */

/* Both locks are held. */
static int exchange(struct aiod_client *client, struct aiod_attachment *new)
{
    if (client->ended != 0) {
        return -client->ended;
    }
    if (!aiod_areas_prepare_move(&client->areas)) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    aiod_waiters_wake_all(client); /* the leader sleeps on memory that is about to be unmapped */
    if (mremap(new->base, client->queue_bytes, client->queue_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, client->base) ==
        MAP_FAILED) {
        return aiod_fail(-errno, "cannot move the ring's memory: %s", strerror(errno));
    }
    aiod_areas_move(&client->areas, new->base + client->queue_bytes);
    new->base = MAP_FAILED; /* the client's now */
    dup3(new->socket, client->socket, O_CLOEXEC);
    dup3(new->doorbell, client->doorbell, O_CLOEXEC);
    aiod_loop_watch_socket(client);
    client->queue.sq_tail = 0;
    __atomic_store_n(&client->queue.cq_head, 0, __ATOMIC_RELAXED);
    return 0;
}

/* socket_lock is held. */
static int take_over(struct aiod_client *client, struct aiod_attachment *new)
{
    int error;

    pthread_mutex_lock(&client->lock);
    error = exchange(client, new);
    if (error == 0) {
        __atomic_store_n(&client->engine_pid, aiod_socket_peer(client->socket), __ATOMIC_RELAXED);
        client->features = new->features;
        client->resume->token = new->token;
        aiod_open_files_commit(client->open_files, new->token.known);
        client->away = false;
        aiod_queue_submit_again(client);
        aiod_loop_set_timer(&client->loop, 0);
        aiod_loop_ring(&client->loop); /* an event loop may sleep that had asked the engine before to wake it */
    }
    pthread_mutex_unlock(&client->lock);
    return error;
}

/* Can the new memory take the place of the old? */
static int check_layout(const struct aiod_client *client, const struct aiod_attachment *new)
{
    const struct aiod_ring_header *header = (const struct aiod_ring_header *)(const void *)new->base;

    if (header->entries != client->entries || header->area_offset != client->queue_bytes ||
        header->area_bytes != client->areas.bytes || header->sq_offset != client->header->sq_offset ||
        header->cq_offset != client->header->cq_offset) {
        return aiod_fail(-EPROTO, "the new engine's ring has a different size: was depth_max changed?");
    }
    return 0;
}

/* The engine that ended the session had a reason, and may still execute its requests. */
static int check_engine(const struct aiod_client *client, const struct aiod_attachment *new)
{
    pid_t engine = aiod_socket_peer(new->socket);

    if (engine != 0 && engine == client->engine_pid) {
        return aiod_fail(-ECONNRESET, "the engine has ended the session: see the daemon's log");
    }
    return 0;
}

/* Attach, and open the files. The attachment is then pending until the grace period is over. */
static int begin(struct aiod_client *client, uint64_t deadline_ns, bool *final)
{
    struct aiod_resume *resume = client->resume;
    struct aiod_attachment *new = &resume->pending;
    int error =
        aiod_attachment_get(new, resume->path, resume->directory, &resume->options, &resume->token, deadline_ns);

    if (error == -EACCES) {
        resume->token = (struct aiod_token){0}; /* perhaps the engine is an older one, and takes it for a ticket */
    }
    if (error < 0) {
        return error;
    }
    error = check_engine(client, new);
    *final = error < 0;
    if (error == 0) {
        error = check_layout(client, new);
    }
    if (error == 0) {
        error = aiod_reopen_files(client, new, deadline_ns);
    }
    if (error == 0) {
        error = aiod_reopen_done(new, deadline_ns);
    }
    if (error < 0) {
        aiod_attachment_release(new);
    }
    resume->is_pending = error == 0;
    return error;
}

static int finish(struct aiod_client *client, uint64_t deadline_ns)
{
    struct aiod_attachment *new = &client->resume->pending;
    uint64_t go_deadline_ns = aiod_deadline(GO_WAIT_NS);
    int error = aiod_reopen_await_go(new, deadline_ns < go_deadline_ns ? deadline_ns : go_deadline_ns);

    if (error == -ETIMEDOUT) {
        return aiod_fail(-EAGAIN, "the engine was restarted, and resumes its earlier sessions first");
    }
    if (error == 0) {
        error = aiod_reopen_names(client, new, deadline_ns);
    }
    if (error == 0) {
        error = take_over(client, new);
    }
    aiod_reattach_never(client->resume);
    return error;
}

int aiod_reattach(struct aiod_client *client, uint64_t deadline_ns, bool *final)
{
    int error = client->resume->is_pending ? 0 : begin(client, deadline_ns, final);

    return error < 0 ? error : finish(client, deadline_ns);
}

void aiod_reattach_never(struct aiod_resume *resume)
{
    if (resume->is_pending) {
        aiod_attachment_release(&resume->pending);
        resume->is_pending = false;
    }
}
