/* rings.c - slots, the list of awake rings, and the bits of rings that have rung (rings.h). */
#include "ring/rings.h"

#include <errno.h>
#include <stdlib.h>

#include "ring/polled.h"

#define WORD_BITS 64u

static unsigned words_of(const struct aiod_rings *rings)
{
    return (rings->slot_count + WORD_BITS - 1) / WORD_BITS;
}

int aiod_rings_init(struct aiod_rings *rings, unsigned rings_max)
{
    rings->slot_count = rings_max;
    pthread_mutex_init(&rings->lock, NULL);
    rings->rung = calloc(words_of(rings), sizeof(rings->rung[0]));
    rings->wanted = calloc(rings_max, sizeof(struct aiod_polled *));
    rings->known = calloc(rings_max, sizeof(struct aiod_polled *));
    rings->awake = calloc(rings_max, sizeof(struct aiod_polled *));
    return rings->rung == NULL || rings->wanted == NULL || rings->known == NULL || rings->awake == NULL ? -ENOMEM : 0;
}

void aiod_rings_destroy(struct aiod_rings *rings)
{
    free(rings->rung);
    free(rings->wanted);
    free(rings->known);
    free(rings->awake);
    pthread_mutex_destroy(&rings->lock);
}

/* ---- the main loop's thread -------------------------------------------------------------------------------------- */

/* The slot of a ring, or of NULL the first unused one; slot_count: there is none. Lock held. */
static unsigned find_slot(const struct aiod_rings *rings, const struct aiod_polled *ring)
{
    unsigned slot = 0;

    while (slot < rings->slot_count && rings->wanted[slot] != ring) {
        slot++;
    }
    return slot;
}

/* Lock held. */
static void change(struct aiod_rings *rings, unsigned slot, struct aiod_polled *ring)
{
    rings->wanted[slot] = ring;
    atomic_fetch_add_explicit(&rings->changes, 1, memory_order_release);
}

int aiod_rings_add(struct aiod_rings *rings, struct aiod_polled *ring)
{
    unsigned slot;

    pthread_mutex_lock(&rings->lock);
    slot = find_slot(rings, NULL);
    if (slot < rings->slot_count) {
        ring->operations->get(ring);
        change(rings, slot, ring);
    }
    pthread_mutex_unlock(&rings->lock);
    return slot < rings->slot_count ? (int)slot : -EAGAIN;
}

unsigned aiod_rings_slot_of(struct aiod_rings *rings, const struct aiod_polled *ring)
{
    unsigned slot;

    pthread_mutex_lock(&rings->lock);
    slot = find_slot(rings, ring);
    pthread_mutex_unlock(&rings->lock);
    return slot;
}

bool aiod_rings_remove(struct aiod_rings *rings, const struct aiod_polled *ring)
{
    unsigned slot;

    pthread_mutex_lock(&rings->lock);
    slot = find_slot(rings, ring);
    if (slot < rings->slot_count) {
        change(rings, slot, NULL);
    }
    pthread_mutex_unlock(&rings->lock);
    return slot < rings->slot_count;
}

static void put_all(struct aiod_polled **slots, unsigned count)
{
    for (unsigned slot = 0; slot < count; slot++) {
        if (slots[slot] != NULL) {
            slots[slot]->operations->put(slots[slot]);
            slots[slot] = NULL;
        }
    }
}

void aiod_rings_clear(struct aiod_rings *rings)
{
    rings->awake_count = rings->known_count = 0;
    put_all(rings->known, rings->slot_count);
    put_all(rings->wanted, rings->slot_count);
}

/* ---- any thread -------------------------------------------------------------------------------------------------- */

void aiod_rings_rung(struct aiod_rings *rings, unsigned slot)
{
    atomic_fetch_or(&rings->rung[slot / WORD_BITS], UINT64_C(1) << slot % WORD_BITS);
    atomic_store(&rings->any_rung, true);
}

/* ---- the leader -------------------------------------------------------------------------------------------------- */

bool aiod_rings_has_news(const struct aiod_rings *rings)
{
    return atomic_load(&rings->any_rung) ||
           atomic_load_explicit(&rings->changes, memory_order_acquire) != rings->changes_seen;
}

static void make_awake(struct aiod_rings *rings, struct aiod_polled *ring)
{
    ring->awake_at = ++rings->awake_count;
    rings->awake[ring->awake_at - 1] = ring;
}

static void make_dormant(struct aiod_rings *rings, struct aiod_polled *ring)
{
    struct aiod_polled *last = rings->awake[--rings->awake_count];

    rings->awake[ring->awake_at - 1] = last;
    last->awake_at = ring->awake_at;
    ring->awake_at = 0;
}

static void wake(struct aiod_rings *rings, struct aiod_polled *ring)
{
    if (ring != NULL && ring->awake_at == 0) {
        ring->operations->set_sleeping(ring, false);
        make_awake(rings, ring);
    }
}

/* Replace the ring of a slot. The former one, whose reference is the caller's; NULL. */
static struct aiod_polled *replace(struct aiod_rings *rings, unsigned slot, struct aiod_polled *ring)
{
    struct aiod_polled *former = rings->known[slot];

    if (former != NULL && former->awake_at != 0) {
        make_dormant(rings, former);
    }
    rings->known[slot] = ring;
    rings->known_count -= former != NULL;
    rings->known_count += ring != NULL;
    if (ring != NULL) {
        ring->operations->get(ring);
        wake(rings, ring);
    }
    return former;
}

static void follow_changes(struct aiod_rings *rings)
{
    struct aiod_polled *removed = NULL;

    pthread_mutex_lock(&rings->lock);
    rings->changes_seen = atomic_load_explicit(&rings->changes, memory_order_acquire);
    for (unsigned slot = 0; slot < rings->slot_count; slot++) {
        struct aiod_polled *former = NULL;

        if (rings->known[slot] != rings->wanted[slot]) {
            former = replace(rings, slot, rings->wanted[slot]);
        }
        if (former != NULL) {
            former->next_removed = removed;
            removed = former;
        }
    }
    pthread_mutex_unlock(&rings->lock);
    while (removed != NULL) { /* without the lock: the last reference wakes the maker */
        struct aiod_polled *next = removed->next_removed;

        removed->operations->put(removed);
        removed = next;
    }
}

static void wake_rung(struct aiod_rings *rings)
{
    atomic_store(&rings->any_rung, false); /* before the bits are read: a later one sets it again */
    for (unsigned word = 0; word < words_of(rings); word++) {
        uint64_t bits = atomic_load(&rings->rung[word]) == 0 ? 0 : atomic_exchange(&rings->rung[word], 0);

        for (; bits != 0; bits &= bits - 1) {
            wake(rings, rings->known[word * WORD_BITS + (unsigned)__builtin_ctzll(bits)]);
        }
    }
}

void aiod_rings_update(struct aiod_rings *rings)
{
    if (atomic_load_explicit(&rings->changes, memory_order_acquire) != rings->changes_seen) {
        follow_changes(rings);
    }
    if (atomic_load(&rings->any_rung)) {
        wake_rung(rings);
    }
}

bool aiod_rings_has_dormant(const struct aiod_rings *rings)
{
    return rings->awake_count < rings->known_count;
}

bool aiod_rings_has_entries(const struct aiod_rings *rings)
{
    for (unsigned i = 0; i < rings->awake_count; i++) {
        if (rings->awake[i]->operations->has_entries(rings->awake[i])) {
            return true;
        }
    }
    return false;
}

bool aiod_rings_has_inflight(const struct aiod_rings *rings)
{
    for (unsigned i = 0; i < rings->awake_count; i++) {
        if (!rings->awake[i]->operations->seems_idle(rings->awake[i])) {
            return true;
        }
    }
    return false;
}

void aiod_rings_sleeping(struct aiod_rings *rings, bool sleeping)
{
    for (unsigned i = 0; i < rings->awake_count; i++) {
        rings->awake[i]->operations->set_sleeping(rings->awake[i], sleeping);
    }
}

/* May the ring become dormant? If so its client knows, and rings the doorbell from now on. */
static bool retires(struct aiod_polled *ring, bool sleeping)
{
    uint32_t head = ring->operations->taken(ring);
    bool unused = head == ring->retire_head && ring->operations->seems_idle(ring);

    ring->retire_head = head;
    if (!unused || sleeping) {
        return unused;
    }
    ring->operations->set_sleeping(ring, true);
    if (ring->operations->has_entries(ring)) {
        ring->operations->set_sleeping(ring, false);
        return false;
    }
    return true;
}

void aiod_rings_retire(struct aiod_rings *rings, bool sleeping)
{
    for (unsigned i = rings->awake_count; i-- > 0;) {
        if (retires(rings->awake[i], sleeping)) {
            make_dormant(rings, rings->awake[i]);
        }
    }
}
