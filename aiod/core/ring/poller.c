/*
 * poller.c - polling the rings: leading and following. rings.h has the rings.
 *
 * Leading ends before a worker takes a request or sleeps, in this order: it tells the clients of the awake rings that the
 * engine sleeps (so that they ring the doorbell), checks the rings once more, and gives `lead` up. A follower that a doorbell
 * wakes in between cannot lead yet: it leaves a mark, and the former leader wakes a polling worker again. (With the mark in a
 * variable of its own, two workers could wake each other for ever: tests/model/polling.pml.)
 *
 * A dormant ring's doorbell rings while the leader is awake. The thread that waits in the epoll set consumes the edge, and
 * notes the ring before it tries to lead: so the leader finds the note, or the mark, or the thread leads itself. While no
 * thread waits, the leader looks at the epoll set itself, now and then.
 */
#include "ring/poller.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "path/kept_root.h"
#include "pool/uring.h"
#include "ring/apart.h"
#include "ring/client_wakes.h"
#include "ring/halt_poll.h"
#include "ring/polled.h"
#include "ring/rings.h"
#include "util/os.h"

#define POLLS_PER_CLOCK 16u /* reading the clock costs as much as looking at several rings */
/* every so many passes over the awake rings, the leader looks for dormant rings that ring, and at the clock */
#define PASSES_PER_LOOK 16u
#define RETIRE_NS UINT64_C(10000000)      /* a ring that was not used for this time becomes dormant */
#define ANSWER_NS UINT64_C(100000)        /* how long a client takes to submit after a completion, at most */
#define CPUS_KNOWN_NS UINT64_C(500000000) /* affinities are read again after this time */
#define EVENTS_MAX 16

/*
 * sched_yield(): one that takes longer has let other threads run; one that takes much longer, a thread that computes. A thread
 * that sleeps gets the CPU back from that sooner than one that yields. So there is none for CROWDED_PAUSE times as long.
 */
#define SWITCH_NS UINT64_C(1000)
#define CROWDED_NS UINT64_C(2000000)
#define CROWDED_PAUSE 64u
#define TURNS_MAX 16u
/*
 * After so many turns of rings that had entries, the leader yields: clients on its CPU cannot submit while it finds entries
 * of others. (In a run with 64 clients they had a sixth of the others' rate.)
 */
#define TURNS_PER_YIELD 64u
/*
 * How long a leader that has opened a root (path/kept_root.h) looks for the next request without letting others run. After
 * LINGERS_MISSED_MAX times in vain it does so only once in LINGER_AGAIN times: the client may need this CPU.
 */
#define LINGER_NS UINT64_C(8000)
#define LINGERS_MISSED_MAX 4u
#define LINGER_AGAIN 64u

/* epoll data: 0 is the bell, up to rings_max one more than the slot of a ring; else of aiod_idle_polling.watch(). */
#define BELL UINT64_C(0)

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
    int epoll_fd;
    int bell_fd;

    _Atomic(enum lead) lead;
    atomic_uint waiting; /* threads that wait in the epoll set, or are about to */
    struct aiod_apart apart;
    struct aiod_rings rings;

    /* The leader's. */
    unsigned passes; /* until it looks at the epoll set and at the clock */
    unsigned turns;  /* of rings that had entries, since it last yielded for that */
    uint64_t yields_from_ns;
    uint64_t retire_ns; /* when it looks for unused rings */
    bool delivered;     /* completions of its io_uring, since it last polled */
    struct aiod_halt_poll poll;
    struct aiod_halt_poll poll_for_answers; /* to those completions, with others in flight */
    struct aiod_halt_poll *polled; /* how the last leader polled before it slept; NULL: not at all, or it is awake */
    uint64_t polled_ns;            /* how long */
    uint64_t polled_since_ns;      /* since when */
    bool one_cpu;                  /* the leader and the clients of all awake rings are confined to the same CPU */
    uint64_t cpus_known_ns;        /* valid until then */
    unsigned lingers_missed;
    unsigned lingers_skipped;
};

/* ---- doorbells --------------------------------------------------------------------------------------------------- */

/*
 * Consume the edges of the epoll set. Doorbells are edge-triggered and never read: a client may clear O_NONBLOCK, and a read
 * would block.
 */
static void take_edges(struct aiod_poller *poller, int timeout_ms)
{
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(poller->epoll_fd, events, EVENTS_MAX, timeout_ms);

    for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64;

        if (data > poller->rings.slot_count) {
            aiod_uring_pass_on(events[i].data.ptr);
        } else if (data != BELL) {
            aiod_rings_rung(&poller->rings, (unsigned)(data - 1));
        }
    }
}

/* A recall that this worker cannot answer has woken it. */
static void pass_recall_on(struct aiod_poller *poller)
{
    if (aiod_pool_passes_recall(poller->pool)) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

/* The leader is awake, and dormant rings may ring. A thread that waits notes them; without one the leader does. */
static void look_for_edges(struct aiod_poller *poller)
{
    if (aiod_rings_has_dormant(&poller->rings) && atomic_load(&poller->waiting) == 0) {
        take_edges(poller, 0);
        pass_recall_on(poller);
    }
}

/* ---- the leader -------------------------------------------------------------------------------------------------- */

/* Without a root: other threads may run for long. */
static void give_way(void)
{
    aiod_kept_root_drop();
    sched_yield();
}

/* Let the clients on this CPU run. How long they ran; 0: the leader does not yield to threads that compute. */
static uint64_t yield(struct aiod_poller *poller)
{
    uint64_t since_ns = aiod_now_ns();
    uint64_t took_ns;

    aiod_kept_root_drop(); /* its request may be long ago: others keep the leader busy */
    if (since_ns < poller->yields_from_ns) {
        return 0;
    }
    sched_yield();
    took_ns = aiod_now_ns() - since_ns;
    if (took_ns > CROWDED_NS) {
        poller->yields_from_ns = since_ns + took_ns + CROWDED_PAUSE * took_ns;
    }
    return took_ns;
}

static void look_around(struct aiod_poller *poller)
{
    uint64_t now_ns = aiod_now_ns();

    poller->passes = PASSES_PER_LOOK;
    look_for_edges(poller);
    if (now_ns >= poller->retire_ns) {
        poller->retire_ns = now_ns + RETIRE_NS;
        aiod_rings_retire(&poller->rings, false);
    }
}

/* Deliver what the worker's io_uring has completed, and start more. True: there was something. */
static bool turn(struct aiod_poller *poller, bool *delivered)
{
    bool found;

    aiod_client_wakes_begin();
    found = aiod_uring_turn(poller->pool);
    *delivered = aiod_client_wakes_end() || *delivered;
    return found;
}

static bool take_all(struct aiod_poller *poller)
{
    struct aiod_rings *rings = &poller->rings;
    unsigned found = 0;

    if (poller->passes-- == 0) {
        look_around(poller);
    }
    aiod_rings_update(rings);
    for (unsigned i = 0; i < rings->awake_count; i++) {
        found += rings->awake[i]->operations->take(rings->awake[i]) > 0;
    }
    poller->turns += found;
    if (poller->turns >= TURNS_PER_YIELD) {
        poller->turns = 0;
        yield(poller);
    }
    return found > 0;
}

static bool has_work(const struct aiod_poller *poller)
{
    return aiod_rings_has_entries(&poller->rings) || aiod_pool_recalls(poller->pool) ||
           aiod_rings_has_news(&poller->rings) || aiod_uring_ready();
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Look as often as the clock is worth reading. True: there is work. */
static bool look(struct aiod_poller *poller)
{
    look_for_edges(poller);
    for (unsigned i = 0; i < POLLS_PER_CLOCK; i++) {
        if (has_work(poller)) {
            return true;
        }
        pause_cpu();
    }
    return false;
}

/* Is the next request worth waiting for with the root of the last one? */
static bool lingers(struct aiod_poller *poller)
{
    return aiod_kept_root_held() && poller->rings.awake_count == 1 &&
           (poller->lingers_missed < LINGERS_MISSED_MAX || ++poller->lingers_skipped % LINGER_AGAIN == 0);
}

static bool linger(struct aiod_poller *poller, uint64_t until_ns)
{
    bool found;

    do {
        found = look(poller);
    } while (!found && aiod_now_ns() < until_ns);
    poller->lingers_missed = found ? 0 : poller->lingers_missed + 1;
    return found;
}

/* Poll until `until_ns`. True: there is work. */
static bool poll_by_spinning(struct aiod_poller *poller, uint64_t since_ns, uint64_t until_ns)
{
    if (lingers(poller) && linger(poller, since_ns + LINGER_NS)) {
        return true;
    }
    do {
        if (look(poller)) {
            return true;
        }
        give_way();
    } while (aiod_now_ns() < until_ns);
    return has_work(poller); /* the others may have had the CPU for the whole poll, and have submitted */
}

/*
 * The same where the clients run only while the leader yields. A yield that returns at once says that no client can run:
 * none will submit.
 */
static bool poll_by_yielding(struct aiod_poller *poller)
{
    uint64_t took_ns = CROWDED_NS;

    for (unsigned turns = 0; turns < TURNS_MAX && took_ns > SWITCH_NS && took_ns <= CROWDED_NS; turns++) {
        took_ns = yield(poller);
        look_for_edges(poller);
        if (has_work(poller)) {
            return true;
        }
    }
    return false;
}

/*
 * Are the leader and the clients of all awake rings confined to the same CPU? A client whose affinity cannot be read may have
 * other CPUs.
 */
static bool share_one_cpu(const struct aiod_rings *rings)
{
    cpu_set_t all, theirs;

    if (sched_getaffinity(0, sizeof(all), &all) < 0 || CPU_COUNT(&all) != 1) {
        return false;
    }
    for (unsigned i = 0; i < rings->awake_count; i++) {
        pid_t client = rings->awake[i]->client_pid;

        if (client == 0 || sched_getaffinity(client, sizeof(theirs), &theirs) < 0 || !CPU_EQUAL(&all, &theirs)) {
            return false;
        }
    }
    return true;
}

/* Affinities change rarely, and each one takes a system call to read. */
static bool has_one_cpu(struct aiod_poller *poller, uint64_t now_ns)
{
    if (now_ns >= poller->cpus_known_ns) {
        poller->one_cpu = share_one_cpu(&poller->rings);
        poller->cpus_known_ns = now_ns + CPUS_KNOWN_NS;
    }
    return poller->one_cpu;
}

static bool poll_rings(struct aiod_poller *poller, uint64_t since_ns, uint64_t poll_ns)
{
    return has_one_cpu(poller, since_ns) ? poll_by_yielding(poller)
                                         : poll_by_spinning(poller, since_ns, since_ns + poll_ns);
}

/*
 * How long to poll; NULL: not at all. Polling takes CPU time from other threads. While requests are in flight, the CPU is left
 * to those that carry them out, and a worker that completes one looks at its ring as well. But clients that the leader has
 * just sent completions will submit soon.
 */
static struct aiod_halt_poll *find_poll(struct aiod_poller *poller)
{
    bool delivered = poller->delivered;

    poller->delivered = false;
    if (poller->poll.max_ns == 0) {
        return NULL;
    }
    if (!aiod_rings_has_inflight(&poller->rings)) {
        return &poller->poll;
    }
    return delivered && aiod_uring_inflight() > 0 ? &poller->poll_for_answers : NULL;
}

/* Tell the clients that the engine sleeps. False: there is work meanwhile, and the engine does not sleep. */
static bool fall_asleep(struct aiod_poller *poller)
{
    aiod_rings_sleeping(&poller->rings, true);
    if (has_work(poller)) {
        aiod_rings_sleeping(&poller->rings, false);
        return false;
    }
    return true;
}

/* No entry was taken: poll for a while. True: there may be entries; false: the engine sleeps. */
static bool look_again(struct aiod_poller *poller)
{
    uint64_t since_ns = aiod_now_ns();
    struct aiod_halt_poll *poll = find_poll(poller);
    uint64_t poll_ns = poll != NULL ? aiod_halt_poll_begin(poll) : 0;
    bool found = poll_ns > 0 && poll_rings(poller, since_ns, poll_ns);
    bool asleep = !found && fall_asleep(poller);

    if (asleep) {
        poller->polled = poll;
        poller->polled_ns = poll_ns;
        poller->polled_since_ns = since_ns;
        aiod_rings_retire(&poller->rings, true);
    } else if (poll != NULL) {
        aiod_halt_poll_end(poll, poll_ns, found, aiod_now_ns() - since_ns);
    }
    if (!asleep && !found && !aiod_uring_ready()) {
        give_way(); /* a worker may be taking the entries */
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

/* Another polling worker leads from now on, at once if there are entries. */
static void leave_rings(struct aiod_poller *poller)
{
    aiod_rings_sleeping(&poller->rings, true);
    if (aiod_rings_has_entries(&poller->rings) || aiod_rings_has_news(&poller->rings)) {
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
        if (aiod_pool_recalls(poller->pool)) {
            leave_rings(poller);
            return true;
        }
        found = turn(poller, &poller->delivered); /* starts what was taken */
        found = take_all(poller) || found;
        if (aiod_uring_is_elsewhere(poller->pool) && !aiod_pool_keeps_one()) {
            leave_rings(poller);
            return false;
        }
        if (!found && !look_again(poller)) {
            return false;
        }
    }
}

/* ---- polling workers --------------------------------------------------------------------------------------------- */

static void begin_to_lead(struct aiod_poller *poller)
{
    poller->passes = 0;
    aiod_kept_root_set_keeping(true);
    aiod_rings_sleeping(&poller->rings, false);
    if (poller->polled != NULL) {
        uint64_t idle_ns = aiod_now_ns() - poller->polled_since_ns;

        aiod_halt_poll_end(poller->polled, poller->polled_ns, false, idle_ns);
        poller->polled = NULL;
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
    aiod_kept_root_set_keeping(false);
    if (atomic_exchange(&poller->lead, NOT_LED) == LED_AND_MARKED) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

/* From here on the worker may become bound: it may take entries before it polls. */
static bool lead(struct aiod_idle_polling *polling)
{
    struct aiod_poller *poller = (struct aiod_poller *)polling;

    aiod_apart_begin_to_poll(&poller->apart);
    return try_to_lead(poller);
}

/* Sleep until a descriptor is signalled, or a request of this thread's io_uring has completed. */
static void wait_for_work(struct aiod_poller *poller)
{
    if (aiod_apart_sleep(&poller->apart, poller->pool)) {
        return;
    }
    atomic_fetch_add(&poller->waiting, 1);
    aiod_uring_set_sleeping(true);
    if (!aiod_uring_ready()) {
        take_edges(poller, -1);
    }
    aiod_uring_set_sleeping(false);
    atomic_fetch_sub(&poller->waiting, 1);
    pass_recall_on(poller);
}

static void poll_as_worker(struct aiod_idle_polling *polling, bool leads)
{
    struct aiod_poller *poller = (struct aiod_poller *)polling;
    bool stops = false;
    bool delivered = false;

    while (!stops) {
        if (leads) {
            stops = lead_rings(poller);
            cease_to_lead(poller);
            aiod_uring_call_bound(poller->pool);
        } else {
            while (turn(poller, &delivered)) {
            }
        }
        stops = stops || aiod_pool_keeps_one() || aiod_pool_recalls(poller->pool);
        if (!stops) {
            wait_for_work(poller);
            leads = try_to_lead(poller);
        }
    }
    aiod_apart_cease_to_poll(&poller->apart);
}

static int add_descriptor(const struct aiod_poller *poller, int fd, epoll_data_t data)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = data};

    return epoll_ctl(poller->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int watch(struct aiod_idle_polling *polling, int fd, void *data)
{
    return add_descriptor((struct aiod_poller *)polling, fd, (epoll_data_t){.ptr = data});
}

static void announce(void)
{
    aiod_client_wakes_end();
}

static void wake(struct aiod_idle_polling *polling)
{
    struct aiod_poller *poller = (struct aiod_poller *)polling;

    if (!aiod_apart_wake(&poller->apart)) {
        aiod_eventfd_ring(poller->bell_fd);
    }
}

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

int aiod_poller_create(struct aiod_poller **result, struct aiod_pool *pool, uint64_t poll_max_ns, unsigned rings_max)
{
    struct aiod_poller *poller = calloc(1, sizeof(*poller));
    int apart_error;

    if (poller == NULL) {
        return -ENOMEM;
    }
    poller->polling = (struct aiod_idle_polling){
        .lead = lead, .poll = poll_as_worker, .watch = watch, .wake = wake, .announce = announce};
    poller->pool = pool;
    poller->poll.max_ns = poll_max_ns;
    poller->poll_for_answers.max_ns = poll_max_ns < ANSWER_NS ? poll_max_ns : ANSWER_NS;
    poller->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    poller->bell_fd = aiod_eventfd_create();
    apart_error = aiod_apart_init(&poller->apart);
    if (aiod_rings_init(&poller->rings, rings_max) < 0 || poller->epoll_fd < 0 || poller->bell_fd < 0 ||
        apart_error < 0 || add_descriptor(poller, poller->bell_fd, (epoll_data_t){.u64 = BELL}) < 0) {
        aiod_poller_destroy(poller);
        return -EMFILE;
    }
    aiod_pool_set_polling(pool, &poller->polling);
    *result = poller;
    return 0;
}

/* The client holds the doorbell too, so closing the engine's descriptor would not remove it from the epoll set. */
static void ignore(const struct aiod_poller *poller, const struct aiod_polled *ring)
{
    if (ring->doorbell_fd >= 0) {
        epoll_ctl(poller->epoll_fd, EPOLL_CTL_DEL, ring->doorbell_fd, NULL);
    }
}

static int listen_to(const struct aiod_poller *poller, const struct aiod_polled *ring, unsigned slot)
{
    return ring->doorbell_fd < 0 ? 0
                                 : add_descriptor(poller, ring->doorbell_fd, (epoll_data_t){.u64 = (uint64_t)slot + 1});
}

int aiod_poller_add(struct aiod_poller *poller, struct aiod_polled *ring)
{
    int slot = aiod_pool_start_polling(poller->pool);
    int error;

    if (slot == 0) {
        slot = aiod_rings_add(&poller->rings, ring);
    }
    if (slot < 0) {
        return slot;
    }
    error = listen_to(poller, ring, (unsigned)slot);
    if (error < 0) {
        aiod_rings_remove(&poller->rings, ring);
        ring->operations->put(ring);
    }
    aiod_eventfd_ring(poller->bell_fd);
    return error;
}

int aiod_poller_set_doorbell(struct aiod_poller *poller, struct aiod_polled *ring, int doorbell_fd)
{
    unsigned slot = aiod_rings_slot_of(&poller->rings, ring);
    int error;

    ignore(poller, ring);
    ring->doorbell_fd = -1;
    if (slot == poller->rings.slot_count) {
        return -ENOENT;
    }
    ring->doorbell_fd = doorbell_fd;
    error = listen_to(poller, ring, slot);
    if (error < 0) {
        ring->doorbell_fd = -1;
    }
    aiod_rings_rung(&poller->rings, slot);
    aiod_eventfd_ring(poller->bell_fd);
    return error;
}

void aiod_poller_remove(struct aiod_poller *poller, struct aiod_polled *ring)
{
    if (aiod_rings_remove(&poller->rings, ring)) {
        ignore(poller, ring);
        aiod_eventfd_ring(poller->bell_fd);
        ring->operations->put(ring);
    }
}

void aiod_poller_stop(struct aiod_poller *poller)
{
    aiod_pool_stop_polling(poller->pool);
    aiod_rings_clear(&poller->rings);
}

void aiod_poller_destroy(struct aiod_poller *poller)
{
    aiod_rings_destroy(&poller->rings);
    aiod_apart_destroy(&poller->apart);
    if (poller->epoll_fd >= 0) {
        close(poller->epoll_fd);
    }
    if (poller->bell_fd >= 0) {
        close(poller->bell_fd);
    }
    free(poller);
}
