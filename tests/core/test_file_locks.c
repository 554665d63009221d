/* Locks of a file conflict between its descriptions; one that was dropped is regained unless another came in between. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "ops/file_locks.h"
#include "scratch.h"
#include "util/os.h"

static struct aiod_os os;
static int one;
static int other;

/* What the kernel is made to answer; 0: what it does. */
static int lock_error;
static int get_error;
static int set_error;

static int failing_setlk(int fd, struct flock *lock)
{
    if (lock_error != 0 && lock->l_type != F_UNLCK) {
        errno = lock_error;
        return -1;
    }
    return aiod_os_real.ofd_setlk(fd, lock);
}

static ssize_t failing_get(int fd, const char *name, void *value, size_t size)
{
    if (get_error != 0) {
        errno = get_error;
        return -1;
    }
    return aiod_os_real.fgetxattr(fd, name, value, size);
}

static int failing_set(int fd, const char *name, const void *value, size_t size)
{
    if (set_error != 0) {
        errno = set_error;
        return -1;
    }
    return aiod_os_real.fsetxattr(fd, name, value, size);
}

static void begin(void)
{
    lock_error = get_error = set_error = 0;
    one = scratch_file(0);
    other = open_again(one, 0);
}

static void end(void)
{
    close(one);
    close(other);
}

static struct aiod_file_lock range(uint64_t first, uint64_t last)
{
    return (struct aiod_file_lock){first, last, true};
}

static const struct aiod_file_lock whole = {0, AIOD_LOCK_LAST, true};
static const struct aiod_file_lock whole_shared = {0, AIOD_LOCK_LAST, false};

static int64_t take(int fd, struct aiod_file_lock lock)
{
    return aiod_file_lock_take(fd, &lock);
}

static int64_t regain(int fd, struct aiod_file_lock lock, int64_t number)
{
    return aiod_file_lock_regain(fd, &lock, (uint64_t)number);
}

static void drop(int fd, struct aiod_file_lock lock)
{
    CHECK(aiod_file_lock_release(fd, lock.first, lock.last) == 0);
}

/* Take and drop it: its number. */
static int64_t pass(int fd, struct aiod_file_lock lock)
{
    int64_t number = take(fd, lock);

    CHECK(number > 0);
    drop(fd, lock);
    return number;
}

static void conflicts(void)
{
    begin();
    CHECK(take(one, range(0, 9)) > 0);
    CHECK(take(other, range(9, 20)) == -EAGAIN);
    CHECK(take(other, whole_shared) == -EAGAIN);
    CHECK(take(other, range(10, 20)) > 0);
    drop(one, range(0, 9));
    CHECK(take(other, range(0, 9)) > 0);
    drop(other, whole);
    CHECK(take(one, whole_shared) > 0 && take(other, whole_shared) > 0);
    CHECK(take(other, whole) == -EAGAIN);
    end();
}

static void the_end_of_a_description_drops_its_locks(void)
{
    begin();
    CHECK(take(one, whole) > 0 && take(other, whole) == -EAGAIN);
    close(one);
    CHECK(take(other, whole) > 0);
    one = open_again(other, 0);
    end();
}

static int open_for(int fd, int flags)
{
    char name[64];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    return open(name, flags | O_CLOEXEC);
}

static void access_modes(void)
{
    int reader;
    int writer;

    begin();
    reader = open_for(one, O_RDONLY);
    writer = open_for(one, O_WRONLY);
    CHECK(take(reader, whole) == -EBADF && take(writer, whole_shared) == -EBADF);
    CHECK(take(reader, whole_shared) > 0);
    close(reader);
    CHECK(take(writer, whole) > 0);
    close(writer);
    end();
}

static void regained_if_nobody_came(void)
{
    int64_t number;

    begin();
    number = pass(one, range(0, 9));
    CHECK(regain(other, range(0, 9), number) == number);
    CHECK(take(one, range(5, 5)) == -EAGAIN);
    drop(other, whole);
    pass(one, range(10, 19));
    CHECK(take(one, whole_shared) > 0);
    drop(one, whole_shared);
    CHECK(regain(other, range(0, 9), number) == number);
    end();
}

static void lost_if_another_came(void)
{
    int64_t number;
    int64_t shared;

    begin();
    number = pass(one, range(0, 9));
    pass(other, range(9, 9));
    CHECK(regain(one, range(0, 9), number) == -EOWNERDEAD);
    CHECK(take(other, whole) > 0); /* the failure has left nothing behind */
    drop(other, whole);
    shared = pass(one, whole_shared);
    CHECK(regain(one, whole_shared, shared) == shared);
    drop(one, whole);
    pass(other, range(100, 100));
    CHECK(regain(one, whole_shared, shared) == -EOWNERDEAD);
    end();
}

static void a_later_owner_means_lost_an_earlier_one_wait(void)
{
    int64_t number;

    begin();
    number = pass(one, whole);
    CHECK(regain(other, whole, number) == number); /* stands for the client's dead host */
    CHECK(regain(one, whole, number) == -EAGAIN);
    drop(other, whole);
    CHECK(take(other, whole) > 0);
    CHECK(regain(one, whole, number) == -EOWNERDEAD);
    end();
}

static void shared_locks_leave_no_trace(void)
{
    int64_t number;
    char value[16];

    begin();
    number = pass(one, whole_shared);
    CHECK(fgetxattr(one, AIOD_LOCKS_XATTR, value, sizeof(value)) < 0 && errno == ENODATA);
    CHECK(regain(other, whole_shared, number) == number);
    drop(other, whole);
    pass(one, range(3, 3));
    CHECK(regain(other, whole_shared, number) == -EOWNERDEAD);
    end();
}

static void a_list_that_overflows_forgets(void)
{
    int64_t first;
    int64_t late = 0;

    begin();
    first = pass(one, range(1000, 1000));
    for (uint64_t i = 0; i < 31; i++) {
        late = pass(other, range(i * 2, i * 2));
    }
    CHECK(regain(one, range(1000, 1000), first) == first);
    drop(one, whole);
    for (uint64_t i = 0; i < 10; i++) { /* the same ranges again: entries that are covered make room */
        late = pass(other, range(i * 2, i * 2));
    }
    CHECK(regain(one, range(1000, 1000), first) == first);
    drop(one, whole);
    pass(other, range(2000, 2000));
    pass(other, range(2002, 2002));
    CHECK(regain(one, range(1000, 1000), first) == -EOWNERDEAD);
    CHECK(regain(one, range(18, 18), late) == late);
    end();
}

static void a_list_made_anew_gives_no_number_again(void)
{
    int64_t number;

    begin();
    number = pass(one, whole);
    CHECK(fremovexattr(one, AIOD_LOCKS_XATTR) == 0);
    CHECK(regain(one, whole, number) == -EOWNERDEAD);
    CHECK(pass(other, range(7, 7)) > number);
    CHECK(regain(one, range(0, 0), number) == -EOWNERDEAD);
    CHECK(fsetxattr(one, AIOD_LOCKS_XATTR, "strange", 7, 0) == 0);
    CHECK(regain(one, whole, number) == -EOWNERDEAD && pass(one, whole) > number);
    end();
}

static void without_attributes_nothing_is_regained(void)
{
    begin();
    get_error = EOPNOTSUPP;
    CHECK(take(one, whole) == 0 && take(other, whole) == -EAGAIN);
    drop(one, whole);
    CHECK(regain(one, whole, 1) == -EOWNERDEAD && take(other, whole) == 0);
    drop(other, whole);
    get_error = 0;
    set_error = EOPNOTSUPP;
    CHECK(take(one, range(0, 0)) == 0);
    drop(one, whole);
    CHECK(regain(one, whole_shared, 0) == -EOWNERDEAD);
    end();
}

/* Nobody would learn of the lock later: so it is not taken. */
static void a_lock_that_cannot_be_listed_fails(void)
{
    begin();
    set_error = ENOSPC;
    CHECK(take(one, whole) == -ENOSPC && take(one, range(4, 5)) == -ENOSPC);
    set_error = 0;
    CHECK(take(other, whole) > 0);
    drop(other, whole);
    get_error = EIO;
    CHECK(take(one, whole_shared) == -EIO && regain(one, whole, 7) == -EOWNERDEAD);
    get_error = 0;
    CHECK(take(other, whole) > 0);
    end();
}

static void the_list_has_one_writer(void)
{
    struct flock guard = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)AIOD_LOCK_LAST + 1, .l_len = 1};

    begin();
    CHECK(fcntl(other, F_OFD_SETLK, &guard) == 0);
    CHECK(take(one, range(0, 0)) == -EAGAIN);
    CHECK(take(one, whole_shared) > 0); /* which writes nothing */
    drop(one, whole_shared);
    guard.l_type = F_UNLCK;
    CHECK(fcntl(other, F_OFD_SETLK, &guard) == 0);
    CHECK(take(one, range(0, 0)) > 0 && take(other, range(1, 1)) > 0);
    end();
}

static void a_file_system_without_locks_says_so(void)
{
    const int errors[] = {ENOLCK, EOPNOTSUPP, EINVAL};

    begin();
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        lock_error = errors[i];
        CHECK(take(one, whole) == -errors[i] && regain(one, whole, 1) == -errors[i]);
    }
    end();
}

/* ---- chance, against a model ------------------------------------------------------------------------------------- */

enum {
    OWNERS = 4,
    BYTES = 12,
    ROUNDS = 4000
};

struct owner {
    int fd;
    bool held;   /* by the kernel */
    bool claims; /* it was held, and nobody has told the owner otherwise */
    struct aiod_file_lock lock;
    int64_t number;
    bool broken; /* an overlapping exclusive lock was taken since */
};

static bool overlap(const struct aiod_file_lock *a, const struct aiod_file_lock *b)
{
    return a->first <= b->last && b->first <= a->last;
}

static bool is_free(const struct owner *owners, int me, const struct aiod_file_lock *lock)
{
    for (int i = 0; i < OWNERS; i++) {
        if (i != me && owners[i].held && overlap(&owners[i].lock, lock) &&
            (lock->exclusive || owners[i].lock.exclusive)) {
            return false;
        }
    }
    return true;
}

static void break_claims(struct owner *owners, int me)
{
    for (int i = 0; i < OWNERS; i++) {
        if (i != me && owners[me].lock.exclusive && owners[i].claims && overlap(&owners[i].lock, &owners[me].lock)) {
            owners[i].broken = true;
        }
    }
}

static void take_any(struct owner *owners, int me)
{
    struct owner *owner = &owners[me];
    uint64_t first = (uint64_t)(rand() % BYTES);
    struct aiod_file_lock lock = {first, first + (uint64_t)(rand() % 4), rand() % 2 == 0};
    int64_t number = take(owner->fd, lock);

    CHECK((number > 0) == is_free(owners, me, &lock) && (number > 0 || number == -EAGAIN));
    if (number > 0) {
        *owner = (struct owner){owner->fd, true, true, lock, number, false};
        break_claims(owners, me);
    }
}

/* Regained only if nothing broke the claim; a list that has overflowed may say no, but never yes. */
static int regain_claim(struct owner *owners, int me)
{
    struct owner *owner = &owners[me];
    bool possible = is_free(owners, me, &owner->lock);
    int64_t number = regain(owner->fd, owner->lock, owner->number);
    bool regained = number == owner->number;

    CHECK(!regained || (possible && !owner->broken));
    CHECK(regained || number == -EOWNERDEAD || (number == -EAGAIN && !possible));
    owner->held = regained;
    owner->claims = regained || number == -EAGAIN;
    return regained;
}

static void chance(void)
{
    struct owner owners[OWNERS] = {{0}};
    int regained = 0;

    begin();
    srand(1);
    for (int i = 0; i < OWNERS; i++) {
        owners[i].fd = open_again(one, 0);
    }
    for (int round = 0; round < ROUNDS; round++) {
        int me = rand() % OWNERS;
        struct owner *owner = &owners[me];

        if (!owner->claims) {
            take_any(owners, me);
        } else if (!owner->held) {
            regained += regain_claim(owners, me);
        } else if (rand() % 2 == 0) { /* its host dies */
            close(owner->fd);
            owner->fd = open_again(one, 0);
            owner->held = false;
        } else {
            drop(owner->fd, owner->lock);
            owner->held = owner->claims = false;
        }
    }
    CHECK(regained > ROUNDS / 20);
    for (int i = 0; i < OWNERS; i++) {
        close(owners[i].fd);
    }
    end();
}

int main(void)
{
    os = aiod_os_real;
    os.ofd_setlk = failing_setlk;
    os.fgetxattr = failing_get;
    os.fsetxattr = failing_set;
    aiod_os = &os;
    conflicts();
    the_end_of_a_description_drops_its_locks();
    access_modes();
    regained_if_nobody_came();
    lost_if_another_came();
    a_later_owner_means_lost_an_earlier_one_wait();
    shared_locks_leave_no_trace();
    a_list_that_overflows_forgets();
    a_list_made_anew_gives_no_number_again();
    without_attributes_nothing_is_regained();
    a_lock_that_cannot_be_listed_fails();
    the_list_has_one_writer();
    a_file_system_without_locks_says_so();
    chance();
    return 0;
}
