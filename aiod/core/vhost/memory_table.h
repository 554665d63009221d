/*
 * memory_table.h - the guest's memory: the regions that the VMM shares, mapped here.
 *
 * A table is constant; a change of the guest's memory makes a new one, which shares the mappings that stay. Each request
 * holds a reference to the table that its addresses were translated with: memory that the VMM takes away is unmapped when
 * the last request that uses it has ended.
 *
 * Nothing in a description is trusted: it is checked against the size of its file, and regions may not overlap. The VMM can
 * still truncate its file. An access then raises SIGBUS, which ends the process: it serves this VMM alone.
 */
#ifndef AIOD_MEMORY_TABLE_H
#define AIOD_MEMORY_TABLE_H

#include <stdint.h>

#define AIOD_MEMORY_REGIONS_MAX 32u

struct aiod_memory_mapping;

/* One region, as the VMM describes it. */
struct aiod_memory_description {
    uint64_t guest; /* address for the guest's driver */
    uint64_t bytes;
    uint64_t user;   /* address in the VMM, by which it names the rings */
    uint64_t offset; /* in the file */
};

struct aiod_memory_region {
    struct aiod_memory_description description;
    char *memory;
    struct aiod_memory_mapping *mapping; /* a reference */
};

struct aiod_memory_table {
    unsigned refs; /* accessed by atomic operations */
    unsigned count;
    struct aiod_memory_region regions[]; /* in the order of guest addresses */
};

/*
 * Make the table of `count` regions, with one file descriptor each, which stay the caller's. NULL, or the reason why not,
 * for the log.
 */
const char *aiod_memory_table_create(struct aiod_memory_table **table,
                                     const struct aiod_memory_description *descriptions, const int *fds,
                                     unsigned count);

/* Make a table with a region more than `before` (NULL: an empty one), or less. Likewise. */
const char *aiod_memory_table_add(struct aiod_memory_table **table, const struct aiod_memory_table *before,
                                  const struct aiod_memory_description *description, int fd);
const char *aiod_memory_table_remove(struct aiod_memory_table **table, const struct aiod_memory_table *before,
                                     const struct aiod_memory_description *description);

/* References; NULL is no table. Any thread. */
struct aiod_memory_table *aiod_memory_table_get(struct aiod_memory_table *table);
void aiod_memory_table_put(struct aiod_memory_table *table);

/* The memory at a guest address, and how many bytes of it are there in one piece. NULL: none. Any thread. */
char *aiod_memory_table_find(const struct aiod_memory_table *table, uint64_t guest, uint64_t *bytes);

/* The `bytes` bytes of memory at an address of the VMM. NULL: not all of them are in one region. */
char *aiod_memory_table_find_user(const struct aiod_memory_table *table, uint64_t user, uint64_t bytes);

#endif
