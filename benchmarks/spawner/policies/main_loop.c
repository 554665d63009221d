/* aiod's policy: the submitter rings the main loop, which creates the first worker; newborns create the others. */
#include "pool/spawner.c"

#include "policy.h"

void policy_prepare(struct aiod_pool *pool)
{
    (void)pool;
}

int policy_doorbell_fd(const struct aiod_pool *pool)
{
    return pool->doorbell_fd;
}
