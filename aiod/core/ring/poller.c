/*
 * poller.c - the poller thread: rings that are awake, dormant rings, polling and sleeping.
 *
 * The main loop changes `wanted` under the lock and increments `changes`; the thread copies it to `rings`, which it
 * alone uses.
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

#include "ring/halt_poll.h"
#include "ring/ring.h"
#include "util/os.h"

#define POLLS_PER_CLOCK 16 /* reading the clock costs as much as looking at several rings */
/* every so many passes over the awake rings, one pass includes the dormant rings */
#define PASSES_PER_FULL 16u
#define CPUS_KNOWN_NS UINT64_C(500000000) /* affinities are read again after this time */

struct aiod_poller {
    /* Constant after creation. */
    char name[16];
    unsigned rings_max;
    int epoll_fd;
    int bell_fd;

    /* The main loop's thread. */
    pthread_t thread;
    bool started;

    atomic_int tid;
    atomic_bool stopping;
    atomic_uint changes; /* of `wanted`; counts */

    pthread_mutex_t lock;
    struct aiod_ring **wanted; /* protected by lock; one reference each */
    unsigned wanted_count;

    /* The poller's thread. */
    struct aiod_ring **rings; /* one reference each; awake rings first */
    unsigned ring_count;
    unsigned awake;  /* the rings behind them are dormant: their clients ring the doorbell */
    unsigned passes; /* until the next pass that includes dormant rings */
    unsigned changes_seen;
    struct aiod_halt_poll poll;
    bool one_cpu;           /* this thread and all clients are confined to the same CPU */
    uint64_t cpus_known_ns; /* valid until then */
};

/* ---- the thread -------------------------------------------------------------------------------------------------- */

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

static bool has_changes(const struct aiod_poller *poller)
{
    return atomic_load_explicit(&poller->stopping, memory_order_acquire) ||
           atomic_load_explicit(&poller->changes, memory_order_acquire) != poller->changes_seen;
}

static bool has_work(const struct aiod_poller *poller)
{
    for (unsigned i = 0; i < poller->awake; i++) {
        if (aiod_ring_has_entries(poller->rings[i])) {
            return true;
        }
    }
    return has_changes(poller);
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
 * Sleep until a doorbell rings. Doorbells are edge-triggered and never read: a client may clear O_NONBLOCK, and a read
 * would block.
 */
static void sleep_until_doorbell(struct aiod_poller *poller)
{
    struct epoll_event events[16];

    set_sleeping(poller, true);
    if (has_work(poller)) {
        sched_yield(); /* a worker may be taking the entries */
    } else {
        make_idle_rings_dormant(poller);
        epoll_wait(poller->epoll_fd, events, (int)(sizeof(events) / sizeof(events[0])), -1);
        poller->passes = 0;
    }
    set_sleeping(poller, false);
}

/*
 * Are this thread and all clients confined to the same CPU? A client whose affinity cannot be read may have other CPUs.
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
        if (aiod_ring_inflight(poller->rings[i]) > 0) {
            return true;
        }
    }
    return false;
}

static void poll_then_sleep(struct aiod_poller *poller)
{
    uint64_t since_ns = aiod_now_ns();

    uint64_t poll_ns;
    bool found;

    if (has_inflight(poller) || !may_poll(poller, since_ns)) {
        sleep_until_doorbell(poller);
        return;
    }
    poll_ns = aiod_halt_poll_begin(&poller->poll);
    found = poll_ns > 0 && poll_rings(poller, since_ns + poll_ns);
    if (!found) {
        sleep_until_doorbell(poller);
    }
    aiod_halt_poll_end(&poller->poll, poll_ns, found, aiod_now_ns() - since_ns);
}

static void *run(void *argument)
{
    struct aiod_poller *poller = argument;
    char name[sizeof("aiod-p/") + sizeof(poller->name)];

    atomic_store(&poller->tid, gettid());
    snprintf(name, sizeof(name), "aiod-p/%s", poller->name);
    name[15] = '\0'; /* the kernel's limit */
    pthread_setname_np(pthread_self(), name);
    while (!atomic_load_explicit(&poller->stopping, memory_order_acquire)) {
        follow_changes(poller);
        if (!take_all(poller)) {
            poll_then_sleep(poller);
        }
    }
    release_rings(poller);
    return NULL;
}

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

int aiod_poller_create(struct aiod_poller **result, const char *name, uint64_t poll_max_ns, unsigned rings_max)
{
    struct aiod_poller *poller = calloc(1, sizeof(*poller));
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};

    if (poller == NULL) {
        return -ENOMEM;
    }
    snprintf(poller->name, sizeof(poller->name), "%s", name);
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
    *result = poller;
    return 0;
}

static int start(struct aiod_poller *poller)
{
    int error = aiod_thread_create(&poller->thread, NULL, run, poller);

    poller->started = error == 0;
    return -error;
}

static void notify_changed(struct aiod_poller *poller)
{
    atomic_fetch_add_explicit(&poller->changes, 1, memory_order_release);
    aiod_eventfd_ring(poller->bell_fd);
}

int aiod_poller_add(struct aiod_poller *poller, struct aiod_ring *ring)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int error = poller->started ? 0 : start(poller);

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
    atomic_store_explicit(&poller->stopping, true, memory_order_release);
    aiod_eventfd_ring(poller->bell_fd);
    if (poller->started) {
        pthread_join(poller->thread, NULL);
        poller->started = false;
    }
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

pid_t aiod_poller_tid(struct aiod_poller *poller)
{
    return atomic_load(&poller->tid);
}
