/*
 * filesystem.h - whether a file is on FUSE, whose servers may do as they like: what a kernel's own file system promises of file
 * handles, O_SYNC and the meaning of a flush does not hold there.
 */
#ifndef AIOD_FILESYSTEM_H
#define AIOD_FILESYSTEM_H

#include <stdbool.h>

/* May block. Thread-safe. */
bool aiod_is_on_fuse(int fd);

#endif
