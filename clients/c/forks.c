/*
 * forks.c - a forked child has its parent's clients, and must leave them alone: their locks may be held by threads that are not
 * there, and what it sent on the socket would be the parent's.
 *
 * The ring's memory is not there in a child (MADV_DONTFORK): it is shared, and a write would be one into the parent's
 * buffers, maybe while they are written to a file.
 */
#include <errno.h>

#include "client.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static unsigned forks; /* of this process and those that it was forked from; changed only where there is one thread */

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
    client->born = forks;
}

bool aiod_forked(const struct aiod_client *client)
{
    return client->born != forks;
}

int aiod_fail_forked(void)
{
    return aiod_fail(-EBADF, "this client was made before fork(): connect anew in the child process");
}
