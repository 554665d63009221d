/*
 * filesystem.h - detects files on FUSE.
 *
 * A FUSE server need not keep the promises of the kernel's own file systems about file handles, O_SYNC and the meaning
 * of a flush.
 */
#ifndef AIOD_FILESYSTEM_H
#define AIOD_FILESYSTEM_H

#include <stdbool.h>

/* May block. Thread-safe. */
bool aiod_is_on_fuse(int fd);

#endif
