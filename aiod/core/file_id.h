/*
 * file_id.h - telling a file from another that has got its inode number.
 */
#ifndef AIOD_FILE_ID_H
#define AIOD_FILE_ID_H

#include <stdint.h>

/*
 * A number of the file's generation: a hash (FNV-1a) of its file handle, by which a file server would know it again; 0 where
 * the file system has none. May block. Thread-safe.
 */
uint64_t aiod_file_generation(int fd);

#endif
