/* The guest's memory: what a VMM says of it is checked, and stays mapped as long as somebody uses it. */
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "vhost/memory_table.h"

#define MIB (UINT64_C(1) << 20)

static int memory_file(uint64_t bytes)
{
    int fd = memfd_create("guest", MFD_CLOEXEC);

    CHECK(fd >= 0 && ftruncate(fd, (off_t)bytes) == 0);
    return fd;
}

static void put(int fd, const char *text, off_t offset)
{
    CHECK(pwrite(fd, text, strlen(text), offset) == (ssize_t)strlen(text));
}

static void addresses_are_translated(void)
{
    int fd = memory_file(4 * MIB);
    const struct aiod_memory_description regions[] = {
        {.guest = 4 * MIB, .bytes = MIB, .user = 40 * MIB, .offset = 2 * MIB},
        {.guest = 0, .bytes = MIB, .user = 80 * MIB, .offset = 4097},
    };
    const int fds[] = {fd, fd};
    struct aiod_memory_table *table;
    uint64_t there;

    put(fd, "low", 4097 + 5);
    put(fd, "high", (off_t)(2 * MIB + 7));
    CHECK(aiod_memory_table_create(&table, regions, fds, 2) == NULL);
    close(fd);
    CHECK(memcmp(aiod_memory_table_find(table, 5, &there), "low", 3) == 0 && there == MIB - 5);
    CHECK(memcmp(aiod_memory_table_find(table, 4 * MIB + 7, &there), "high", 4) == 0 && there == MIB - 7);
    CHECK(aiod_memory_table_find(table, MIB, &there) == NULL);
    CHECK(aiod_memory_table_find(table, UINT64_MAX, &there) == NULL);
    CHECK(aiod_memory_table_find(table, 5 * MIB, &there) == NULL);
    CHECK(memcmp(aiod_memory_table_find_user(table, 80 * MIB + 5, 3), "low", 3) == 0);
    CHECK(aiod_memory_table_find_user(table, 81 * MIB - 1, 1) != NULL);
    CHECK(aiod_memory_table_find_user(table, 81 * MIB - 1, 2) == NULL);
    CHECK(aiod_memory_table_find_user(table, 80 * MIB, UINT64_MAX) == NULL);
    CHECK(aiod_memory_table_find_user(table, 0, 1) == NULL);
    aiod_memory_table_put(table);
}

static void false_descriptions_are_refused(void)
{
    int fd = memory_file(MIB);
    int pipes[2];
    const struct aiod_memory_description wrong[] = {
        {.guest = 0, .bytes = 0, .user = 0},
        {.guest = 0, .bytes = MIB + 1, .user = 0},
        {.guest = 0, .bytes = MIB, .user = 0, .offset = 1},
        {.guest = 0, .bytes = MIB, .user = 0, .offset = UINT64_MAX},
        {.guest = UINT64_MAX, .bytes = 4096, .user = 0},
        {.guest = 0, .bytes = 4096, .user = UINT64_MAX - 1},
        {.guest = 0, .bytes = UINT64_MAX, .user = 0},
        {.guest = 0, .bytes = UINT64_MAX - 4095, .user = 0, .offset = 4096},
    };
    const struct aiod_memory_description right = {.bytes = 4096};
    struct aiod_memory_table *table;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(aiod_memory_table_create(&table, &wrong[i], &fd, 1) != NULL);
        CHECK(aiod_memory_table_add(&table, NULL, &wrong[i], fd) != NULL);
    }
    CHECK(pipe(pipes) == 0);
    CHECK(aiod_memory_table_create(&table, &right, &pipes[0], 1) != NULL);
    CHECK(aiod_memory_table_create(&table, &right, &(int){-1}, 1) != NULL);
    CHECK(aiod_memory_table_create(&table, &right, &(int){1000}, 1) != NULL);
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
}

static void overlaps_are_refused(void)
{
    int fd = memory_file(4 * MIB);
    const int fds[] = {fd, fd};
    const struct aiod_memory_description by_guest[] = {
        {.guest = 0, .bytes = MIB, .user = 0},
        {.guest = MIB - 1, .bytes = MIB, .user = 8 * MIB},
    };
    const struct aiod_memory_description by_user[] = {
        {.guest = 0, .bytes = MIB, .user = 0},
        {.guest = 8 * MIB, .bytes = MIB, .user = MIB - 1},
    };
    struct aiod_memory_table *table;

    CHECK(aiod_memory_table_create(&table, by_guest, fds, 2) != NULL);
    CHECK(aiod_memory_table_create(&table, by_user, fds, 2) != NULL);
    close(fd);
}

/* Memory is added and removed: earlier tables do not change, and their memory stays. */
static void a_region_can_be_added_and_removed(void)
{
    int one = memory_file(MIB);
    int other = memory_file(MIB);
    const struct aiod_memory_description first = {.guest = MIB, .bytes = MIB, .user = 0};
    const struct aiod_memory_description second = {.guest = 0, .bytes = MIB, .user = 64 * MIB};
    struct aiod_memory_table *table, *larger, *smaller;
    uint64_t there;
    char *kept;

    CHECK(aiod_memory_table_create(&table, &first, &one, 1) == NULL);
    CHECK(aiod_memory_table_add(&larger, table, &second, other) == NULL);
    CHECK(aiod_memory_table_find(table, 5, &there) == NULL);
    kept = aiod_memory_table_find(larger, MIB, &there);
    CHECK(kept == aiod_memory_table_find(table, MIB, &there));
    CHECK(aiod_memory_table_find(larger, 5, &there) != NULL);
    CHECK(aiod_memory_table_add(&smaller, larger, &second, other) != NULL); /* it is there already */
    CHECK(aiod_memory_table_remove(&smaller, larger, &first) == NULL);
    aiod_memory_table_put(table);
    CHECK(aiod_memory_table_find(smaller, MIB, &there) == NULL);
    kept[0] = 'x'; /* `larger` has it still */
    aiod_memory_table_put(larger);
    CHECK(aiod_memory_table_remove(&larger, smaller, &first) != NULL);
    CHECK(aiod_memory_table_find(smaller, 5, &there) != NULL);
    aiod_memory_table_put(smaller);
    close(one);
    close(other);
}

static void there_are_not_too_many(void)
{
    int fd = memory_file(MIB);
    struct aiod_memory_table *table = NULL;

    for (unsigned i = 0; i < AIOD_MEMORY_REGIONS_MAX + 1; i++) {
        const struct aiod_memory_description description = {.guest = i * MIB, .bytes = 4096, .user = i * MIB};
        struct aiod_memory_table *next;
        const char *why = aiod_memory_table_add(&next, table, &description, fd);

        CHECK((why == NULL) == (i < AIOD_MEMORY_REGIONS_MAX));
        if (why == NULL) {
            aiod_memory_table_put(table);
            table = next;
        }
    }
    aiod_memory_table_put(table);
    close(fd);
}

int main(void)
{
    addresses_are_translated();
    false_descriptions_are_refused();
    overlaps_are_refused();
    a_region_can_be_added_and_removed();
    there_are_not_too_many();
    return 0;
}
