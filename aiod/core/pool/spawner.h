/*
 * spawner.h - the creation of worker threads. All workers are created here.
 *
 * Algorithm. A new thread inherits the CPU affinity of its creator. If a submitter created workers (a pinned vCPU
 * thread, for example), they would be confined to its CPU. Submitters therefore only add workers to a backlog
 * (new_threads) and ring the main loop's doorbell. The main loop creates one worker, and each new worker creates the
 * next ones (AIOD_SPAWN_FAN_OUT). No thread creates a long series, every worker inherits the main loop's affinity, and
 * no lock is held during a creation.
 *
 * Invariants.
 * - new > 0 implies that pending > 0 (a new worker will see the backlog), or that the doorbell was rung, or that a
 *   spawn step is running. The chain does not end with a backlog.
 * - A failed creation ends the chain (pending--, cur -= 1 + new, new = 0). The main loop's timer retries, and computes
 *   the need from the queue again.
 *
 * Source: QEMU, "posix-aio-compat: fix latency issues" (Avi Kivity, 2011). Following its review, locks are taken where
 * they are needed, instead of dropped where they are not. The functions are declared in pool_state.h.
 */
#ifndef AIOD_SPAWNER_H
#define AIOD_SPAWNER_H

#include "pool/pool_state.h"

#define AIOD_WORKER_STACK_BYTES (128u * 1024u)
#define AIOD_RETRY_BACKOFF_MIN_NS 10000000ull
#define AIOD_RETRY_BACKOFF_MAX_NS 1000000000ull

#endif
