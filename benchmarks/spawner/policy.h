/*
 * policy.h - what a policy under test brings beside its version of a core file.
 */
#ifndef POLICY_H
#define POLICY_H

struct aiod_pool;

/* On the main thread, once, before the burst. */
void policy_prepare(struct aiod_pool *pool);

/* The descriptor that the main loop answers with aiod_pool_spawn(); -1: it does not. */
int policy_doorbell_fd(const struct aiod_pool *pool);

#endif
