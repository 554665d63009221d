/*
 * poller.c - polling the rings: awake and dormant rings, leading and following.
 *
 * The main loop changes `wanted` under the lock and increments `changes`; the leader copies it to `rings`, which the
 * leader alone uses.
 *
 * Leading ends before a worker takes a request or sleeps, in this order: it tells the clients of the awake rings that the
 * engine sleeps (so that they ring the doorbell), checks the rings once more, and gives `lead` up. A follower that a doorbell
 * wakes in between cannot lead yet: it leaves a mark, and the former leader wakes a polling worker again. (With the mark in a
 * variable of its own, two workers could wake each other for ever: tests/model/polling.pml.)
 */
#include "ring/poller.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "pool/uring.h"
#include "ring/halt_poll.h"
#include "ring/ring.h"
#include "util/os.h"

#define POLLS_PER_CLOCK 16 /* reading the clock costs as much as looking at several rings */
/* every so many passes over the awake rings, one pass includes the dormant rings */
#define PASSES_PER_FULL 16u
#define CPUS_KNOWN_NS UINT64_C(500000000) /* affinities are read again after this time */

/* Whether a polling worker leads. */
enum lead {
    NOT_LED,
    LED,
    LED_AND_MARKED, /* another worker was woken, and could not lead */
};

struct aiod_poller {
    /* Constant after creation. */
    struct aiod_idle_polling polling; /* first */
    struct aiod_pool *pool;
    unsigned rings_max;
    int epoll_fd;
    int bell_fd;

    atomic_uint changes; /* of `wanted`; counts */
    _Atomic(enum lead) lead;

    pthread_mutex_t lock;
    struct aiod_ring **wanted; /* protected by lock; one reference each */
    unsigned wanted_count;

    /* The leader's. */
    struct aiod_ring **rings; /* one reference each; awake rings first */
    unsigned ring_count;
    unsigned awake;  /* the rings behind them are dormant: their clients ring the doorbell */
    unsigned passes; /* until the next pass that includes dormant rings */
    unsigned changes_seen;
    struct aiod_halt_poll poll;
    uint64_t polled_ns;       /* how long the last leader polled before it slept */
    uint64_t polled_since_ns; /* since when; 0: it did not poll, or does not sleep */
    bool one_cpu;             /* the leader and all clients are confined to the same CPU */
    uint64_t cpus_known_ns;   /* valid until then */
};

/* ---- the leader -------------------------------------------------------------------------------------------------- */

static void release_rings(struct aiod_poller *poller)
{
    for (unsigned i = 0; i < poller->ring_count; i++) {
        aiod_ring_put(poller->rings[i]);
    }
    poller->ring_count = 0;
}

static void follow_changes(struct aiod_poller *poller)
{
    unsigned changes = atomic_load_explicit(&poller->changes, memory_order_acquire);

    if (changes == poller->changes_seen) {
        return;
    }
    poller->changes_seen = changes;
    poller->cpus_known_ns = 0;
    release_rings(poller);
    pthread_mutex_lock(&poller->lock);
    memcpy(poller->rings, poller->wanted, poller->wanted_count * sizeof(poller->rings[0]));
    poller->ring_count = poller->awake = poller->wanted_count;
    for (unsigned i = 0; i < poller->ring_count; i++) {
        aiod_ring_get(poller->rings[i]);
    }
    pthread_mutex_unlock(&poller->lock);
}

static void swap_rings(struct aiod_poller *poller, unsigned one, unsigned other)
{
    struct aiod_ring *ring = poller->rings[one];

    poller->rings[one] = poller->rings[other];
    poller->rings[other] = ring;
}

/* Look at the dormant rings, without a system call. */
static void wake_dormant(struct aiod_poller *poller)
{
    for (unsigned i = poller->awake; i < poller->ring_count; i++) {
        if (aiod_ring_has_entries(poller->rings[i])) {
            aiod_ring_set_sleeping(poller->rings[i], false);
            swap_rings(poller, i, poller->awake++);
        }
    }
}

static bool take_all(struct aiod_poller *poller)
{
    unsigned taken = 0;

    if (poller->passes-- == 0) {
        poller->passes = PASSES_PER_FULL;
        wake_dormant(poller);
    }
    for (unsigned i = 0; i < poller->awake; i++) {
        taken += aiod_ring_take(poller->rings[i]);
    }
    return taken > 0;
}

static bool has_entries(const struct aiod_poller *poller)
{
    for (unsigned i = 0; i < poller->awake; i++) {
        if (aiod_ring_has_entries(poller->rings[i])) {
            return true;
        }
    }
    return false;
}

static bool has_work(const struct aiod_poller *poller)
{
    return has_entries(poller) || aiod_pool_recalls(poller->pool) ||
           atomic_load_explicit(&poller->changes, memory_order_acquire) != poller->changes_seen || aiod_uring_ready();
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Poll until `until_ns`. True: there is work. */
static bool poll_rings(struct aiod_poller *poller, uint64_t until_ns)
{
    do {
        wake_dormant(poller);
        for (unsigned i = 0; i < POLLS_PER_CLOCK; i++) {
            if (has_work(poller)) {
                return true;
            }
            pause_cpu();
        }
        sched_yield();
    } while (aiod_now_ns() < until_ns);
    return false;
}

static void set_sleeping(struct aiod_poller *poller, bool sleeping)
{
    for (unsigned i = 0; i < poller->awake; i++) {
        aiod_ring_set_sleeping(poller->rings[i], sleeping);
    }
}

/*
 * A ring becomes dormant if no entry was taken between two sleeps and nothing is in flight: many idle rings cost
 * nothing while a few are in use. Their clients know already that the engine sleeps.
 */
static void make_idle_rings_dormant(struct aiod_poller *poller)
{
    for (unsigned i = 0; i < poller->awake;) {
        struct aiod_ring *ring = poller->rings[i];
        uint32_t head = aiod_ring_taken(ring);

        if (head == ring->slept_head && aiod_ring_inflight(ring) == 0) {
            swap_rings(poller, i, --poller->awake);
        } else {
            ring->slept_head = head;
            i++;
        }
    }
}

/*
 * Are the leader and all clients confined to the same CPU? A client whose affinity cannot be read may have other CPUs.
 */
static bool share_one_cpu(const struct aiod_poller *poller)
{
    cpu_set_t all, theirs;

    if (sched_getaffinity(0, sizeof(all), &all) < 0 || CPU_COUNT(&all) != 1) {
        return false;
    }
    for (unsigned i = 0; i < poller->ring_count; i++) {
        pid_t client = poller->rings[i]->client_pid;

        if (client == 0 || sched_getaffinity(client, sizeof(theirs), &theirs) < 0 || !CPU_EQUAL(&all, &theirs)) {
            return false;
        }
    }
    return true;
}

/* Affinities change rarely, and each one takes a system call to read. */
static bool may_poll(struct aiod_poller *poller, uint64_t now_ns)
{
    if (poller->poll.max_ns == 0) {
        return false;
    }
    if (now_ns >= poller->cpus_known_ns) {
        poller->one_cpu = share_one_cpu(poller);
        poller->cpus_known_ns = now_ns + CPUS_KNOWN_NS;
    }
    return !poller->one_cpu;
}

/*
 * Polling takes CPU time from other threads. While workers have requests, the CPU is left to them, and a worker that
 * completes a request looks at its ring as well.
 */
static bool has_inflight(const struct aiod_poller *poller)
{
    for (unsigned i = 0; i < poller->awake; i++) {
        if (!aiod_ring_seems_idle(poller->rings[i])) {
            return true;
        }
    }
    return false;
}

/* Tell the clients that the engine sleeps. False: there is work meanwhile, and the engine does not sleep. */
static bool fall_asleep(struct aiod_poller *poller)
{
    set_sleeping(poller, true);
    if (has_work(poller)) {
        set_sleeping(poller, false);
        return false;
    }
    return true;
}

/* No entry was taken: poll for a while. True: there may be entries; false: the engine sleeps. */
static bool look_again(struct aiod_poller *poller)
{
    uint64_t since_ns = aiod_now_ns();
    bool polls = !has_inflight(poller) && may_poll(poller, since_ns);
    uint64_t poll_ns = polls ? aiod_halt_poll_begin(&poller->poll) : 0;
    bool found = poll_ns > 0 && poll_rings(poller, since_ns + poll_ns);
    bool asleep = !found && fall_asleep(poller);

    if (asleep) {
        poller->polled_ns = poll_ns;
        poller->polled_since_ns = polls ? since_ns : 0;
        make_idle_rings_dormant(poller);
    } else if (polls) {
        aiod_halt_poll_end(&poller->poll, poll_ns, found, aiod_now_ns() - since_ns);
    }
    if (!asleep && !found) {
        sched_yield(); /* a worker may be taking the entries */
    }
    return !asleep;
}

/* The leader keeps a request. True: it takes that, and the engine sleeps meanwhile; false: another worker takes it. */
static bool take_kept(struct aiod_poller *poller)
{
    if (fall_asleep(poller)) {
        return true;
    }
    aiod_pool_hand_over_kept(poller->pool);
    return false;
}

/* The leader is recalled: the follower leads, at once if there are entries. */
static void follow_recall(struct aiod_poller *poller)
{
    set_sleeping(poller, true);
    if (has_entries(poller)) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

/* Poll the rings. True: the leader has to stop polling; false: there is nothing to do, and the engine sleeps. */
static bool lead_rings(struct aiod_poller *poller)
{
    for (;;) {
        bool found;

        if (aiod_pool_keeps_one() && take_kept(poller)) {
            return true;
        }
        follow_changes(poller);
        if (aiod_pool_recalls(poller->pool)) {
            follow_recall(poller);
            return true;
        }
        found = aiod_uring_turn(poller->pool); /* starts what was taken */
        found = take_all(poller) || found;
        if (!found && !look_again(poller)) {
            return false;
        }
    }
}

/* ---- polling workers --------------------------------------------------------------------------------------------- */

static void begin_to_lead(struct aiod_poller *poller)
{
    poller->passes = 0;
    set_sleeping(poller, false);
    if (poller->polled_since_ns != 0) {
        uint64_t idle_ns = aiod_now_ns() - poller->polled_since_ns;

        aiod_halt_poll_end(&poller->poll, poller->polled_ns, false, idle_ns);
        poller->polled_since_ns = 0;
    }
}

static bool try_to_lead(struct aiod_poller *poller)
{
    enum lead now = NOT_LED;

    while (!atomic_compare_exchange_weak(&poller->lead, &now, now == NOT_LED ? LED : LED_AND_MARKED)) {
    }
    if (now == NOT_LED) {
        begin_to_lead(poller);
    }
    return now == NOT_LED;
}

static void cease_to_lead(struct aiod_poller *poller)
{
    if (atomic_exchange(&poller->lead, NOT_LED) == LED_AND_MARKED) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

static bool lead(struct aiod_idle_polling *polling)
{
    return try_to_lead((struct aiod_poller *)polling);
}

/*
 * Sleep until a descriptor is signalled, or a request of this thread's io_uring has completed.
 *
 * Doorbells are edge-triggered and never read: a client may clear O_NONBLOCK, and a read would block. The kernel wakes one
 * of the threads that wait.
 */
static void wait_for_work(struct aiod_poller *poller)
{
    struct epoll_event event = {.data.ptr = NULL};

    aiod_uring_set_sleeping(true);
    if (!aiod_uring_ready()) {
        epoll_wait(poller->epoll_fd, &event, 1, -1);
    }
    aiod_uring_set_sleeping(false);
    aiod_uring_pass_on(event.data.ptr);
    if (aiod_pool_passes_recall(poller->pool)) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

static void poll_as_worker(struct aiod_idle_polling *polling, bool leads)
{
    struct aiod_poller *poller = (struct aiod_poller *)polling;
    bool stops = false;

    while (!stops) {
        if (leads) {
            stops = lead_rings(poller);
            cease_to_lead(poller);
        } else {
            while (aiod_uring_turn(poller->pool)) {
            }
        }
        stops = stops || aiod_pool_keeps_one() || aiod_pool_recalls(poller->pool);
        if (!stops) {
            wait_for_work(poller);
            leads = try_to_lead(poller);
        }
    }
}

static int watch(struct aiod_idle_polling *polling, int fd, void *data)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = data};

    return epoll_ctl(((struct aiod_poller *)polling)->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static void wake(struct aiod_idle_polling *polling)
{
    aiod_eventfd_ring(((struct aiod_poller *)polling)->bell_fd);
}

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

int aiod_poller_create(struct aiod_poller **result, struct aiod_pool *pool, uint64_t poll_max_ns, unsigned rings_max)
{
    struct aiod_poller *poller = calloc(1, sizeof(*poller));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};

    if (poller == NULL) {
        return -ENOMEM;
    }
    poller->polling = (struct aiod_idle_polling){.lead = lead, .poll = poll_as_worker, .watch = watch, .wake = wake};
    poller->pool = pool;
    poller->poll.max_ns = poll_max_ns;
    poller->rings_max = rings_max;
    pthread_mutex_init(&poller->lock, NULL);
    poller->wanted = calloc(rings_max, sizeof(struct aiod_ring *));
    poller->rings = calloc(rings_max, sizeof(struct aiod_ring *));
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->bell_fd = aiod_eventfd_create();
    if (poller->wanted == NULL || poller->rings == NULL || poller->epoll_fd < 0 || poller->bell_fd < 0 ||
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, poller->bell_fd, &event) < 0) {
        aiod_poller_destroy(poller);
        return -EMFILE;
    }
    aiod_pool_set_polling(pool, &poller->polling);
    *result = poller;
    return 0;
}

static void notify_changed(struct aiod_poller *poller)
{
    atomic_fetch_add_explicit(&poller->changes, 1, memory_order_release);
    aiod_eventfd_ring(poller->bell_fd);
}

int aiod_poller_add(struct aiod_poller *poller, struct aiod_ring *ring)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int error = aiod_pool_start_polling(poller->pool);

    if (error < 0) {
        return error;
    }
    pthread_mutex_lock(&poller->lock);
    error = poller->wanted_count == poller->rings_max ? -EAGAIN : 0;
    if (error == 0 && epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, ring->doorbell_fd, &event) < 0) {
        error = -errno;
    }
    if (error == 0) {
        aiod_ring_get(ring);
        poller->wanted[poller->wanted_count++] = ring;
    }
    pthread_mutex_unlock(&poller->lock);
    if (error == 0) {
        notify_changed(poller);
    }
    return error;
}

void aiod_poller_remove(struct aiod_poller *poller, struct aiod_ring *ring)
{
    bool found = false;

    pthread_mutex_lock(&poller->lock);
    for (unsigned i = 0; i < poller->wanted_count && !found; i++) {
        if (poller->wanted[i] == ring) {
            poller->wanted[i] = poller->wanted[--poller->wanted_count];
            found = true;
        }
    }
    pthread_mutex_unlock(&poller->lock);
    if (found) {
        /* The client holds this descriptor too, so closing ours would not remove it from the epoll set. */
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, ring->doorbell_fd, NULL);
        notify_changed(poller);
        aiod_ring_put(ring);
    }
}

void aiod_poller_stop(struct aiod_poller *poller)
{
    aiod_pool_stop_polling(poller->pool);
    release_rings(poller);
    for (unsigned i = 0; i < poller->wanted_count; i++) {
        aiod_ring_put(poller->wanted[i]);
    }
    poller->wanted_count = 0;
}

void aiod_poller_destroy(struct aiod_poller *poller)
{
    free(poller->wanted);
    free(poller->rings);
    if (poller->epoll_fd >= 0) {
        close(poller->epoll_fd);
    }
    if (poller->bell_fd >= 0) {
        close(poller->bell_fd);
    }
    pthread_mutex_destroy(&poller->lock);
    free(poller);
}
