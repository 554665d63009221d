/* listing.c - reads one page of a directory with getdents64(). */
#include "path/listing.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdalign.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/query_ops.h"

#define CHUNK_BYTES 8192u /* of one getdents64(); on a worker's stack */

static_assert(AIOD_LISTING_BYTES_MAX >= sizeof(((struct dirent64 *)NULL)->d_name), "a page has room for any name");

static const struct aiod_alignment no_alignment = {.memory = 1, .offset = 1};

static void add(struct aiod_listing *listing, int fd, const char *name, uint32_t bytes)
{
    struct aiod_stat *stat = &listing->stats[listing->entry_count];
    struct stat status;

    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) == 0) {
        aiod_query_fill_stat(stat, &status, &no_alignment);
    } else if (errno == ENOENT) {
        return;
    } else {
        *stat = (struct aiod_stat){0};
    }
    memcpy(listing->names + listing->name_bytes, name, bytes);
    listing->name_bytes += bytes;
    listing->entry_count++;
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Add an entry. False: the page is full, and the entry belongs to the next one. */
static bool add_if_room(struct aiod_listing *listing, int fd, const struct dirent64 *dirent)
{
    uint32_t bytes = (uint32_t)strlen(dirent->d_name) + 1;

    if (listing->entry_count == AIOD_LISTING_ENTRIES_MAX || listing->name_bytes + bytes > AIOD_LISTING_BYTES_MAX) {
        return false;
    }
    if (!is_dot(dirent->d_name)) {
        add(listing, fd, dirent->d_name, bytes);
    }
    listing->next = dirent->d_off;
    return true;
}

static ssize_t read_chunk(int fd, char *chunk)
{
    ssize_t got;

    do {
        got = getdents64(fd, chunk, CHUNK_BYTES);
    } while (got < 0 && errno == EINTR);
    return got;
}

int aiod_listing_read(int fd, int64_t cursor, struct aiod_listing *listing)
{
    alignas(struct dirent64) char chunk[CHUNK_BYTES];
    ssize_t got;

    listing->entry_count = 0;
    listing->name_bytes = 0;
    listing->more = false;
    if (lseek(fd, cursor, SEEK_SET) < 0) {
        return -errno;
    }
    while ((got = read_chunk(fd, chunk)) > 0) {
        for (ssize_t at = 0; at < got;) {
            const struct dirent64 *dirent = (const struct dirent64 *)(const void *)(chunk + at);

            if (!add_if_room(listing, fd, dirent)) {
                listing->more = true;
                return 0;
            }
            at += dirent->d_reclen;
        }
    }
    return got < 0 ? -errno : 0;
}
