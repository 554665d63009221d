/* memory_table.c - checks, maps and translates the guest's memory (memory_table.h). */
#include "vhost/memory_table.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "util/os.h"

#define BYTES_MAX (UINT64_C(1) << 46)

struct aiod_memory_mapping {
    unsigned refs; /* accessed by atomic operations */
    void *start;
    size_t bytes;
};

/* ---- mappings ---------------------------------------------------------------------------------------------------- */

static void put_mapping(struct aiod_memory_mapping *mapping)
{
    if (__atomic_sub_fetch(&mapping->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        aiod_os->munmap(mapping->start, mapping->bytes);
        free(mapping);
    }
}

static bool fits(uint64_t start, uint64_t bytes, uint64_t end)
{
    return start <= end && bytes <= end - start;
}

static const char *check(const struct aiod_memory_description *description, int fd, const struct stat *file)
{
    if (description->bytes == 0 || description->bytes > BYTES_MAX ||
        !fits(description->guest, description->bytes, UINT64_MAX) ||
        !fits(description->user, description->bytes, UINT64_MAX)) {
        return "a region of its memory has a size or an address that is out of range";
    }
    if (fd < 0 || !S_ISREG(file->st_mode)) {
        return "a region of its memory is not a file in memory (memory-backend-memfd or -file with share=on)";
    }
    if (!fits(description->offset, description->bytes, (uint64_t)file->st_size)) {
        return "a region of its memory is larger than its file";
    }
    return NULL;
}

/*
 * Map the file from its beginning: the offset of a region needs no alignment then, which a file of huge pages would demand.
 * The length is rounded up to the file's pages, for munmap().
 */
static const char *map(struct aiod_memory_region *region, const struct aiod_memory_description *description, int fd)
{
    struct aiod_memory_mapping *mapping;
    struct stat file = {0};
    const char *why =
        fd >= 0 && aiod_os->fstat(fd, &file) < 0 ? "a region of its memory has no file" : check(description, fd, &file);
    uint64_t page = file.st_blksize > 4096 ? (uint64_t)file.st_blksize : 4096;

    if (why != NULL) {
        return why;
    }
    mapping = malloc(sizeof(*mapping));
    if (mapping == NULL) {
        return "no memory for its memory table";
    }
    mapping->refs = 1;
    mapping->bytes = (size_t)((description->offset + description->bytes + page - 1) / page * page);
    mapping->start = mmap(NULL, mapping->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (mapping->start == MAP_FAILED) {
        free(mapping);
        return "a region of its memory cannot be mapped for reading and writing";
    }
    madvise(mapping->start, mapping->bytes, MADV_DONTDUMP); /* the guest's memory does not belong into a core dump */
    *region = (struct aiod_memory_region){
        .description = *description, .memory = (char *)mapping->start + description->offset, .mapping = mapping};
    return NULL;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static struct aiod_memory_table *allocate(unsigned room)
{
    struct aiod_memory_table *table = calloc(1, sizeof(*table) + room * sizeof(table->regions[0]));

    if (table != NULL) {
        table->refs = 1;
    }
    return table;
}

struct aiod_memory_table *aiod_memory_table_get(struct aiod_memory_table *table)
{
    if (table != NULL) {
        __atomic_add_fetch(&table->refs, 1, __ATOMIC_RELAXED);
    }
    return table;
}

void aiod_memory_table_put(struct aiod_memory_table *table)
{
    if (table == NULL || __atomic_sub_fetch(&table->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    for (unsigned i = 0; i < table->count; i++) {
        put_mapping(table->regions[i].mapping);
    }
    free(table);
}

static bool overlap(uint64_t one, uint64_t one_bytes, uint64_t other, uint64_t other_bytes)
{
    return one < other + other_bytes && other < one + one_bytes;
}

/* Insert in the order of guest addresses. The table has room. False: the region overlaps another one. */
static bool insert(struct aiod_memory_table *table, const struct aiod_memory_region *region)
{
    const struct aiod_memory_description *own = &region->description;
    unsigned at = 0;

    for (unsigned i = 0; i < table->count; i++) {
        const struct aiod_memory_description *other = &table->regions[i].description;

        if (overlap(own->guest, own->bytes, other->guest, other->bytes) ||
            overlap(own->user, own->bytes, other->user, other->bytes)) {
            return false;
        }
        at += other->guest < own->guest;
    }
    memmove(&table->regions[at + 1], &table->regions[at], (table->count - at) * sizeof(table->regions[0]));
    table->regions[at] = *region;
    table->count++;
    return true;
}

static const char *map_and_insert(struct aiod_memory_table *table, const struct aiod_memory_description *description,
                                  int fd)
{
    struct aiod_memory_region region;
    const char *why = map(&region, description, fd);

    if (why == NULL && !insert(table, &region)) {
        put_mapping(region.mapping);
        return "regions of its memory overlap";
    }
    return why;
}

const char *aiod_memory_table_create(struct aiod_memory_table **result,
                                     const struct aiod_memory_description *descriptions, const int *fds, unsigned count)
{
    struct aiod_memory_table *table;
    const char *why = NULL;

    if (count > AIOD_MEMORY_REGIONS_MAX) {
        return "its memory has more regions than the back end takes";
    }
    table = allocate(count);
    if (table == NULL) {
        return "no memory for its memory table";
    }
    for (unsigned i = 0; i < count && why == NULL; i++) {
        why = map_and_insert(table, &descriptions[i], fds[i]);
    }
    if (why != NULL) {
        aiod_memory_table_put(table);
        return why;
    }
    *result = table;
    return NULL;
}

static bool is_same(const struct aiod_memory_description *one, const struct aiod_memory_description *other)
{
    return one->guest == other->guest && one->user == other->user && one->bytes == other->bytes;
}

/* Copy the regions except for that one (NULL: all), with references to their mappings. */
static struct aiod_memory_table *copy(const struct aiod_memory_table *before,
                                      const struct aiod_memory_description *without)
{
    unsigned count = before != NULL ? before->count : 0;
    struct aiod_memory_table *table = allocate(count + 1);

    for (unsigned i = 0; table != NULL && i < count; i++) {
        if (without == NULL || !is_same(&before->regions[i].description, without)) {
            table->regions[table->count] = before->regions[i];
            __atomic_add_fetch(&table->regions[table->count++].mapping->refs, 1, __ATOMIC_RELAXED);
        }
    }
    return table;
}

const char *aiod_memory_table_add(struct aiod_memory_table **result, const struct aiod_memory_table *before,
                                  const struct aiod_memory_description *description, int fd)
{
    struct aiod_memory_table *table;
    const char *why;

    if (before != NULL && before->count == AIOD_MEMORY_REGIONS_MAX) {
        return "its memory has more regions than the back end takes";
    }
    table = copy(before, NULL);
    if (table == NULL) {
        return "no memory for its memory table";
    }
    why = map_and_insert(table, description, fd);
    if (why != NULL) {
        aiod_memory_table_put(table);
        return why;
    }
    *result = table;
    return NULL;
}

const char *aiod_memory_table_remove(struct aiod_memory_table **result, const struct aiod_memory_table *before,
                                     const struct aiod_memory_description *description)
{
    struct aiod_memory_table *table = copy(before, description);

    if (table == NULL) {
        return "no memory for its memory table";
    }
    if (before == NULL || table->count == before->count) {
        aiod_memory_table_put(table);
        return "it removes a region of its memory that is not there";
    }
    *result = table;
    return NULL;
}

/* ---- translation ------------------------------------------------------------------------------------------------- */

char *aiod_memory_table_find(const struct aiod_memory_table *table, uint64_t guest, uint64_t *bytes)
{
    for (unsigned i = 0; i < table->count; i++) {
        const struct aiod_memory_region *region = &table->regions[i];

        if (guest - region->description.guest < region->description.bytes) {
            *bytes = region->description.bytes - (guest - region->description.guest);
            return region->memory + (guest - region->description.guest);
        }
    }
    return NULL;
}

char *aiod_memory_table_find_user(const struct aiod_memory_table *table, uint64_t user, uint64_t bytes)
{
    for (unsigned i = 0; i < table->count; i++) {
        const struct aiod_memory_region *region = &table->regions[i];
        uint64_t at = user - region->description.user;

        if (at < region->description.bytes && bytes <= region->description.bytes - at) {
            return region->memory + at;
        }
    }
    return NULL;
}
