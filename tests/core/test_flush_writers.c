/* On FUSE a flush syncs each descriptor that was written through once, and others only when necessary. */
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
static int fds[WRITERS + 1]; /* the last one is the file's own descriptor */
static unsigned syncs[WRITERS + 1];
static int failing = -1; /* the index of the descriptor whose sync fails */
static void (*in_sync)(void);

static int which(int fd)
{
    struct stat wanted;
    struct stat status;

    CHECK(fstat(fd, &wanted) == 0);
    for (int i = 0; i <= WRITERS; i++) {
        if (fstat(fds[i], &status) == 0 && status.st_ino == wanted.st_ino) { /* a descriptor may be closed */
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

static void changed_descriptors_are_synced_once(void)
{
    begin();
    writers.inherited = true;
    aiod_flush_writer_mark_changed(&writers, &handles[0]);
    aiod_flush_writer_mark_changed(&writers, &handles[2]);
    aiod_flush_writer_mark_changed(&writers, &handles[2]);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(1, 0, 1, 1); /* the file's own descriptor may report an error of an earlier engine */
    aiod_flush_writer_mark_changed(&writers, &handles[1]);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(0, 1, 0, 0);
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    check_syncs(0, 0, 0, 1);
    CHECK(aiod_flush_writers_sync(&writers, -1) == 0);
    check_syncs(0, 0, 0, 0);
    aiod_flush_writers_destroy(&writers);
}

static void an_error_does_not_stop_other_syncs(void)
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

/* A change during a flush belongs to the next flush, and does not prolong this one. */
static void a_change_during_a_flush_is_for_the_next(void)
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

static void close_handle(void)
{
    in_sync = NULL;
    CHECK(!aiod_flush_writer_has_changes(&writers, &handles[0]));
    aiod_flush_writer_remove(&writers, &handles[0]);
    CHECK(close(fds[0]) == 0);
}

/*
 * The handle has no changes any more when its sync starts, so it can be closed; the sync uses a duplicate descriptor.
 */
static void a_handle_can_be_closed_during_a_flush(void)
{
    int kept = dup(fds[0]);

    begin();
    aiod_flush_writer_mark_changed(&writers, &handles[0]);
    in_sync = close_handle;
    CHECK(aiod_flush_writers_sync(&writers, fds[OWN]) == 0);
    CHECK(dup2(kept, fds[0]) == fds[0] && close(kept) == 0);
    check_syncs(1, 0, 0, 0);
    aiod_flush_writers_destroy(&writers);
}

static void an_unused_writer_is_ignored(void)
{
    struct aiod_flush_writer none = {0};

    begin();
    aiod_flush_writer_mark_changed(&writers, &none);
    CHECK(!aiod_flush_writer_has_changes(&writers, &none));
    aiod_flush_writer_remove(&writers, &none);
    aiod_flush_writers_destroy(&writers);
}

static void no_durable_write_on_fuse(void)
{
    struct aiod_flushes flushes;

    aiod_flushes_init(&flushes, NULL, fds[OWN]);
    flushes.by_writers = true;
    CHECK(!aiod_flushes_begin_durable_write(&flushes));
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
    changed_descriptors_are_synced_once();
    an_error_does_not_stop_other_syncs();
    a_change_during_a_flush_is_for_the_next();
    a_handle_can_be_closed_during_a_flush();
    an_unused_writer_is_ignored();
    no_durable_write_on_fuse();
    return 0;
}
