/*
 * uring.h - requests that a polling worker starts by io_uring, instead of waiting for them in a system call.
 *
 * A request that can be started has operations for it (aiod_request.uring). Until it is taken, it is queued as every other
 * request: the fair queue, rates, deadlines and cancellation make no difference. A polling worker takes the startable
 * requests whose turn it is, starts them with one system call, and polls on. A request that the kernel does not start at
 * once (it would block, or the file system cannot tell) returns to the queue, and a worker runs it. Requests that are
 * queued by threads that do not poll, the main loop for example, are left to workers.
 *
 * Each worker that polls has an io_uring of its own, from the first time that one is wanted until the worker exits.
 * - The kernel processes the completions of a request only in the thread that submitted the request. With
 *   IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN it does so when that thread asks for it, and wakes it by
 *   the eventfd. Without these flags it does so whenever the thread returns to user mode, also after an interrupt. The
 *   eventfd would then be signalled by a thread that is awake, and would wake another polling worker for nothing.
 * - A worker with requests in its io_uring is bound: it polls, and takes no request that may block, because completions
 *   would wait for that one. It cannot be recalled (polling.c), and it does not exit, because the kernel cancels the
 *   requests of a thread that exits. One worker is bound at a time, so that the other one answers recalls.
 * - Requests are submitted with RWF_NOWAIT. Otherwise the kernel passes those that would block to threads of its own,
 *   which have neither the daemon's affinity nor the pool's limits, and which the detection of stuck workers cannot see.
 * - Started requests count against max_threads as active workers do (aiod_pool_takeable()): otherwise a flow that is alone
 *   would fill the disk's queue before another flow arrives. Slow ones do not count, as replaced stuck workers do not.
 *   An io_uring has never more requests than entries, so its completion queue cannot overflow.
 *
 * - The death of the process does not wait for started reads and writes: a thread that is killed leaves them to the
 *   io_uring, which the kernel frees when the last one has ended. So the next engine must not rely on the end of the
 *   process. The engine's lock is a registered file of each io_uring, and stays locked until that is freed.
 *
 * All functions concern the io_uring of the calling thread, and do nothing on threads that have none.
 */
#ifndef AIOD_URING_H
#define AIOD_URING_H

#include <stdbool.h>

#include "pool/pool.h"

/* Have polling workers create io_urings from now on. Any thread. */
void aiod_uring_want(struct aiod_pool *pool);

/*
 * Keep the file `fd` open in every io_uring, until its requests have ended: the engine's lock. Before the first pool, and
 * before aiod_uring_probe().
 */
void aiod_uring_keep_open(int fd);

/* Is an io_uring with everything that this file needs available to this process? 0, or -errno. Any thread. */
int aiod_uring_probe(void);

/*
 * Polling worker: submit what was taken, and deliver what has completed. Lock not held. True: there was something, and there
 * may be more.
 */
bool aiod_uring_turn(struct aiod_pool *pool);

/* Is there something to do for aiod_uring_turn()? Makes no system call. */
bool aiod_uring_ready(void);

/*
 * Polling worker: it is going to sleep until a descriptor is readable, or it is awake. While it is awake, completions make
 * its eventfd not readable. aiod_uring_ready() must be checked in between.
 */
void aiod_uring_set_sleeping(bool sleeping);

/*
 * Polling worker: it was woken by an eventfd that aiod_idle_polling.watch() got with `data` (NULL: by another descriptor). If
 * that belongs to another worker that sleeps, wake that one.
 */
void aiod_uring_pass_on(const void *data);

/*
 * Leader: has it left startable requests to workers, because another polling worker is bound, and does that one sleep? Then
 * that one should lead: it would start them.
 */
bool aiod_uring_is_elsewhere(const struct aiod_pool *pool);

/* Former leader: wake that worker, if there is one. */
void aiod_uring_call_bound(const struct aiod_pool *pool);

#endif
