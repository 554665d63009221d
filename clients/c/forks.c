/*
 * forks.c - a forked child inherits its parent's clients and must leave them alone: their locks may be held by
 * threads that do not exist in the child, and messages that the child sent would be the parent's.
 *
 * The ring's memory is not mapped in a child (MADV_DONTFORK). It is shared memory: a write by the child would
 * change the parent's buffers, possibly while the engine writes them to a file.
 */
#include "forks.h"

#include <errno.h>
#include <pthread.h>

#include "client.h"
#include "error.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned forks; /* of this process and its ancestors; changed only in a new child, which has one thread */

static void count_fork(void)
{
    forks++;
}

static void begin_counting(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

void aiod_remember_process(struct aiod_client *client)
{
    pthread_once(&once, begin_counting);
    client->forks = forks;
}

bool aiod_forked(const struct aiod_client *client)
{
    return client->forks != forks;
}

int aiod_fail_forked(void)
{
    return aiod_fail(-EBADF, "this client was made before fork(): connect anew in the child process");
}
