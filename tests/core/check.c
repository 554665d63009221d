/* check.c - the checks, faults, gates and main loop of check.h. */
#include "check.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>

#include "pool/pool_state.h"

/* ---- gates ------------------------------------------------------------------------------------------------------- */

void gate_init(struct gate *gate, bool open)
{
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    gate->open = open;
    gate->waiting = 0;
}

void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

void gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->waiting++;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

void gate_wait_for(struct gate *gate, unsigned count)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};

    pthread_mutex_lock(&gate->lock);
    while (gate->waiting < count) {
        CHECK(pthread_cond_clockwait(&gate->changed, &gate->lock, CLOCK_MONOTONIC, &end) == 0);
    }
    pthread_mutex_unlock(&gate->lock);
}

/* ---- faults ------------------------------------------------------------------------------------------------------ */

struct faults faults;

static pthread_mutex_t creators_lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t creators[8192];
static size_t creators_count;
static uint64_t failed_ns[64]; /* the times of the first failures */
static size_t failed_count;

static void note_failure(void)
{
    pthread_mutex_lock(&creators_lock);
    if (failed_count < sizeof(failed_ns) / sizeof(*failed_ns)) {
        failed_ns[failed_count++] = aiod_now_ns();
    }
    pthread_mutex_unlock(&creators_lock);
}

static void note_creator(void)
{
    pthread_mutex_lock(&creators_lock);
    CHECK(creators_count < sizeof(creators) / sizeof(*creators));
    creators[creators_count++] = gettid();
    pthread_mutex_unlock(&creators_lock);
}

static int faulty_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
    struct gate *gate = faults.creations_gate;

    if (gate != NULL && gettid() != getpid()) {
        gate_pass(gate);
    }
    if (atomic_fetch_sub(&faults.creations_good, 1) <= 0 && atomic_fetch_sub(&faults.creations_bad, 1) > 0) {
        note_failure();
        return EAGAIN;
    }
    note_creator();
    return pthread_create(thread, attr, start, arg);
}

size_t creations_by(pid_t tid)
{
    size_t count = 0;

    pthread_mutex_lock(&creators_lock);
    for (size_t i = 0; i < creators_count; i++) {
        count += creators[i] == tid;
    }
    pthread_mutex_unlock(&creators_lock);
    return count;
}

size_t creations_total(void)
{
    size_t count;

    pthread_mutex_lock(&creators_lock);
    count = creators_count;
    pthread_mutex_unlock(&creators_lock);
    return count;
}

uint64_t creation_failed_ns(size_t index)
{
    uint64_t at_ns;

    pthread_mutex_lock(&creators_lock);
    CHECK(index < failed_count);
    at_ns = failed_ns[index];
    pthread_mutex_unlock(&creators_lock);
    return at_ns;
}

/* The fault of this transfer: an errno, or 0 with `bytes` reduced to what may be transferred. */
static int transfer_fault(size_t *bytes)
{
    size_t limit = faults.transfer_max;

    if (atomic_load(&faults.interrupts) > 0) {
        atomic_fetch_sub(&faults.interrupts, 1);
        return EINTR;
    }
    if (limit != 0 && *bytes > limit) {
        *bytes = limit;
    }
    if (faults.error != 0) {
        if (faults.error_after == 0) {
            return faults.error;
        }
        if (*bytes > faults.error_after) {
            *bytes = faults.error_after;
        }
        faults.error_after -= *bytes;
    }
    return 0;
}

/* Copy the first `bytes` bytes of `iov` to `cut`. The number of parts. */
static int cut_parts(struct iovec *cut, const struct iovec *iov, size_t bytes)
{
    int count = 0;

    do {
        cut[count] = iov[count];
        if (cut[count].iov_len > bytes) {
            cut[count].iov_len = bytes;
        }
        bytes -= cut[count++].iov_len;
    } while (bytes > 0);
    return count;
}

typedef ssize_t transfer(int fd, const struct iovec *iov, int count, off_t offset, int flags);

static ssize_t faulty_transfer(transfer *real, int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct iovec cut[IOV_MAX];
    size_t bytes = 0;

    CHECK(count <= IOV_MAX);
    for (int i = 0; i < count; i++) {
        bytes += iov[i].iov_len;
    }
    errno = transfer_fault(&bytes);
    return errno != 0 ? -1 : real(fd, cut, cut_parts(cut, iov, bytes), offset, flags);
}

static ssize_t faulty_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    faults.nowait_reads += (flags & RWF_NOWAIT) != 0;
    return faulty_transfer(preadv2, fd, iov, count, offset, flags);
}

static ssize_t faulty_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
    struct gate *gate = faults.writes_gate;

    if (gate != NULL && atomic_fetch_sub(&faults.writes_good, 1) <= 0) {
        gate_pass(gate);
    }
    if (atomic_load(&faults.empty_writes) > 0) {
        atomic_fetch_sub(&faults.empty_writes, 1);
        return 0;
    }
    return faulty_transfer(pwritev2, fd, iov, count, offset, flags);
}

static int faulty_fdatasync(int fd)
{
    if (atomic_load(&faults.interrupts) > 0) {
        atomic_fetch_sub(&faults.interrupts, 1);
        errno = EINTR;
        return -1;
    }
    errno = atomic_exchange(&faults.flush_error, 0);
    return errno != 0 ? -1 : fdatasync(fd);
}

static pthread_mutex_t allocators_lock = PTHREAD_MUTEX_INITIALIZER;
static char allocators[2][16]; /* the first thread, and one with another name */

static void note_allocator(void)
{
    char name[16] = "";

    prctl(PR_GET_NAME, name);
    pthread_mutex_lock(&allocators_lock);
    if (allocators[0][0] == '\0') {
        memcpy(allocators[0], name, sizeof(name));
    } else if (strcmp(allocators[0], name) != 0) {
        memcpy(allocators[1], name, sizeof(name));
    }
    pthread_mutex_unlock(&allocators_lock);
}

const char *allocator(void)
{
    const char *only;

    pthread_mutex_lock(&allocators_lock);
    only = allocators[1][0] == '\0' ? allocators[0] : NULL;
    pthread_mutex_unlock(&allocators_lock);
    return only;
}

static int faulty_fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct gate *gate = faults.allocations_gate;

    note_allocator();
    if (gate != NULL) {
        gate_pass(gate);
    }
    errno = atomic_exchange(&faults.allocation_error, 0);
    return errno != 0 ? -1 : fallocate(fd, mode, offset, length);
}

static int faulty_munmap(void *address, size_t length)
{
    note_allocator();
    return munmap(address, length);
}

static int faulty_uring_result(int result)
{
    int instead = faults.uring_result;

    if (instead == 0) {
        return result;
    }
    if (faults.uring_results_more > 0) {
        faults.uring_results_more--;
    } else {
        faults.uring_result = 0;
    }
    return instead;
}

static int faulty_add_seals(int fd, unsigned seals)
{
    return faults.unsealed ? 0 : aiod_os_real.add_seals(fd, seals);
}

static struct aiod_os faulty_os;

void faults_install(void)
{
    faulty_os = aiod_os_real;
    faulty_os.thread_create = faulty_create;
    faulty_os.preadv2 = faulty_preadv2;
    faulty_os.pwritev2 = faulty_pwritev2;
    faulty_os.fdatasync = faulty_fdatasync;
    faulty_os.fallocate = faulty_fallocate;
    faulty_os.munmap = faulty_munmap;
    faulty_os.add_seals = faulty_add_seals;
    faulty_os.uring_result = faulty_uring_result;
    aiod_os = &faulty_os;
    faults_reset();
}

void faults_reset(void)
{
    faults.creations_good = 1 << 30;
    faults.creations_bad = 0;
    faults.creations_gate = NULL;
    faults.interrupts = 0;
    faults.empty_writes = 0;
    faults.writes_gate = NULL;
    faults.writes_good = 0;
    faults.transfer_max = 0;
    faults.error_after = 0;
    faults.error = 0;
    faults.nowait_reads = 0;
    faults.unsealed = false;
    faults.allocations_gate = NULL;
    faults.allocation_error = 0;
    pthread_mutex_lock(&allocators_lock);
    memset(allocators, 0, sizeof(allocators));
    pthread_mutex_unlock(&allocators_lock);
    faults.flush_error = 0;
    faults.uring_result = 0;
    faults.uring_results_more = 0;
    pthread_mutex_lock(&creators_lock);
    creators_count = 0;
    failed_count = 0;
    pthread_mutex_unlock(&creators_lock);
}

/* ---- the main loop ----------------------------------------------------------------------------------------------- */

size_t reaped_total;

static void reap(struct aiod_pool *pool)
{
    struct aiod_request *done = aiod_pool_reap(pool);

    while (done != NULL) {
        struct aiod_request *next = done->next;

        CHECK(done->state == AIOD_DONE);
        reaped_total++;
        atomic_fetch_add(&((struct job *)done)->reaps, 1); /* last: a thread that sees it may reuse the job */
        done = next;
    }
}

bool loop_wait(struct aiod_pool *pool, int wait_ms)
{
    struct pollfd fds[2] = {
        {.fd = aiod_pool_doorbell_fd(pool), .events = POLLIN},
        {.fd = aiod_pool_completion_fd(pool), .events = POLLIN},
    };
    uint64_t wanted_ns = aiod_pool_tick_wanted(pool);

    if (wanted_ns != AIOD_POOL_NEVER && wanted_ns / 1000000 + 1 < (uint64_t)wait_ms) {
        wait_ms = (int)(wanted_ns / 1000000) + 1;
    }
    CHECK(poll(fds, 2, wait_ms) >= 0);
    if (fds[0].revents != 0) {
        aiod_pool_spawn(pool);
    }
    if (wanted_ns != AIOD_POOL_NEVER) {
        aiod_pool_tick(pool);
    }
    return fds[1].revents != 0;
}

void loop_once(struct aiod_pool *pool, int wait_ms)
{
    if (loop_wait(pool, wait_ms)) {
        reap(pool);
    }
}

void loop_until(struct aiod_pool *pool, bool (*done)(void *argument), void *argument)
{
    uint64_t end_ns = aiod_now_ns() + WAIT_MS * UINT64_C(1000000);

    while (!done(argument)) {
        CHECK(aiod_now_ns() < end_ns);
        loop_once(pool, 2);
    }
}

static bool reaped_enough(void *argument)
{
    return reaped_total >= *(size_t *)argument;
}

void loop_until_reaped(struct aiod_pool *pool, size_t count)
{
    loop_until(pool, reaped_enough, &count);
    CHECK(reaped_total == count);
}

struct arrival {
    struct gate *gate;
    unsigned count;
};

static bool have_come(void *argument)
{
    const struct arrival *arrival = argument;

    return arrival->gate->waiting >= arrival->count;
}

void loop_until_waiting(struct aiod_pool *pool, struct gate *gate, unsigned count)
{
    loop_until(pool, have_come, &(struct arrival){gate, count});
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static int64_t run_job(struct aiod_request *request)
{
    struct job *job = (struct job *)request;

    job->worker = gettid();
    if (job->gate != NULL) {
        gate_pass(job->gate);
    }
    atomic_fetch_add(&job->runs, 1);
    return job->answer;
}

void prepare_jobs(struct job *jobs, size_t count, struct gate *gate)
{
    uint64_t now_ns = aiod_now_ns();

    for (size_t i = 0; i < count; i++) {
        struct job *job = &jobs[i];
        uint64_t deadline_ns = job->request.deadline_ns;

        memset(job, 0, sizeof(*job));
        job->request.run = run_job;
        job->request.queued_ns = now_ns;
        job->request.deadline_ns = deadline_ns;
        job->request.next = i + 1 < count ? &jobs[i + 1].request : NULL;
        job->gate = gate;
        job->answer = 7;
    }
}

void submit_jobs(struct aiod_pool *pool, struct job *jobs, size_t count, struct gate *gate)
{
    prepare_jobs(jobs, count, gate);
    aiod_pool_submit(pool, &jobs->request, count);
}

/* ---- pools ------------------------------------------------------------------------------------------------------- */

struct aiod_pool *make_pool(unsigned max_threads, unsigned min_threads, uint64_t idle_timeout_ms)
{
    struct aiod_pool_config config = {
        .name = "main",
        .max_threads = max_threads,
        .min_threads = min_threads,
        .idle_timeout_ns = idle_timeout_ms * UINT64_C(1000000),
        .spawn_retry_ns = SPAWN_RETRY_NS,
    };
    struct aiod_pool *pool;

    reaped_total = 0;
    CHECK(aiod_pool_create(&pool, &config) == 0);
    return pool;
}

void end_pool(struct aiod_pool *pool)
{
    int posts;

    CHECK(check_invariants(pool).lost_wakeups == 0);
    CHECK(aiod_pool_stop(pool, WAIT_MS * UINT64_C(1000000)));
    reap(pool);
    CHECK(check_invariants(pool).cur_threads == 0);
    for (size_t i = 0; i < AIOD_THREADS_MAX; i++) { /* every worker has consumed its wake-up */
        CHECK(sem_getvalue(&pool->workers[i].wake, &posts) == 0 && posts == 0);
    }
    for (size_t i = 0; i < AIOD_SLOT_WORDS; i++) {
        CHECK(pool->used_slots[i] == 0);
    }
    aiod_pool_destroy(pool);
}

struct aiod_pool_stats check_invariants(struct aiod_pool *pool)
{
    struct aiod_pool_stats stats;

    aiod_pool_get_stats(pool, &stats);
    CHECK(stats.cur_threads == stats.idle_threads + stats.active_threads + stats.pending_threads + stats.new_threads);
    CHECK(stats.new_threads + stats.pending_threads <= stats.cur_threads);
    CHECK(stats.waking_threads <= stats.idle_threads);
    CHECK(stats.min_threads <= stats.max_threads && stats.max_threads <= AIOD_THREADS_MAX);
    /* No request waits for a worker while a worker sleeps without a wake-up on its way. */
    CHECK(stats.queued == stats.in_lanes || stats.waking_threads > 0 || stats.idle_threads == 0);
    CHECK(stats.lost_wakeups == 0);
    CHECK(stats.threads_peak <= AIOD_THREADS_MAX);
    CHECK(stats.created_for[AIOD_SPAWN_BURST] + stats.created_for[AIOD_SPAWN_MIN] +
              stats.created_for[AIOD_SPAWN_RETRY] ==
          stats.threads_created);
    CHECK((stats.longest_chain > 0) == (stats.threads_created > 0) && stats.longest_chain <= stats.threads_created);
    return stats;
}

struct wanted {
    struct aiod_pool *pool;
    bool (*is)(const struct aiod_pool_stats *stats);
};

static bool stats_are(void *argument)
{
    struct wanted *wanted = argument;
    struct aiod_pool_stats stats = check_invariants(wanted->pool);

    return wanted->is(&stats);
}

void loop_until_stats(struct aiod_pool *pool, bool (*wanted)(const struct aiod_pool_stats *stats))
{
    loop_until(pool, stats_are, &(struct wanted){pool, wanted});
}
