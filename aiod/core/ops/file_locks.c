/* file_locks.c - OFD locks, and the list of exclusive locks in an extended attribute. */
#include "ops/file_locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "util/os.h"

#define LISTED_MAX 32
#define GUARD_TRIES_MAX 20
#define GUARD_PAUSE_NS 100000

/* The attribute, little endian as the wire is: `count` entries, the latest last. */
struct listed {
    uint64_t number;
    uint64_t first;
    uint64_t last;
};

struct list {
    uint64_t newest;    /* the number of the last exclusive lock */
    uint64_t forgotten; /* the highest number that an entry had which was dropped for want of room */
    struct listed entries[LISTED_MAX];
};

#define HEAD_BYTES offsetof(struct list, entries)

static int set_lock(int fd, short type, uint64_t first, uint64_t last)
{
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)first, .l_len = (off_t)(last - first + 1)};

    while (aiod_os->ofd_setlk(fd, &lock) < 0) {
        if (errno != EINTR) {
            return errno == EACCES ? -EAGAIN : -errno; /* POSIX allows either for a conflict */
        }
    }
    return 0;
}

int aiod_file_lock_release(int fd, uint64_t first, uint64_t last)
{
    return set_lock(fd, F_UNLCK, first, last);
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

/* A clock, not 1: a list that was removed and made anew must not give a number again. */
static uint64_t first_number(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * The number of entries; an empty list if the file has none, or one that nobody of ours has written. -EOPNOTSUPP: the
 * file system has no such attributes. Or another -errno.
 */
static int read_list(int fd, struct list *list)
{
    ssize_t length = aiod_os->fgetxattr(fd, AIOD_LOCKS_XATTR, list, sizeof(*list));

    if (length < 0 && errno != ENODATA && errno != ERANGE) {
        return -errno;
    }
    if (length < (ssize_t)HEAD_BYTES || ((size_t)length - HEAD_BYTES) % sizeof(struct listed) != 0) {
        list->newest = list->forgotten = first_number();
        return 0;
    }
    return (int)(((size_t)length - HEAD_BYTES) / sizeof(struct listed));
}

static bool overlaps(const struct listed *entry, const struct aiod_file_lock *lock)
{
    return entry->first <= lock->last && lock->first <= entry->last;
}

static bool is_covered(const struct listed *entry, const struct aiod_file_lock *by)
{
    return by->first <= entry->first && entry->last <= by->last;
}

/* Drop what the new lock covers, for the new entry says as much; and the oldest entry, if there is no room else. */
static int make_room(struct list *list, int count, const struct aiod_file_lock *lock)
{
    int kept = 0;

    for (int i = 0; i < count; i++) {
        if (!is_covered(&list->entries[i], lock)) {
            list->entries[kept++] = list->entries[i];
        }
    }
    if (kept == LISTED_MAX) {
        list->forgotten = list->entries[0].number;
        kept--;
        memmove(list->entries, list->entries + 1, (size_t)kept * sizeof(list->entries[0]));
    }
    return kept;
}

/* Add the lock, which is held, as the list's writers are: one at a time. Its number, or -errno. */
static int64_t add_to_list(int fd, const struct aiod_file_lock *lock)
{
    struct list list;
    int count = read_list(fd, &list);

    if (count < 0) {
        return count == -EOPNOTSUPP ? 0 : count;
    }
    count = make_room(&list, count, lock);
    list.entries[count++] = (struct listed){++list.newest, lock->first, lock->last};
    if (aiod_os->fsetxattr(fd, AIOD_LOCKS_XATTR, &list, HEAD_BYTES + (size_t)count * sizeof(list.entries[0])) < 0) {
        return errno == EOPNOTSUPP ? 0 : -errno;
    }
    return (int64_t)list.newest;
}

/*
 * Hold the byte behind the last one, while others may have exclusive locks of other ranges. Its holders need it for two
 * system calls; one that is stopped meanwhile makes the lock fail as one that is taken.
 */
static int take_guard(int fd)
{
    const struct timespec pause = {.tv_nsec = GUARD_PAUSE_NS};
    int error = -EAGAIN;

    for (int i = 0; i < GUARD_TRIES_MAX && error == -EAGAIN; i++) {
        if (i > 0) {
            nanosleep(&pause, NULL);
        }
        error = set_lock(fd, F_WRLCK, AIOD_LOCK_LAST + 1, AIOD_LOCK_LAST + 1);
    }
    return error;
}

static int64_t number_exclusive(int fd, const struct aiod_file_lock *lock)
{
    int64_t number;
    int error;

    if (lock->first == 0 && lock->last == AIOD_LOCK_LAST) {
        return add_to_list(fd, lock);
    }
    error = take_guard(fd);
    if (error < 0) {
        return error;
    }
    number = add_to_list(fd, lock);
    aiod_file_lock_release(fd, AIOD_LOCK_LAST + 1, AIOD_LOCK_LAST + 1);
    return number;
}

/* A shared lock leaves no trace: it may be that of a handle that must not change the file. */
static int64_t number_shared(int fd)
{
    struct list list;
    int count = read_list(fd, &list);

    if (count < 0) {
        return count == -EOPNOTSUPP ? 0 : count;
    }
    return (int64_t)list.newest;
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

static int64_t released_after(int fd, const struct aiod_file_lock *lock, int64_t result)
{
    if (result < 0) {
        aiod_file_lock_release(fd, lock->first, lock->last);
    }
    return result;
}

int64_t aiod_file_lock_take(int fd, const struct aiod_file_lock *lock)
{
    int error = set_lock(fd, lock->exclusive ? F_WRLCK : F_RDLCK, lock->first, lock->last);

    if (error < 0) {
        return error;
    }
    return released_after(fd, lock, lock->exclusive ? number_exclusive(fd, lock) : number_shared(fd));
}

/*
 * Was no overlapping exclusive lock taken after `number`? A list without entries was made by read_list() just now: then
 * no exclusive lock was ever taken, and `number` is that of a shared one.
 */
static bool is_unbroken(const struct list *list, int count, const struct aiod_file_lock *lock, uint64_t number)
{
    if (number == 0 || (count == 0 && lock->exclusive)) {
        return false;
    }
    if (count > 0 && (number < list->forgotten || number > list->newest)) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        if (list->entries[i].number > number && overlaps(&list->entries[i], lock)) {
            return false;
        }
    }
    return true;
}

/* 0, or -EOWNERDEAD, or another -errno. */
static int check_list(int fd, const struct aiod_file_lock *lock, uint64_t number)
{
    struct list list;
    int count = read_list(fd, &list);

    if (count < 0) {
        return count == -EOPNOTSUPP ? -EOWNERDEAD : count;
    }
    return is_unbroken(&list, count, lock, number) ? 0 : -EOWNERDEAD;
}

int64_t aiod_file_lock_regain(int fd, const struct aiod_file_lock *lock, uint64_t number)
{
    int error = set_lock(fd, lock->exclusive ? F_WRLCK : F_RDLCK, lock->first, lock->last);

    if (error == -EAGAIN) {
        /* of a later owner: lost at once; else perhaps of the client's own earlier host, which is not dead yet */
        error = check_list(fd, lock, number);
        return error < 0 ? error : -EAGAIN;
    }
    if (error < 0) {
        return error;
    }
    return released_after(fd, lock, check_list(fd, lock, number) < 0 ? -EOWNERDEAD : (int64_t)number);
}
