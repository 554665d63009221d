/* Flushes of one file: one at a time, waiting ones share the next one, and a failure is permanent. */
#include "check.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ops/flush.h"

enum {
    FLUSHERS = 8,
    SUCCESS = 4096,
    FD = 7,
    SIZE_OF_CROWD = 3, /* FLUSHERS - 1 requests: more than 4, at most 8 */
};

static struct aiod_pool *pool;
static struct aiod_flushes flushes;
static struct aiod_flush_groups groups;
static struct job jobs[FLUSHERS];

/* ---- a disk that answers when the test permits it ---------------------------------------------------------------- */

static struct gate disk;
static _Atomic unsigned syncs;
/* the number of the flush that fails, from 1; once, as the kernel reports an error */
static _Atomic unsigned failing_sync;

static int sync_once(void)
{
    unsigned number = ++syncs;

    gate_pass(&disk);
    errno = EIO;
    return number == failing_sync ? -1 : 0;
}

static int slow_fdatasync(int fd)
{
    CHECK(fd == FD);
    return sync_once();
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static _Atomic int64_t returned; /* by the last flush */

static int64_t run_flush(struct aiod_request *request)
{
    int64_t result = aiod_flushes_flush(&flushes, request, SUCCESS);

    returned = result;
    return result;
}

static int64_t fua_error = -EIO;

/* A write with RWF_DSYNC through its handle's descriptor, which waits at the disk like a flush. */
static int64_t run_fua(struct aiod_request *request)
{
    bool mine = aiod_flushes_begin_durable_write(&flushes);

    CHECK(mine);
    return aiod_flushes_end_durable_write(&flushes, request, sync_once() < 0 ? fua_error : SUCCESS);
}

/* A write that fails before it reaches the disk. */
static int64_t run_refused_fua(struct aiod_request *request)
{
    bool mine = aiod_flushes_begin_durable_write(&flushes);

    CHECK(mine);
    return aiod_flushes_end_durable_write(&flushes, request, fua_error);
}

static void submit(struct job *job, int64_t (*run)(struct aiod_request *))
{
    *job = (struct job){.request = {.run = run, .queued_ns = aiod_now_ns()}};
    aiod_pool_submit(pool, &job->request, 1);
}

static bool one_is_at_work(const struct aiod_pool_stats *stats)
{
    return stats->queued == 0 && stats->active_threads == 1 && stats->pending_threads == 0 && stats->new_threads == 0;
}

/* The first request is at the disk, by `run`; the others are flushes that arrived meanwhile, and hold no worker. */
static void crowd(int64_t (*run)(struct aiod_request *), unsigned failing)
{
    pool = make_pool(4, 0, 10000);
    aiod_flushes_init(&flushes, pool, FD);
    groups = (struct aiod_flush_groups){0};
    flushes.groups = &groups;
    gate_init(&disk, false);
    syncs = 0;
    failing_sync = failing;
    submit(&jobs[0], run);
    loop_until_waiting(pool, &disk, 1);
    for (size_t i = 1; i < FLUSHERS; i++) {
        submit(&jobs[i], run_flush);
    }
    loop_until_stats(pool, one_is_at_work);
    CHECK(syncs == 1 && reaped_total == 0);
}

static void release_disk(void)
{
    gate_open(&disk);
    loop_until_reaped(pool, FLUSHERS);
}

static void check_all_but_first(int64_t result, enum aiod_reason reason)
{
    for (size_t i = 1; i < FLUSHERS; i++) {
        CHECK(jobs[i].request.result == result && jobs[i].request.reason == reason && jobs[i].reaps == 1);
    }
}

static void flush_once_more(int64_t result, enum aiod_reason reason)
{
    submit(&jobs[0], run_flush);
    loop_until_reaped(pool, FLUSHERS + 1);
    CHECK(jobs[0].request.result == result && jobs[0].request.reason == reason);
}

static void end(void)
{
    end_pool(pool);
    aiod_flushes_destroy(&flushes);
}

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

static void waiting_flushes_share_one(void)
{
    crowd(run_flush, 0);
    release_disk();
    CHECK(jobs[0].request.result == SUCCESS && jobs[0].request.reason == AIOD_REASON_BY_KERNEL);
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(syncs == 2); /* a second sync, because they arrived after the first one had started */
    flush_once_more(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(returned == SUCCESS); /* its worker delivers it when it is available again */
    CHECK(syncs == 3);
    CHECK(groups.counts[0] == 2 && groups.counts[SIZE_OF_CROWD] == 1 && groups.requests == FLUSHERS + 1);
    end();
}

static void a_parked_flush_cannot_be_cancelled(void)
{
    crowd(run_flush, 0);
    CHECK(!aiod_pool_cancel(pool, &jobs[FLUSHERS - 1].request));
    release_disk();
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    end();
}

static void an_error_fails_all_sharing_flushes(void)
{
    crowd(run_flush, 2);
    release_disk();
    CHECK(jobs[0].request.result == SUCCESS);
    check_all_but_first(-EIO, AIOD_REASON_BY_KERNEL);
    CHECK(aiod_flushes_poisoned(&flushes));
    flush_once_more(-EIO, AIOD_REASON_POISONED);
    CHECK(syncs == 2);
    end();
}

static void a_failed_flush_poisons_the_file(void)
{
    crowd(run_flush, 1);
    release_disk();
    CHECK(jobs[0].request.result == -EIO && jobs[0].request.reason == AIOD_REASON_BY_KERNEL);
    check_all_but_first(-EIO, AIOD_REASON_POISONED);
    CHECK(syncs == 1);
    end();
}

static void a_durable_write_takes_the_turn(void)
{
    crowd(run_fua, 0);
    CHECK(!aiod_flushes_begin_durable_write(&flushes));
    release_disk();
    CHECK(jobs[0].request.result == SUCCESS);
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(syncs == 2);
    CHECK(aiod_flushes_begin_durable_write(&flushes));
    end();
}

/* The only worker is busy: queued flushes of the file form one batch, without those of another file. */
static void queued_flushes_share_one(void)
{
    static struct job blocker;
    static int other_group;
    struct gate gate;

    pool = make_pool(1, 0, 10000);
    aiod_flushes_init(&flushes, pool, FD);
    gate_init(&disk, true);
    syncs = failing_sync = 0;
    gate_init(&gate, false);
    submit_jobs(pool, &blocker, 1, &gate);
    loop_until_waiting(pool, &gate, 1);
    for (size_t i = 0; i < FLUSHERS; i++) {
        jobs[i] = (struct job){.request = {.run = run_flush, .queued_ns = aiod_now_ns(), .group = &flushes}};
    }
    jobs[3].request.group = &other_group;
    jobs[4].request.deadline_ns = 1;
    for (size_t i = 0; i < FLUSHERS; i++) {
        aiod_pool_submit(pool, &jobs[i].request, 1);
    }
    gate_open(&gate);
    loop_until_reaped(pool, FLUSHERS + 1);
    CHECK(syncs == 2);
    CHECK(jobs[4].request.result == -ETIMEDOUT && jobs[4].request.started_ns == 0);
    CHECK(jobs[0].request.result == SUCCESS && jobs[7].request.result == 0);
    end();
}

/* Disks report other errors than EIO: for a medium error, a lost path or a SCSI target. */
static void a_failed_durable_write_poisons_the_file(void)
{
    static const int64_t errors[] = {-EIO, -ENODATA, -ENOLINK, -EREMOTEIO, -EILSEQ, -ETIMEDOUT};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_fua, 1);
        release_disk();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(-EIO, AIOD_REASON_POISONED);
        CHECK(syncs == 1);
        end();
    }
}

/* The sync failed with an errno that a refusal also has: the following flush finds that other writes were lost. */
static void a_refused_durable_write_poisons_if_a_flush_fails(void)
{
    static const int64_t errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EROFS, -ENOMEM};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_refused_fua, 1);
        release_disk();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(-EIO, AIOD_REASON_POISONED);
        CHECK(aiod_flushes_poisoned(&flushes));
        CHECK(syncs == 1);
        end();
    }
}

/* Without a description of its own for flushes no write may sync by itself, because it would consume their error. */
static void a_shared_description_forbids_durable_writes(void)
{
    aiod_flushes_init(&flushes, NULL, FD);
    flushes.shares_description = true;
    CHECK(!aiod_flushes_begin_durable_write(&flushes));
    flushes.shares_description = false;
    CHECK(aiod_flushes_begin_durable_write(&flushes));
    aiod_flushes_destroy(&flushes);
}

/* A write that the kernel refuses before it writes; a flush confirms that no other write was lost. */
static void a_refused_durable_write_does_not_poison(void)
{
    static const int64_t errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EINVAL, -EPERM, -ENOMEM};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_fua, 1);
        release_disk();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
        CHECK(!aiod_flushes_poisoned(&flushes));
        end();
    }
}

/* The first failure is sent once, as a msgpack array; later failures of the file are not. */
static void the_first_failure_is_sent_once(void)
{
    static const uint8_t wanted[28 + 1] = "\x93\xa8poisoned\xcf\0\0\0\0\0\0\1\2\xcf\0\0\0\0\0\0\0\3";
    uint8_t said[64];
    int ends[2];

    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends) == 0);
    aiod_flushes_init(&flushes, NULL, FD);
    flushes.dev = 0x102;
    flushes.ino = 3;
    flushes.notice_fd = ends[0];
    aiod_flushes_poison(&flushes);
    aiod_flushes_poison(&flushes);
    CHECK(recv(ends[1], said, sizeof(said), 0) == sizeof(wanted) - 1 && memcmp(said, wanted, sizeof(wanted) - 1) == 0);
    CHECK(recv(ends[1], said, sizeof(said), 0) < 0);
    close(ends[1]);
    aiod_flushes_destroy(&flushes);
    aiod_flushes_init(&flushes, NULL, FD);
    flushes.notice_fd = ends[0];
    aiod_flushes_poison(&flushes); /* the receiver has gone */
    CHECK(aiod_flushes_poisoned(&flushes));
    aiod_flushes_destroy(&flushes);
    close(ends[0]);
}

int main(void)
{
    struct aiod_os os;

    faults_install();
    os = *aiod_os;
    os.fdatasync = slow_fdatasync;
    aiod_os = &os;
    waiting_flushes_share_one();
    a_parked_flush_cannot_be_cancelled();
    an_error_fails_all_sharing_flushes();
    a_failed_flush_poisons_the_file();
    a_durable_write_takes_the_turn();
    a_failed_durable_write_poisons_the_file();
    a_refused_durable_write_does_not_poison();
    a_refused_durable_write_poisons_if_a_flush_fails();
    a_shared_description_forbids_durable_writes();
    queued_flushes_share_one();
    the_first_failure_is_sent_once();
    return 0;
}
