/*
 * listing.h - one page of a directory's entries. Blocks: for workers. Thread-safe, without locks.
 *
 * Nothing is kept between pages: the cursor is the file system's own (d_off). A listing therefore holds no descriptor,
 * and continues after a restart of the daemon. Whether each name is listed exactly once depends on the file system's
 * cursors. They are stable on ext4, XFS, btrfs, and on tmpfs since Linux 6.6. Older tmpfs and overlayfs count entries:
 * files that are created or removed between two pages shift the others.
 */
#ifndef AIOD_LISTING_H
#define AIOD_LISTING_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/records.h"

/* With these limits a page fits into the header of a REPLY (docs/protocol.md), whatever the names are. */
#define AIOD_LISTING_ENTRIES_MAX 512u
#define AIOD_LISTING_BYTES_MAX (22u * 1024u) /* of all names; the longest name of Linux fits */

struct aiod_listing {
    int64_t next; /* the cursor of the next page, if `more` */
    bool more;
    uint32_t entry_count;
    uint32_t name_bytes;
    struct aiod_stat stats[AIOD_LISTING_ENTRIES_MAX]; /* of the names, in the same order; mode 0: cannot be examined */
    char names[AIOD_LISTING_BYTES_MAX];               /* one after the other: any bytes but / and 0, then a 0 */
};

/*
 * Fill `listing` from the directory `fd`, from `cursor` (0, or `next` of an earlier page), without "." and "..". The
 * stat is that of the name itself, also if it is a symbolic link. A name that has been removed since is left out; one
 * that cannot be examined (a dead mount, no search permission) has a stat of zeroes. 0, or -errno: EINVAL for a cursor
 * that is not the file system's.
 */
int aiod_listing_read(int fd, int64_t cursor, struct aiod_listing *listing);

#endif
