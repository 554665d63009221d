/*
 * reopen.h - open the caller's files at another engine (reopen.c).
 */
#ifndef LIBAIOD_REOPEN_H
#define LIBAIOD_REOPEN_H

#include <stdint.h>

struct aiod_attachment;
struct aiod_client;

/*
 * Open all files at the engine that was attached to, and claim their locks, for aiod_open_files_commit(). 0; or
 * -errno: the engine cannot do it now. A file that is missing or has been replaced is no error: it is lost. socket_lock is held,
 * and no engine is connected.
 */
int aiod_reopen_files(struct aiod_client *client, struct aiod_attachment *attachment, uint64_t deadline_ns);

/* After the grace period: the same for the handles of names. */
int aiod_reopen_names(struct aiod_client *client, struct aiod_attachment *attachment, uint64_t deadline_ns);

/* Say that all files are reopened. */
int aiod_reopen_done(const struct aiod_attachment *attachment, uint64_t deadline_ns);

/* Wait for the end of the grace period. -ETIMEDOUT: it is not over. */
int aiod_reopen_await_go(struct aiod_attachment *attachment, uint64_t deadline_ns);

#endif
