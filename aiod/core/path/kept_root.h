/*
 * kept_root.h - the descriptor of an export's root, which the leader of the rings keeps from one request to the next.
 *
 * Opening the root takes longer than opening a cached path beneath it. But a descriptor that is kept keeps the file system
 * in use, and hides what takes the root's place. So a thread keeps it only while it polls without a break, and for a few
 * requests. Each thread has its own.
 */
#ifndef AIOD_KEPT_ROOT_H
#define AIOD_KEPT_ROOT_H

#include <stdbool.h>

/* Does this thread keep the roots that it opens from now on? No thread does at first. */
void aiod_kept_root_set_keeping(bool keeping);

/* Close the kept descriptor. No effect without one. */
void aiod_kept_root_drop(void);

/* Does this thread have a descriptor? */
bool aiod_kept_root_held(void);

/* The directory `root`, opened with O_PATH if it is cached. A descriptor for aiod_kept_root_put(), or -EAGAIN. */
int aiod_kept_root_get(const char *root);

/* Close the descriptor, unless it is kept. */
void aiod_kept_root_put(int fd);

#endif
