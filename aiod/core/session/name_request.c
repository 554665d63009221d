/* name_request.c - checks the parts of a NAME, and lays out its answer. */
#include "session/name_request.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "aiod_ring.h"
#include "path/attributes.h"
#include "util/utf8.h"

#define NS_PER_SECOND INT64_C(1000000000)
#define PERMISSIONS 0777u
#define ATTRIBUTE_NAME_BYTES_MAX 255u
#define ATTRIBUTE_PREFIX "user."

static_assert(sizeof(struct aiod_ring_name) == 48 && sizeof(struct aiod_ring_page) == 24, "docs/ring.md");
static_assert((int)AIOD_RING_LIST == (int)AIOD_VERB_LIST && (int)AIOD_RING_RMTREE == (int)AIOD_VERB_RMTREE,
              "the same numbers");
static_assert(AIOD_RING_ATTRIBUTE_BYTES_MAX == AIOD_XATTR_BYTES_MAX && AIOD_RING_PATH_MAX == PATH_MAX, "answers fit");
static_assert(sizeof(struct aiod_ring_page) + AIOD_LISTING_ENTRIES_MAX * sizeof(struct aiod_ring_stat) +
                      AIOD_LISTING_BYTES_MAX <=
                  AIOD_RING_PAGE_BYTES_MAX,
              "a page fits");

/* What a verb uses beside the path. */
enum {
    TO = 1,
    VALUE = 2,
    ATTRIBUTE = 4, /* `to` is the name of one */
    NO_FOLLOW = 8,
};

static const struct form {
    unsigned uses;
    uint32_t answer_bytes_max;
} forms[] = {
    [AIOD_RING_LIST] = {0, AIOD_RING_PAGE_BYTES_MAX},
    [AIOD_RING_STAT_PATH] = {0, sizeof(struct aiod_ring_stat)},
    [AIOD_RING_RENAME] = {TO, 0},
    [AIOD_RING_LSTAT] = {0, sizeof(struct aiod_ring_stat)},
    [AIOD_RING_READLINK] = {0, AIOD_RING_PATH_MAX},
    [AIOD_RING_SYMLINK] = {TO, 0},
    [AIOD_RING_LINK] = {TO, 0},
    [AIOD_RING_UTIME] = {NO_FOLLOW, 0},
    [AIOD_RING_CHMOD] = {NO_FOLLOW, 0},
    [AIOD_RING_GETXATTR] = {TO | ATTRIBUTE | NO_FOLLOW, AIOD_RING_ATTRIBUTE_BYTES_MAX},
    [AIOD_RING_SETXATTR] = {TO | VALUE | ATTRIBUTE | NO_FOLLOW, 0},
    [AIOD_RING_LISTXATTR] = {NO_FOLLOW, AIOD_RING_ATTRIBUTE_BYTES_MAX},
    [AIOD_RING_REMOVEXATTR] = {TO | ATTRIBUTE | NO_FOLLOW, 0},
    [AIOD_RING_RMTREE] = {0, 1},
};

static unsigned flags_of(const struct aiod_ring_name *name, const struct form *form)
{
    return (name->verb == AIOD_RING_RENAME ? AIOD_RING_REPLACE : 0u) |
           (name->verb == AIOD_RING_UTIME ? AIOD_RING_NOW : 0u) |
           ((form->uses & NO_FOLLOW) != 0 ? AIOD_RING_NO_FOLLOW : 0u);
}

/* Are the lengths those of `text_bytes`, and the numbers in range? */
static bool numbers_are_right(const struct aiod_ring_name *name, const struct form *form, uint64_t text_bytes)
{
    return (uint64_t)name->path_bytes + name->to_bytes + name->value_bytes == text_bytes &&
           name->path_bytes < AIOD_RING_PATH_MAX && name->to_bytes < AIOD_RING_PATH_MAX &&
           name->value_bytes <= AIOD_RING_ATTRIBUTE_BYTES_MAX && (name->mode & ~PERMISSIONS) == 0 &&
           (name->flags & ~flags_of(name, form)) == 0 && name->xattr_flags <= XATTR_REPLACE &&
           ((form->uses & TO) != 0 || name->to_bytes == 0) && ((form->uses & VALUE) != 0 || name->value_bytes == 0);
}

/* A path or another text that a system call gets. */
static bool text_is_right(const char *text, uint32_t bytes)
{
    return aiod_utf8_valid(text, bytes);
}

static bool attribute_is_right(const char *name, uint32_t bytes)
{
    const size_t prefix_bytes = sizeof(ATTRIBUTE_PREFIX) - 1;

    return bytes >= prefix_bytes && bytes <= ATTRIBUTE_NAME_BYTES_MAX &&
           memcmp(name, ATTRIBUTE_PREFIX, prefix_bytes) == 0;
}

static bool form_is_right(const struct aiod_ring_name *name, const char *text, uint64_t text_bytes, uint64_t room_bytes)
{
    const struct form *form = &forms[name->verb];

    return numbers_are_right(name, form, text_bytes) && room_bytes >= form->answer_bytes_max &&
           text_is_right(text, name->path_bytes) && text_is_right(text + name->path_bytes, name->to_bytes) &&
           ((form->uses & ATTRIBUTE) == 0 || attribute_is_right(text + name->path_bytes, name->to_bytes));
}

static struct timespec time_of(int64_t ns)
{
    const int64_t rest = (ns % NS_PER_SECOND + NS_PER_SECOND) % NS_PER_SECOND;

    return (struct timespec){.tv_sec = (ns - rest) / NS_PER_SECOND, .tv_nsec = rest};
}

static void set_times(struct aiod_directory_op *directory_op, const struct aiod_ring_name *name)
{
    if ((name->flags & AIOD_RING_NOW) != 0) {
        directory_op->times[0].tv_nsec = directory_op->times[1].tv_nsec = UTIME_NOW;
        return;
    }
    directory_op->times[0] = time_of(name->access_ns);
    directory_op->times[1] = time_of(name->change_ns);
}

static bool set_value(struct aiod_directory_op *directory_op, const char *value, uint32_t bytes)
{
    if (bytes == 0) {
        return true;
    }
    directory_op->value = malloc(bytes);
    if (directory_op->value == NULL) {
        return false;
    }
    memcpy(directory_op->value, value, bytes);
    directory_op->value_bytes = bytes;
    return true;
}

/* NULL if there is no memory. */
static struct aiod_directory_op *create(const struct aiod_ring_name *name, const char *text,
                                        const struct aiod_names *names)
{
    char *path = strndup(text, name->path_bytes);
    char *to = strndup(text + name->path_bytes, name->to_bytes);
    struct aiod_directory_op *directory_op =
        path == NULL || to == NULL ? NULL : aiod_directory_op_create((enum aiod_verb)name->verb, names->root, path, to);

    free(path);
    free(to);
    if (directory_op == NULL) {
        return NULL;
    }
    set_times(directory_op, name);
    directory_op->xattr_flags = (int)name->xattr_flags;
    directory_op->itself = (name->flags & AIOD_RING_NO_FOLLOW) != 0;
    directory_op->cursor = name->cursor;
    directory_op->mode = name->mode;
    directory_op->replace = (name->flags & AIOD_RING_REPLACE) != 0;
    directory_op->no_links = names->no_links;
    if (!set_value(directory_op, text + name->path_bytes + name->to_bytes, name->value_bytes)) {
        aiod_directory_op_destroy(directory_op);
        return NULL;
    }
    return directory_op;
}

int aiod_name_request_parse(const char *bytes, uint32_t byte_count, uint64_t room_bytes, const struct aiod_names *names,
                            struct aiod_directory_op **parsed, enum aiod_reason *reason)
{
    struct aiod_ring_name name;
    const char *text = bytes + sizeof(name);

    *reason = AIOD_REASON_BAD_ENTRY;
    if (byte_count < sizeof(name)) {
        return EINVAL;
    }
    memcpy(&name, bytes, sizeof(name));
    if (name.verb >= sizeof(forms) / sizeof(forms[0]) ||
        !form_is_right(&name, text, byte_count - sizeof(name), room_bytes)) {
        return EINVAL;
    }
    if ((names->verbs & 1u << name.verb) == 0) {
        *reason = AIOD_REASON_NOT_ALLOWED;
        return EPERM;
    }
    *reason = AIOD_REASON_BY_KERNEL;
    *parsed = create(&name, text, names);
    return *parsed == NULL ? ENOMEM : 0;
}

/* ---- the answer -------------------------------------------------------------------------------------------------- */

static char *put(char *room, const void *bytes, size_t count)
{
    memcpy(room, bytes, count);
    return room + count;
}

static int64_t put_page(char *room, const struct aiod_listing *listing)
{
    const struct aiod_ring_page page = {
        .next = listing->next,
        .more = listing->more,
        .entries = listing->entry_count,
        .name_bytes = listing->name_bytes,
    };
    char *end = put(room, &page, sizeof(page));

    end = put(end, listing->stats, listing->entry_count * sizeof(listing->stats[0]));
    return put(end, listing->names, listing->name_bytes) - room;
}

static int64_t put_answer(char *room, const struct aiod_directory_op *directory_op, int result)
{
    switch (directory_op->verb) {
    case AIOD_VERB_LIST:
        return put_page(room, directory_op->listing);
    case AIOD_VERB_STAT:
    case AIOD_VERB_LSTAT:
        return put(room, &directory_op->stat, sizeof(directory_op->stat)) - room;
    case AIOD_VERB_RMTREE:
        return result;
    default:
        return directory_op->text == NULL ? 0 : put(room, directory_op->text, directory_op->text_bytes) - room;
    }
}

int64_t aiod_name_request_run(struct aiod_directory_op *directory_op, char *room, enum aiod_reason *reason)
{
    int result = aiod_directory_op_run(directory_op);

    if (directory_op->outside) {
        *reason = AIOD_REASON_OUTSIDE;
        return -EACCES;
    }
    return result < 0 ? result : put_answer(room, directory_op, result);
}
