/*
 * session_end.h - the end of a session (session_end.c).
 */
#ifndef LIBAIOD_SESSION_END_H
#define LIBAIOD_SESSION_END_H

struct aiod_client;

/*
 * The session has ended with errno `error` (positive): requests in flight end with it, no call is answered, and all
 * threads and the event loop are woken. Without effect if the session has ended before. The client's lock is held.
 */
void aiod_end_session(struct aiod_client *client, int error);

#endif
