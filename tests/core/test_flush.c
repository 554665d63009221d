/* Flushes of one file: one at a time, those that wait share the next one, and a failure stays a failure. */
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
};

static struct aiod_pool *pool;
static struct aiod_flushes flushes;
static struct job jobs[FLUSHERS];

/* ---- a disk that answers when the test lets it ------------------------------------------------------------------------ */

static struct gate disk;
static _Atomic unsigned syncs;
static _Atomic unsigned failing_sync; /* which one fails, counted from 1; once, as the kernel tells */

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

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

static int64_t run_flush(struct aiod_request *request)
{
    return aiod_flushes_flush(&flushes, request, SUCCESS);
}

static int64_t fua_error = -EIO;

/* A write that is a flush of its own, by the descriptor of its handle, and waits at the disk as they do. */
static int64_t run_fua(struct aiod_request *request)
{
    bool mine = aiod_flush_begin(&flushes);

    CHECK(mine);
    return aiod_flush_end(&flushes, request, sync_once() < 0 ? fua_error : SUCCESS);
}

/* One that fails before it reaches the disk. */
static int64_t run_refused_fua(struct aiod_request *request)
{
    bool mine = aiod_flush_begin(&flushes);

    CHECK(mine);
    return aiod_flush_end(&flushes, request, fua_error);
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

/* The first one is at the disk, by `run`; the others are flushes that have come meanwhile, and hold no worker. */
static void crowd(int64_t (*run)(struct aiod_request *), unsigned failing)
{
    pool = make_pool(4, 0, 10000);
    aiod_flushes_init(&flushes, pool, FD);
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

static void let_go(void)
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

/* ---- what is promised -------------------------------------------------------------------------------------------------- */

static void those_that_wait_share_one(void)
{
    crowd(run_flush, 0);
    let_go();
    CHECK(jobs[0].request.result == SUCCESS && jobs[0].request.reason == AIOD_REASON_BY_KERNEL);
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(syncs == 2); /* not the first's: they came after it had begun */
    flush_once_more(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(syncs == 3);
    end();
}

static void a_waiting_one_cannot_be_cancelled(void)
{
    crowd(run_flush, 0);
    CHECK(!aiod_pool_cancel(pool, &jobs[FLUSHERS - 1].request));
    let_go();
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    end();
}

static void an_error_fails_all_that_share_it(void)
{
    crowd(run_flush, 2);
    let_go();
    CHECK(jobs[0].request.result == SUCCESS);
    check_all_but_first(-EIO, AIOD_REASON_BY_KERNEL);
    CHECK(aiod_flushes_poisoned(&flushes));
    flush_once_more(-EIO, AIOD_REASON_POISONED);
    CHECK(syncs == 2);
    end();
}

static void an_error_stays(void)
{
    crowd(run_flush, 1);
    let_go();
    CHECK(jobs[0].request.result == -EIO && jobs[0].request.reason == AIOD_REASON_BY_KERNEL);
    check_all_but_first(-EIO, AIOD_REASON_POISONED);
    CHECK(syncs == 1);
    end();
}

static void a_write_may_have_the_turn(void)
{
    crowd(run_fua, 0);
    CHECK(!aiod_flush_begin(&flushes));
    let_go();
    CHECK(jobs[0].request.result == SUCCESS);
    check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
    CHECK(syncs == 2);
    CHECK(aiod_flush_begin(&flushes));
    end();
}

/* The only worker is held up: flushes behind it in the queue are one batch, those of another file are not of it. */
static void those_in_the_queue_share_one_too(void)
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

/* EIO is not a disk's only word: of a medium error, a lost path or a SCSI target the kernel says others. */
static void its_error_stays_too(void)
{
    static const int64_t errors[] = {-EIO, -ENODATA, -ENOLINK, -EREMOTEIO, -EILSEQ, -ETIMEDOUT};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_fua, 1);
        let_go();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(-EIO, AIOD_REASON_POISONED);
        CHECK(syncs == 1);
        end();
    }
}

/* An errno of a refusal that came from the sync: the flush that looks for lost writes of others finds one. */
static void a_refusal_poisons_if_a_flush_then_fails(void)
{
    static const int64_t errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EROFS, -ENOMEM};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_refused_fua, 1);
        let_go();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(-EIO, AIOD_REASON_POISONED);
        CHECK(aiod_flushes_poisoned(&flushes));
        CHECK(syncs == 1);
        end();
    }
}

/* Without a description of its own for flushes no write may sync by itself: it would take their error. */
static void a_shared_description_is_for_flushes_alone(void)
{
    aiod_flushes_init(&flushes, NULL, FD);
    flushes.shares_description = true;
    CHECK(!aiod_flush_begin(&flushes));
    flushes.shares_description = false;
    CHECK(aiod_flush_begin(&flushes));
    aiod_flushes_destroy(&flushes);
}

/* What the kernel says before it writes anything; a flush confirms that nothing of others is lost. */
static void its_refusal_does_not(void)
{
    static const int64_t errors[] = {-ENOSPC, -EDQUOT, -EFBIG, -EINVAL, -EPERM, -ENOMEM};

    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        fua_error = errors[i];
        crowd(run_fua, 1);
        let_go();
        CHECK(jobs[0].request.result == errors[i]);
        check_all_but_first(SUCCESS, AIOD_REASON_BY_KERNEL);
        CHECK(!aiod_flushes_poisoned(&flushes));
        end();
    }
}

/* The first failure is said once, as a msgpack array; what else fails on the file is known by it. */
static void it_is_told(void)
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
    aiod_flushes_poison(&flushes); /* nobody is there any more */
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
    those_that_wait_share_one();
    a_waiting_one_cannot_be_cancelled();
    an_error_fails_all_that_share_it();
    an_error_stays();
    a_write_may_have_the_turn();
    its_error_stays_too();
    its_refusal_does_not();
    a_refusal_poisons_if_a_flush_then_fails();
    a_shared_description_is_for_flushes_alone();
    those_in_the_queue_share_one_too();
    it_is_told();
    return 0;
}
