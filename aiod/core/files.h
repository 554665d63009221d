/*
 * files.h - the files behind the handles, by device and inode: where "a failed flush stays failed" is remembered.
 *
 * After a failed fdatasync the kernel may have dropped the dirty pages and would report the next one as a success; so the
 * file is poisoned, for every handle of every session, until all have been closed. The table is the main loop's; only
 * the poison flag is touched by workers.
 */
#ifndef AIOD_FILES_H
#define AIOD_FILES_H

#include <stdbool.h>
#include <stdint.h>

#define AIOD_FILE_CHAINS 1024u

struct aiod_file;

struct aiod_files {
    struct aiod_file *chains[AIOD_FILE_CHAINS];
};

/* The file, with one more reference; NULL without memory. */
struct aiod_file *aiod_file_get(struct aiod_files *files, uint64_t dev, uint64_t ino);

void aiod_file_put(struct aiod_files *files, struct aiod_file *file);

/* Any thread. */
bool aiod_file_poisoned(const struct aiod_file *file);
void aiod_file_poison(struct aiod_file *file);

#endif
