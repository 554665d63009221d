/*
 * spawner.h - the chain of thread creation; nothing else in aiod creates workers.
 *
 * The theory. A thread inherits the affinity of its creator, so a submitter (a pinned vcpu's thread, say) must not create
 * one: it would confine the worker to its own CPU. So submitters only *owe* threads (new_threads) and ring the doorbell
 * of the main loop; the main loop creates one, and that newborn creates the next ones. Nobody creates a long row, every
 * worker descends from the main loop and has its affinity, and no lock is held while a thread is being created.
 *
 * The rules.
 *   new > 0 implies that pending > 0 (a newborn will see the backlog), or that the doorbell has been rung, or that a
 *   spawn step is running: a chain never dies with a backlog.
 *   A creation that fails ends the whole chain (pending--, cur -= 1 + new, new = 0) and leaves the retry to the main
 *   loop's timer, which computes the need anew from the queue.
 *
 * Source: QEMU "posix-aio-compat: fix latency issues" (Avi Kivity, 2011), with the lock taken where it is needed rather
 * than dropped where it is not, as its review asked. Declarations: pool_state.h.
 */
#ifndef AIOD_SPAWNER_H
#define AIOD_SPAWNER_H

#include "pool/pool_state.h"

#define AIOD_WORKER_STACK_BYTES (128u * 1024u)
#define AIOD_RETRY_BACKOFF_MIN_NS 10000000ull
#define AIOD_RETRY_BACKOFF_MAX_NS 1000000000ull

#endif
