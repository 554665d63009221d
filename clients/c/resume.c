/*
 * resume.c - when a client continues with another engine (docs/ring.md, "When the engine goes").
 *
 * The client is away from the moment that its connection has ended. Any thread that then waits, takes completions
 * or calls tries to attach again, every AIOD_RETRY_NS, until it succeeds or the session ends after timeout_ns.
 */
#include "resume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client.h"
#include "clock.h"
#include "error.h"
#include "session_end.h"

#define BUSY_NS UINT64_C(5000000) /* before checking again whether another thread has attached */
#define CHECK_NS UINT64_C(1000000)

/* The hook. */
static void connection_lost(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;
    unsigned notice = aiod_last_word(client); /* before the completions: it speaks of requests without one */

    aiod_queue_withdraw(client);
    aiod_queue_drain(client);
    client->away = true;
    resume->retry_ns = aiod_clock_ns();
    resume->give_up_ns = resume->retry_ns + resume->timeout_ns;
    if ((notice & AIOD_RING_FLUSHED) != 0) {
        aiod_open_files_flushed(&resume->files);
    }
    aiod_resume_sort_requests(client, (notice & AIOD_RING_DRAINED) != 0);
    aiod_loop_ignore_socket(client);
    aiod_loop_set_timer(&client->loop, AIOD_RETRY_NS);
    aiod_lose_calls(client);
    aiod_loop_ring(&client->loop);
    aiod_waiters_wake_all(client);
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static const struct aiod_queue_hooks hooks = {
    .prepare = aiod_resume_prepare, .completed = aiod_resume_completed, .connection_lost = connection_lost};

int aiod_resume_init(struct aiod_client *client, const char *path, const char *directory,
                     const struct aiod_options *options, const struct aiod_token *token)
{
    struct aiod_resume *resume = calloc(1, sizeof(*resume));

    if (resume == NULL) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    client->resume = resume;
    client->open_files = &resume->files;
    client->hooks = &hooks;
    resume->token = *token;
    resume->timeout_ns = options->reconnect_timeout_ms * AIOD_NS_PER_MS;
    resume->path = strdup(path);
    resume->directory = directory != NULL ? strdup(directory) : NULL;
    resume->software = strdup(options->software != NULL ? options->software : "libaiod");
    resume->options = (struct aiod_options){
        .entries = client->entries, .area_bytes = client->areas.bytes, .software = resume->software};
    resume->flush_covers = calloc(client->entries, sizeof(*resume->flush_covers));
    if (resume->path == NULL || (directory != NULL && resume->directory == NULL) || resume->software == NULL ||
        resume->flush_covers == NULL) {
        return aiod_fail(-ENOMEM, "out of memory");
    }
    return aiod_loop_create_timer(&client->loop);
}

void aiod_resume_destroy(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;

    aiod_reattach_never(resume);
    aiod_open_files_destroy(&resume->files);
    free(resume->path);
    free(resume->directory);
    free(resume->software);
    free(resume->flush_covers);
    free(resume);
}

/* ---- attempts ---------------------------------------------------------------------------------------------------- */

/* Both locks are held; lock is not held meanwhile. */
static void attempt(struct aiod_client *client)
{
    struct aiod_resume *resume = client->resume;
    uint64_t now = aiod_clock_ns();
    uint64_t deadline_ns = resume->give_up_ns > now + AIOD_RETRY_NS ? resume->give_up_ns : now + AIOD_RETRY_NS;
    bool final = false;
    int error;

    if (!client->away || client->ended != 0) {
        return;
    }
    pthread_mutex_unlock(&client->lock);
    error = aiod_reattach(client, deadline_ns, &final);
    pthread_mutex_lock(&client->lock);
    if (error == 0) {
        return;
    }
    snprintf(resume->last_error, sizeof(resume->last_error), "%s", aiod_error());
    client->end_reason = resume->last_error;
    now = aiod_clock_ns();
    resume->retry_ns = now + AIOD_RETRY_NS;
    if (final || now >= resume->give_up_ns) {
        aiod_reattach_never(resume);
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
    uint64_t due_ns = client->resume->retry_ns;
    uint64_t until_ns = due_ns < deadline_ns ? due_ns : deadline_ns;

    aiod_waiters_begin_leading(client);
    pthread_mutex_unlock(&client->lock);
    if (until_ns > now) {
        sleep_ns(until_ns - now < AIOD_RETRY_NS ? until_ns - now : AIOD_RETRY_NS);
    } else if (due_ns <= now && pthread_mutex_trylock(&client->socket_lock) == 0) {
        pthread_mutex_lock(&client->lock);
        attempt(client);
        pthread_mutex_unlock(&client->lock);
        pthread_mutex_unlock(&client->socket_lock);
    } else {
        sleep_ns(BUSY_NS); /* a thread that calls makes the attempt */
    }
    pthread_mutex_lock(&client->lock);
    aiod_waiters_end_leading(client);
}

void aiod_resume_check(struct aiod_client *client)
{
    uint64_t now = aiod_clock_ns();

    if (!client->away && client->ended == 0 && now - client->resume->checked_ns > CHECK_NS) {
        client->resume->checked_ns = now;
        aiod_receive(client);
    }
}

void aiod_resume_poll(struct aiod_client *client)
{
    aiod_resume_check(client);
    if (client->away && client->ended == 0 && !client->waiters.leading && aiod_clock_ns() >= client->resume->retry_ns) {
        aiod_resume_step(client, UINT64_MAX);
        aiod_queue_drain(client);
        aiod_waiters_choose_leader(client);
    }
}

int aiod_resume_await(struct aiod_client *client)
{
    int ended;

    pthread_mutex_lock(&client->lock);
    while (client->away && client->ended == 0) {
        uint64_t now = aiod_clock_ns();
        uint64_t due_ns = client->resume->retry_ns;

        if (due_ns > now) {
            pthread_mutex_unlock(&client->lock);
            sleep_ns(due_ns - now);
            pthread_mutex_lock(&client->lock);
        }
        attempt(client);
    }
    ended = client->ended;
    pthread_mutex_unlock(&client->lock);
    return ended == 0 ? 0 : aiod_fail(-ended, "the session has ended: %s", aiod_end_reason(client));
}
