/*
 * forks.h - clients in forked children (forks.c).
 */
#ifndef LIBAIOD_FORKS_H
#define LIBAIOD_FORKS_H

struct aiod_client;

/* Remember that the client belongs to this process, for aiod_forked(). */
void aiod_remember_process(struct aiod_client *client);

/* -EBADF with its message, for a function that is called in a forked child. */
int aiod_fail_forked(void);

#endif
