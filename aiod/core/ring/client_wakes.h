/*
 * client_wakes.h - wakes each client once for all completions that a thread delivers in one turn.
 *
 * A client that sleeps is woken by the first completion that it finds in its ring. While the thread delivers the others, the
 * client would take them one by one, submit one request for each, and on few CPUs take the time that the thread needs. So a
 * thread that is about to deliver several completions notes the rings, and wakes their clients after the last one.
 *
 * The same holds for a worker that carries out the writes of a lane, one after the other (pool/worker.c).
 *
 * Every function concerns the calling thread alone.
 */
#ifndef AIOD_CLIENT_WAKES_H
#define AIOD_CLIENT_WAKES_H

#include <stdbool.h>

struct aiod_polled;

/* Note rings from now on. */
void aiod_client_wakes_begin(void);

/*
 * Note the ring, and keep the caller's reference until its client has been woken. False: the caller wakes the client itself,
 * because the thread does not note rings, or has noted too many.
 */
bool aiod_client_wakes_note(struct aiod_polled *ring);

/* The same, also if the thread does not note rings: it ends other requests next, and calls aiod_client_wakes_end() then. */
bool aiod_client_wakes_defer(struct aiod_polled *ring);

/* Wake the clients of the rings that were noted. True: there were any. */
bool aiod_client_wakes_end(void);

#endif
