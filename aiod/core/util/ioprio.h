/*
 * ioprio.h - the I/O priority of the calling thread (ioprio_set(2)), which the disk's I/O scheduler uses.
 *
 * Any thread may call these functions; each call concerns the calling thread alone.
 */
#ifndef AIOD_IOPRIO_H
#define AIOD_IOPRIO_H

#include <stdbool.h>

/*
 * Set the calling thread's I/O priority (IOPRIO_PRIO_VALUE; 0: derived from its nice value). Makes a system call only
 * if the priority changes.
 */
void aiod_ioprio_set(int priority);

/* May this process set I/O priorities? A seccomp filter can forbid it. */
bool aiod_ioprio_allowed(void);

#endif
