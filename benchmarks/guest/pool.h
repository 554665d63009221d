/*
 * A model of the thread pool that QEMU had in 2011, before its main loop created the threads: the thread that submits a
 * request creates a worker if none is idle, with the lock held, and the worker inherits that thread's affinity.
 */
#ifndef GUEST_POOL_H
#define GUEST_POOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pool_read {
    int fd;
    void *buffer;
    size_t bytes;
    off_t offset;
    ssize_t result; /* set before pool_done() counts the request */
    struct pool_read *next;
};

/* `read` belongs to the pool until it is done. */
void pool_submit(struct pool_read *read);

/* How many requests are done. */
unsigned pool_done(void);

#endif
