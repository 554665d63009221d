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

/* With these limits a page fits into the header of a REPLY (docs/protocol.md), whatever the names are. */
#define AIOD_LISTING_ENTRIES_MAX 512u
#define AIOD_LISTING_BYTES_MAX (24u * 1024u) /* of all names; the longest name of Linux fits */

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
    uint32_t name_offset; /* the position of its bytes in `names`; any bytes but / and 0 */
    uint32_t name_length;
};

struct aiod_listing {
    int64_t next; /* the cursor of the next page, if `more` */
    bool more;
    uint32_t entry_count;
    uint32_t name_bytes;
    struct aiod_entry entries[AIOD_LISTING_ENTRIES_MAX];
    char names[AIOD_LISTING_BYTES_MAX];
};

/*
 * Fill `listing` from the directory `fd`, from `cursor` (0, or `next` of an earlier page), without "." and "..". A name
 * that has been removed since is left out; a name that cannot be examined (a dead mount, no search permission) has kind
 * OTHER and size 0. 0, or -errno: EINVAL for a cursor that is not the file system's.
 */
int aiod_listing_read(int fd, int64_t cursor, struct aiod_listing *listing);

#endif
