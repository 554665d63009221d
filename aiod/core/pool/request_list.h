/*
 * request_list.h - requests collected in order, to be given to the pool in one call.
 *
 * The list belongs to one thread. The requests are linked by `next`, as aiod_pool_submit() takes them.
 */
#ifndef AIOD_REQUEST_LIST_H
#define AIOD_REQUEST_LIST_H

#include <stddef.h>

#include "pool/pool.h"
#include "pool/request.h"

/* All zero: empty. */
struct aiod_request_list {
    struct aiod_request *first;
    struct aiod_request *last;
    size_t count;
};

static inline void aiod_request_list_append(struct aiod_request_list *list, struct aiod_request *request)
{
    request->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = request;
    list->last = request;
    list->count++;
}

/* Submit the requests, if there are any, by aiod_pool_submit() or its like, and empty the list. */
static inline void aiod_request_list_submit(struct aiod_request_list *list, struct aiod_pool *pool,
                                            void (*submit)(struct aiod_pool *pool, struct aiod_request *first,
                                                           size_t count))
{
    struct aiod_request_list full = *list;

    *list = (struct aiod_request_list){0};
    if (full.count > 0) {
        submit(pool, full.first, full.count);
    }
}

#endif
