/*
 * ioprio.h - the calling thread's I/O priority (ioprio_set(2)), as the disk's scheduler sees it.
 */
#ifndef AIOD_IOPRIO_H
#define AIOD_IOPRIO_H

#include <stdbool.h>

/* Have this thread's I/O be of `priority` (IOPRIO_PRIO_VALUE; 0: as its niceness says). A system call only when it has another now. */
void aiod_ioprio_be(int priority);

/* May this process (its seccomp filter, say)? */
bool aiod_may_set_ioprio(void);

#endif
