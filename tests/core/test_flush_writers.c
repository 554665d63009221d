/* On FUSE a flush goes by each descriptor that was written through, once, and by no other unless it has to. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ops/flush.h"
#include "ops/flush_writers.h"

enum {
    WRITERS = 3,
    OWN = WRITERS
};

static struct aiod_flush_writers writers;
static struct aiod_flush_writer handles[WRITERS];
static int fds[WRITERS + 1]; /* the last one is the file's own */
static unsigned syncs[WRITERS + 1];
static int failing = -1; /* which one's sync fails */
static void (*in_sync)(void);

static int which(int fd)
{
    struct stat wanted;
    struct stat status;

    CHECK(fstat(fd, &wanted) == 0);
    for (int i = 0; i <= WRITERS; i++) {
        if (fstat(fds[i], &status) == 0 && status.st_ino == wanted.st_ino) { /* one may be closed */
            return i;
        }
    }
    CHECK(false);
    return -1;
}

static int counted_fdatasync(int fd)
{
    int number = which(fd);

    syncs[number]++;
    if (in_sync != NULL) {
        in_sync();
    }
    errno = EIO;
    return number == failing ? -1 : 0;
}

static void begin(void)
{
    aiod_flush_writers_init(&writers);
    for (int i = 0; i < WRITERS; i++) {
        aiod_flush_writer_add(&handles[i], fds[i]);
    }
    memset(syncs, 0, sizeof(syncs));
    failing = -1;
    in_sync = NULL;
}

static void check_syncs(unsigned first, unsigned second, unsigned third, unsigned own)
{
    CHECK(syncs[0] == first && syncs[1] == second && syncs[2] == third && syncs[OWN] == own);
    memset(syncs, 0, sizeof(syncs));
}

static void those_that_have_changed_it_are_synced_once(void)
{
    begin();
    writers.inherited = true;
    aiod_flush_writer_mark_changed(&writers, &handles[0]);
    aiod_flush_writer_mark_changed(&writers, &handles[2]);
    aiod_flush_writer_mark_changed(&writers, &handles[2]);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(1, 0, 1, 1); /* the file's own may know of what another engine has lost */
    aiod_flush_writer_mark_changed(&writers, &handles[1]);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(0, 1, 0, 0);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(0, 0, 0, 1);
    CHECK(aiod_flush_writers_sync(&writers, -1) == 0);
    check_syncs(0, 0, 0, 0);
    aiod_flush_writers_destroy(&writers);
}

static void an_error_of_one_keeps_none_from_being_synced(void)
{
    begin();
    for (failing = 0; failing <= OWN; failing++) {
        aiod_flush_writer_mark_changed(&writers, &handles[0]);
        aiod_flush_writer_mark_changed(&writers, &handles[1]);
        CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == (failing < 2 ? -EIO : 0));
        check_syncs(1, 1, 0, 0);
    }
    failing = OWN;
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == -EIO);
    aiod_flush_writers_destroy(&writers);
}

static void change_all(void)
{
    for (int i = 0; i < WRITERS; i++) {
        aiod_flush_writer_mark_changed(&writers, &handles[i]);
    }
}

/* What is changed while a flush runs is the next one's, and does not keep this one for ever. */
static void a_change_meanwhile_is_for_the_next_flush(void)
{
    begin();
    change_all();
    in_sync = change_all;
    CHECK(aiod_flush_writers_sync(&writers, -1) == 0);
    check_syncs(1, 1, 1, 0);
    in_sync = NULL;
    CHECK(aiod_flush_writers_sync(&writers, -1) == 0);
    check_syncs(1, 1, 1, 0);
    aiod_flush_writers_destroy(&writers);
}

static void close_it(void)
{
    in_sync = NULL;
    CHECK(!aiod_flush_writer_has_changes(&writers, &handles[0]));
    aiod_flush_writer_remove(&writers, &handles[0]);
    CHECK(close(fds[0]) == 0);
}

/* It has no changes any more when its sync begins, so nothing keeps it open; the sync goes on, by a descriptor of its own. */
static void a_handle_may_be_closed_meanwhile(void)
{
    int kept = dup(fds[0]);

    begin();
    aiod_flush_writer_mark_changed(&writers, &handles[0]);
    in_sync = close_it;
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    CHECK(dup2(kept, fds[0]) == fds[0] && close(kept) == 0);
    check_syncs(1, 0, 0, 0);
    aiod_flush_writers_destroy(&writers);
}

static void one_that_never_entered_is_left_alone(void)
{
    struct aiod_flush_writer none = {0};

    begin();
    aiod_flush_writer_mark_changed(&writers, &none);
    CHECK(!aiod_flush_writer_has_changes(&writers, &none));
    aiod_flush_writer_remove(&writers, &none);
    aiod_flush_writers_destroy(&writers);
}

static void no_write_syncs_by_itself_there(void)
{
    struct aiod_flushes flushes;

    aiod_flushes_init(&flushes, NULL, fds[OWN]);
    flushes.by_writers = true;
    CHECK(!aiod_flush_begin(&flushes));
    aiod_flushes_destroy(&flushes);
}

int main(void)
{
    struct aiod_os os = *aiod_os;

    os.fdatasync = counted_fdatasync;
    aiod_os = &os;
    for (int i = 0; i <= WRITERS; i++) {
        fds[i] = memfd_create("file", MFD_CLOEXEC);
        CHECK(fds[i] >= 0);
    }
    those_that_have_changed_it_are_synced_once();
    an_error_of_one_keeps_none_from_being_synced();
    a_change_meanwhile_is_for_the_next_flush();
    a_handle_may_be_closed_meanwhile();
    one_that_never_entered_is_left_alone();
    no_write_syncs_by_itself_there();
    return 0;
}
