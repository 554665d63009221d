/* Range locks of a file: shared ranges together, exclusive ones alone, in the order of arrival. */
#include "check.h"

#include "ops/range_locks.h"

enum {
    THREADS = 6,
    ROUNDS = 4000,
    CELLS = 32
};

static struct aiod_range_locks range_locks;

/* ---- who waits for whom ------------------------------------------------------------------------------------------ */

struct visitor {
    struct aiod_range_lock range;
    pthread_t thread;
    _Atomic bool inside;
    struct gate leave;
};

static void *visit(void *argument)
{
    struct visitor *visitor = argument;

    aiod_range_lock_acquire(&range_locks, &visitor->range);
    visitor->inside = true;
    gate_pass(&visitor->leave);
    visitor->inside = false;
    aiod_range_lock_release(&range_locks, &visitor->range);
    return NULL;
}

static void send(struct visitor *visitor, uint64_t start, uint64_t end, bool exclusive)
{
    visitor->range = (struct aiod_range_lock){.start = start, .end = end, .exclusive = exclusive};
    visitor->inside = false;
    gate_init(&visitor->leave, false);
    CHECK(pthread_create(&visitor->thread, NULL, visit, visitor) == 0);
}

static void fetch(struct visitor *visitor)
{
    gate_wait_for(&visitor->leave, 1);
    gate_open(&visitor->leave);
    pthread_join(visitor->thread, NULL);
}

static bool try_shared(uint64_t start, uint64_t end)
{
    struct aiod_range_lock range = {.start = start, .end = end};
    bool acquired = aiod_range_lock_try(&range_locks, &range);

    if (acquired) {
        aiod_range_lock_release(&range_locks, &range);
    }
    return acquired;
}

static void wait_until_waiting(size_t count)
{
    size_t waiting;

    do {
        pthread_mutex_lock(&range_locks.lock);
        waiting = range_locks.waiting;
        pthread_mutex_unlock(&range_locks.lock);
    } while (waiting != count);
}

/* No range waits: one thread acquires them all. */
static void compatible_ranges_do_not_wait(void)
{
    struct aiod_range_lock beside[] = {
        {.start = 0, .end = 10},
        {.start = 5, .end = AIOD_RANGE_END},
        {.start = 0, .end = 10},
    };
    struct aiod_range_lock behind[] = {
        {.start = 0, .end = 10, .exclusive = true},
        {.start = 10, .end = 20, .exclusive = true},
        {.start = 20, .end = AIOD_RANGE_END, .exclusive = true},
    };

    for (size_t i = 0; i < 3; i++) {
        aiod_range_lock_acquire(&range_locks, &beside[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        aiod_range_lock_release(&range_locks, &beside[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        aiod_range_lock_acquire(&range_locks, &behind[i]);
    }
    for (size_t i = 3; i-- > 0;) {
        aiod_range_lock_release(&range_locks, &behind[i]);
    }
    CHECK(range_locks.first == NULL && range_locks.last == NULL && range_locks.exclusives == 0 &&
          range_locks.waiting == 0);
}

static void ranges_are_served_in_order(void)
{
    struct visitor shared, exclusive, behind, aside;

    send(&shared, 0, 10, false);
    gate_wait_for(&shared.leave, 1);
    send(&exclusive, 5, 15, true);
    wait_until_waiting(1);
    send(&behind, 12, 20, false); /* only for the one that waits */
    wait_until_waiting(2);
    send(&aside, 20, 30, false);
    gate_wait_for(&aside.leave, 1);
    CHECK(!exclusive.inside && !behind.inside);
    CHECK(try_shared(0, 5) && !try_shared(0, 6) && try_shared(15, 30)); /* the waiting one counts */

    fetch(&shared);
    gate_wait_for(&exclusive.leave, 1);
    wait_until_waiting(1);
    CHECK(!behind.inside);
    fetch(&exclusive);
    fetch(&behind);
    fetch(&aside);
}

/* A range that waits for several is granted after the last of them, and one release can grant several. */
static void a_release_grants_several_ranges(void)
{
    struct visitor first, second, exclusive, after[2];

    send(&first, 0, 10, false);
    gate_wait_for(&first.leave, 1);
    send(&second, 0, 10, false);
    gate_wait_for(&second.leave, 1);
    send(&exclusive, 9, AIOD_RANGE_END, true);
    wait_until_waiting(1);
    send(&after[0], AIOD_RANGE_END - 1, AIOD_RANGE_END, false);
    send(&after[1], 9, 11, false);
    wait_until_waiting(3);
    fetch(&second);
    wait_until_waiting(3);
    CHECK(!exclusive.inside);
    fetch(&first);
    gate_wait_for(&exclusive.leave, 1);
    fetch(&exclusive);
    gate_wait_for(&after[0].leave, 1);
    gate_wait_for(&after[1].leave, 1);
    fetch(&after[0]);
    fetch(&after[1]);
}

/* ---- many threads ------------------------------------------------------------------------------------------------ */

static _Atomic int users[CELLS]; /* users of a byte, or -1 */
static int plain[CELLS];         /* changed under exclusive ranges only, for ThreadSanitizer */

static void use(const struct aiod_range_lock *range)
{
    for (uint64_t i = range->start; i < range->end; i++) {
        if (range->exclusive) {
            CHECK(atomic_exchange(&users[i], -1) == 0);
            plain[i]++;
        } else {
            CHECK(atomic_fetch_add(&users[i], 1) >= 0);
            CHECK(plain[i] >= 0);
        }
    }
    for (uint64_t i = range->start; i < range->end; i++) {
        if (range->exclusive) {
            users[i] = 0;
        } else {
            users[i]--;
        }
    }
}

static void *come_and_go(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t start = (uint64_t)rand_r(&seed) % CELLS;
        uint64_t end = start + 1 + (uint64_t)rand_r(&seed) % (CELLS - start);
        struct aiod_range_lock range = {.start = start, .end = end, .exclusive = rand_r(&seed) % 4 == 0};

        aiod_range_lock_acquire(&range_locks, &range);
        use(&range);
        aiod_range_lock_release(&range_locks, &range);
    }
    return NULL;
}

static void exclusive_ranges_exclude_threads(void)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, come_and_go, (void *)(uintptr_t)(i + 1)) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK(range_locks.first == NULL && range_locks.last == NULL && range_locks.exclusives == 0 &&
          range_locks.waiting == 0);
}

int main(void)
{
    aiod_range_locks_init(&range_locks);
    compatible_ranges_do_not_wait();
    ranges_are_served_in_order();
    a_release_grants_several_ranges();
    exclusive_ranges_exclude_threads();
    aiod_range_locks_destroy(&range_locks);
    return 0;
}
