/* open_as_client_threads.c - the list of open_as_client threads, searched by rate. */
#include "pool/open_as_client_threads.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "pool/rate.h"
#include "util/os.h"

struct aiod_export_thread {
    struct aiod_open_as_client *thread;
    struct aiod_rate *rate; /* a reference; NULL: none */
    struct aiod_export_thread *next;
};

void aiod_open_as_client_threads_init(struct aiod_open_as_client_threads *threads, struct aiod_pool *pool,
                                      const char *name)
{
    *threads = (struct aiod_open_as_client_threads){.pool = pool};
    snprintf(threads->name, sizeof(threads->name), "%s", name);
}

static struct aiod_export_thread *find(const struct aiod_open_as_client_threads *threads, const struct aiod_rate *rate)
{
    struct aiod_export_thread *found = threads->first;

    while (found != NULL && found->rate != rate) {
        found = found->next;
    }
    return found;
}

/* 0, or -errno. */
static int add(struct aiod_open_as_client_threads *threads, struct aiod_rate *rate, struct aiod_export_thread **result)
{
    struct aiod_export_thread *added = calloc(1, sizeof(*added));
    int error;

    if (added == NULL) {
        return -ENOMEM;
    }
    error = aiod_open_as_client_create(&added->thread, threads->pool, threads->name);
    if (error < 0) {
        free(added);
        return error;
    }
    if (rate != NULL) {
        aiod_rate_ref(rate);
    }
    added->rate = rate;
    added->next = threads->first;
    threads->first = added;
    *result = added;
    return 0;
}

int aiod_open_as_client_threads_submit(struct aiod_open_as_client_threads *threads, struct aiod_rate *rate,
                                       struct aiod_request *request, const struct aiod_identity *identity)
{
    struct aiod_export_thread *of = find(threads, rate);
    int error = of != NULL ? 0 : add(threads, rate, &of);

    return error < 0 ? error : aiod_open_as_client_submit(of->thread, request, identity);
}

void aiod_open_as_client_threads_visit(struct aiod_open_as_client_threads *threads, uint64_t slow_ns,
                                       bool (*visit)(const struct aiod_active_request *active, void *argument),
                                       void *argument)
{
    struct aiod_export_thread *of = threads->first;

    while (of != NULL && aiod_open_as_client_visit(of->thread, slow_ns, visit, argument)) {
        of = of->next;
    }
}

void aiod_open_as_client_threads_expire(struct aiod_open_as_client_threads *threads)
{
    for (struct aiod_export_thread *of = threads->first; of != NULL; of = of->next) {
        aiod_open_as_client_expire(of->thread);
    }
}

size_t aiod_open_as_client_threads_waiting(const struct aiod_open_as_client_threads *threads)
{
    size_t waiting = 0;

    for (const struct aiod_export_thread *of = threads->first; of != NULL; of = of->next) {
        waiting += aiod_open_as_client_waiting(of->thread);
    }
    return waiting;
}

bool aiod_open_as_client_threads_stop(struct aiod_open_as_client_threads *threads, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    bool stopped = true;

    for (struct aiod_export_thread *of = threads->first; of != NULL; of = of->next) {
        uint64_t now_ns = aiod_now_ns();

        stopped = aiod_open_as_client_stop(of->thread, until_ns > now_ns ? until_ns - now_ns : 0) && stopped;
    }
    return stopped;
}

void aiod_open_as_client_threads_destroy(struct aiod_open_as_client_threads *threads)
{
    while (threads->first != NULL) {
        struct aiod_export_thread *of = threads->first;

        threads->first = of->next;
        aiod_open_as_client_destroy(of->thread);
        aiod_rate_unref(of->rate);
        free(of);
    }
}
