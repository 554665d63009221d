/*
 * policy.h - the functions of a policy under test, beside its version of a core file.
 */
#ifndef POLICY_H
#define POLICY_H

struct aiod_pool;

/* Called once on the main thread, before the burst. */
void policy_prepare(struct aiod_pool *pool);

/* The doorbell to which the main loop reacts with aiod_pool_spawn(); -1: none. */
int policy_doorbell_fd(const struct aiod_pool *pool);

#endif
