#include "pool/openers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/os.h"
#include "pool/rate.h"

struct aiod_export_opener {
    struct aiod_opener *opener;
    struct aiod_rate *rate; /* a reference; NULL: none */
    struct aiod_export_opener *next;
};

void aiod_openers_init(struct aiod_openers *openers, struct aiod_pool *pool, const char *name)
{
    *openers = (struct aiod_openers){.pool = pool};
    snprintf(openers->name, sizeof(openers->name), "%s", name);
}

static struct aiod_export_opener *find(const struct aiod_openers *openers, const struct aiod_rate *rate)
{
    struct aiod_export_opener *found = openers->first;

    while (found != NULL && found->rate != rate) {
        found = found->next;
    }
    return found;
}

/* 0, or -errno. */
static int add(struct aiod_openers *openers, struct aiod_rate *rate, struct aiod_export_opener **result)
{
    struct aiod_export_opener *added = calloc(1, sizeof(*added));
    int error;

    if (added == NULL) {
        return -ENOMEM;
    }
    error = aiod_opener_create(&added->opener, openers->pool, openers->name);
    if (error < 0) {
        free(added);
        return error;
    }
    if (rate != NULL) {
        aiod_rate_ref(rate);
    }
    added->rate = rate;
    added->next = openers->first;
    openers->first = added;
    *result = added;
    return 0;
}

int aiod_openers_submit(struct aiod_openers *openers, struct aiod_rate *rate, struct aiod_request *request,
                        const struct aiod_identity *identity)
{
    struct aiod_export_opener *of = find(openers, rate);
    int error = of != NULL ? 0 : add(openers, rate, &of);

    return error < 0 ? error : aiod_opener_submit(of->opener, request, identity);
}

void aiod_openers_visit(struct aiod_openers *openers, uint64_t slow_ns,
                        bool (*visit)(const struct aiod_sight *sight, void *argument), void *argument)
{
    struct aiod_export_opener *of = openers->first;

    while (of != NULL && aiod_opener_visit(of->opener, slow_ns, visit, argument)) {
        of = of->next;
    }
}

void aiod_openers_expire(struct aiod_openers *openers)
{
    for (struct aiod_export_opener *of = openers->first; of != NULL; of = of->next) {
        aiod_opener_expire(of->opener);
    }
}

size_t aiod_openers_waiting(const struct aiod_openers *openers)
{
    size_t waiting = 0;

    for (const struct aiod_export_opener *of = openers->first; of != NULL; of = of->next) {
        waiting += aiod_opener_waiting(of->opener);
    }
    return waiting;
}

bool aiod_openers_stop(struct aiod_openers *openers, uint64_t timeout_ns)
{
    uint64_t until_ns = aiod_now_ns() + timeout_ns;
    bool stopped = true;

    for (struct aiod_export_opener *of = openers->first; of != NULL; of = of->next) {
        uint64_t now_ns = aiod_now_ns();

        stopped = aiod_opener_stop(of->opener, until_ns > now_ns ? until_ns - now_ns : 0) && stopped;
    }
    return stopped;
}

void aiod_openers_destroy(struct aiod_openers *openers)
{
    while (openers->first != NULL) {
        struct aiod_export_opener *of = openers->first;

        openers->first = of->next;
        aiod_opener_destroy(of->opener);
        aiod_rate_unref(of->rate);
        free(of);
    }
}
