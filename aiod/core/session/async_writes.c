/* async_writes.c - decides whether writes are started (async_writes.h). */
#include "session/async_writes.h"

#include <stdatomic.h>
#include <sys/stat.h>

#include "util/os.h"

#define BESIDE_READS 64u

#define TRIAL 128u         /* writes of a trial, and of the other way before the first one */
#define COUNT_MIN 32u      /* writes that a mean needs before it is compared */
#define COUNT_MAX 1000000u /* no need to count further */
#define MEAN_OF 32u        /* writes, about */
#define NS_MAX UINT64_C(1000000000)
/* Writes between two trials: twice as many each, while the same way is faster. */
#define PAUSE_MIN 512u
#define PAUSE_MAX 65536u
#define PAUSE_SLOWER 4096u /* at most, when writes that are started have become twice as slow */

/* So many of the next writes are started, because a read came before. Of the process: an engine has one pool. */
static atomic_uint beside_reads;

#define get(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define set(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

void aiod_async_writes_learn(struct aiod_async_writes *writes, int fd)
{
    struct stat status;
    uint8_t to;

    if (get(writes->to) != AIOD_ASYNC_WRITES_TO_UNKNOWN || aiod_os->fstat(fd, &status) < 0) {
        return;
    }
    to = S_ISBLK(status.st_mode) ? AIOD_ASYNC_WRITES_TO_DEVICE : AIOD_ASYNC_WRITES_TO_FILE;
    set(writes->to, to);
}

/* ---- writes among reads ------------------------------------------------------------------------------------------ */

void aiod_async_writes_note_read(void)
{
    if (atomic_load_explicit(&beside_reads, memory_order_relaxed) != BESIDE_READS) {
        atomic_store_explicit(&beside_reads, BESIDE_READS, memory_order_relaxed);
    }
}

static bool take_place_beside_reads(void)
{
    unsigned left = atomic_load_explicit(&beside_reads, memory_order_relaxed);

    if (left > 0) {
        atomic_store_explicit(&beside_reads, left - 1, memory_order_relaxed);
    }
    return left > 0;
}

/* ---- writes alone: the faster way -------------------------------------------------------------------------------- */

static uint8_t other_than(uint8_t way)
{
    return way == AIOD_ASYNC_WRITES_STARTED ? AIOD_ASYNC_WRITES_BY_WORKER : AIOD_ASYNC_WRITES_STARTED;
}

static void begin_trial(struct aiod_async_writes *writes)
{
    uint8_t way = other_than(get(writes->way));

    set(writes->count[way], 0);
    set(writes->way, way);
    set(writes->tries, true);
    set(writes->left, TRIAL);
}

/*
 * Are writes that are started at least about as fast as those of workers? They need less CPU time. So few that too little is
 * known have ended only if the kernel does not start them, or starts none that comes alone.
 */
static bool started_are_fast(const struct aiod_async_writes *writes)
{
    uint64_t started_ns = get(writes->mean_ns[AIOD_ASYNC_WRITES_STARTED]);
    uint64_t workers_ns = get(writes->mean_ns[AIOD_ASYNC_WRITES_BY_WORKER]);

    return get(writes->count[AIOD_ASYNC_WRITES_STARTED]) >= COUNT_MIN && started_ns <= workers_ns + workers_ns / 8;
}

static void end_trial(struct aiod_async_writes *writes)
{
    uint8_t way = started_are_fast(writes) ? AIOD_ASYNC_WRITES_STARTED : AIOD_ASYNC_WRITES_BY_WORKER;
    bool stays = way != get(writes->way); /* the other one was tried */
    uint32_t pause = stays ? 2 * get(writes->pause) : 0;

    pause = pause < PAUSE_MIN ? PAUSE_MIN : pause;
    pause = pause > PAUSE_MAX ? PAUSE_MAX : pause;
    set(writes->undecided, get(writes->count[get(writes->way)]) < COUNT_MIN);
    set(writes->way, way);
    set(writes->tries, false);
    set(writes->pause, pause);
    set(writes->left, pause);
    set(writes->judged_ns, get(writes->mean_ns[way]));
}

/*
 * With many writes in flight, too few of a trial's have ended when the last one is submitted. They end in the pause behind
 * it. True: they are judged now.
 */
static bool judge_late(struct aiod_async_writes *writes)
{
    uint8_t tried = other_than(get(writes->way));

    if (!get(writes->undecided) || get(writes->count[tried]) < COUNT_MIN) {
        return false;
    }
    set(writes->way, tried);
    end_trial(writes);
    return true;
}

static void change(struct aiod_async_writes *writes)
{
    if (get(writes->tries)) {
        end_trial(writes);
    } else if (get(writes->count[get(writes->way)]) < COUNT_MIN) {
        set(writes->left, TRIAL);
    } else if (!judge_late(writes)) {
        begin_trial(writes);
    }
}

struct aiod_async_write aiod_async_writes_next(struct aiod_async_writes *writes)
{
    uint8_t to = get(writes->to);
    uint32_t left = get(writes->left);

    if (to == AIOD_ASYNC_WRITES_TO_DEVICE || take_place_beside_reads()) {
        return (struct aiod_async_write){.start = true};
    }
    if (to == AIOD_ASYNC_WRITES_TO_UNKNOWN) {
        return (struct aiod_async_write){.start = false};
    }
    if (left > 0) {
        set(writes->left, left - 1);
    } else {
        change(writes);
    }
    return (struct aiod_async_write){.start = get(writes->way) == AIOD_ASYNC_WRITES_STARTED, .compared = true};
}

/* The trial of this way goes so badly that it need not be ended. */
static bool goes_badly(const struct aiod_async_writes *writes, uint8_t way)
{
    return get(writes->tries) && get(writes->way) == way && get(writes->count[way]) >= COUNT_MIN &&
           get(writes->mean_ns[way]) / 2 > get(writes->mean_ns[other_than(way)]);
}

/* The workqueue's thread may have to wait for a CPU from now on. */
static bool has_become_slow(const struct aiod_async_writes *writes, uint8_t way)
{
    return !get(writes->tries) && way == AIOD_ASYNC_WRITES_STARTED && get(writes->way) == way &&
           get(writes->left) > PAUSE_SLOWER && get(writes->mean_ns[way]) / 2 > get(writes->judged_ns);
}

void aiod_async_writes_ended(struct aiod_async_writes *writes, enum aiod_async_writes_way way, uint64_t latency_ns)
{
    uint32_t count = get(writes->count[way]);
    int64_t now_ns = (int64_t)(latency_ns < NS_MAX ? latency_ns : NS_MAX);
    int64_t mean_ns = get(writes->mean_ns[way]);
    int64_t of = count < MEAN_OF ? count + 1 : MEAN_OF;

    set(writes->mean_ns[way], (uint32_t)(mean_ns + (now_ns - mean_ns) / of));
    set(writes->count[way], count < COUNT_MAX ? count + 1 : COUNT_MAX);
    if (goes_badly(writes, (uint8_t)way)) {
        set(writes->left, 0);
    } else if (has_become_slow(writes, (uint8_t)way)) {
        set(writes->left, PAUSE_SLOWER);
    }
}
