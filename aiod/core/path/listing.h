/*
 * listing.h - one page of a directory's names. Blocks: for workers only.
 *
 * Nothing is kept between pages: a cursor is the file system's own (d_off), so a page holds no descriptor, and survives
 * a restart of the daemon. That each name is told once is then as true as the file system's cursors are stable: on ext4,
 * XFS, btrfs, and tmpfs since Linux 6.6. Older tmpfs and overlayfs count entries, and what is created or removed between
 * two pages shifts the others.
 */
#ifndef AIOD_LISTING_H
#define AIOD_LISTING_H

#include <stdbool.h>
#include <stdint.h>

/* So that a page fits the header of a REPLY (docs/protocol.md), whatever the names are. */
#define AIOD_LISTING_ENTRIES_MAX 512u
#define AIOD_LISTING_BYTES_MAX (24u * 1024u) /* of names; at least one of the longest that Linux has fits */

enum aiod_kind {
    AIOD_KIND_FILE,
    AIOD_KIND_DIRECTORY,
    AIOD_KIND_LINK,
    AIOD_KIND_BLOCK,
    AIOD_KIND_OTHER,
};

struct aiod_entry {
    uint64_t size; /* bytes */
    enum aiod_kind kind;
    uint32_t name_offset; /* where in `names` its bytes start; any bytes but / and 0 */
    uint32_t name_length;
};

struct aiod_listing {
    int64_t next; /* cursor of the page that follows, if `more` */
    bool more;
    uint32_t entry_count;
    uint32_t name_bytes;
    struct aiod_entry entries[AIOD_LISTING_ENTRIES_MAX];
    char names[AIOD_LISTING_BYTES_MAX];
};

/*
 * Fill `listing` from `cursor` (0, or `next` of an earlier page) of the directory `fd` on, without "." and "..". A name
 * that has vanished since the directory was read is left out; one that is there and cannot be looked at (a dead mount, no
 * permission to search the directory) is of kind OTHER and size 0. 0, or -errno: EINVAL for a cursor that the file system
 * never gave.
 */
int aiod_listing_read(int fd, int64_t cursor, struct aiod_listing *listing);

#endif
