/*
 * reopen.h - open the caller's files at another engine (reopen.c).
 */
#ifndef LIBAIOD_REOPEN_H
#define LIBAIOD_REOPEN_H

#include <stdint.h>

struct aiod_client;

/*
 * Open all files at the engine behind `socket`, and claim their locks, for aiod_open_files_commit(). `features`: of the
 * engine. 0; or -errno: the engine cannot do it
 * now. A file that is missing or has been replaced is no error: it is lost. socket_lock is held, and no engine is
 * connected.
 */
int aiod_reopen(struct aiod_client *client, int socket, uint32_t features, uint64_t deadline_ns);

#endif
