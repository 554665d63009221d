/*
 * memory_guard.c - the table of guarded mappings, and the SIGBUS handler that reads it without a lock.
 *
 * The handler runs on the thread that touched a missing page. It uses async-signal-safe calls only (mmap and mremap are
 * system calls without locks of their own in user space).
 */
#include "util/memory_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 64u
/* pages of one mapping that are replaced singly: each one splits the mapping, and the number of mappings is limited */
#define PAGES_MAX 1024u
#define ATTEMPTS_MAX 65536u /* then the whole mapping is replaced; if that does not help either, the process ends */

/*
 * One guarded mapping. The handler may read a slot while another thread writes it. A writer clears `start` first and
 * sets it last, and the handler reads `start` twice: values that it uses therefore belong together. Guarded mappings do
 * not overlap, and a mapping is not unguarded while a thread may touch it: the address of a fault belongs to at most
 * one guard.
 */
struct slot {
    atomic_uintptr_t start; /* 0: free */
    atomic_uintptr_t end;
    struct aiod_memory_guard *_Atomic guard;
};

/* The list grows and is never freed, because the handler takes no lock. */
struct table {
    struct slot slots[SLOTS];
    struct table *_Atomic next;
};

static struct table first_table;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER; /* held by threads that write slots */
static struct sigaction previous;
static uintptr_t page_bytes;

static struct aiod_memory_guard *find_guard(uintptr_t address)
{
    for (struct table *table = &first_table; table != NULL; table = atomic_load(&table->next)) {
        for (unsigned i = 0; i < SLOTS; i++) {
            struct slot *slot = &table->slots[i];
            uintptr_t start = atomic_load(&slot->start);
            uintptr_t end = atomic_load(&slot->end);
            struct aiod_memory_guard *guard = atomic_load(&slot->guard);

            if (start != 0 && address >= start && address < end && atomic_load(&slot->start) == start) {
                return guard;
            }
        }
    }
    return NULL;
}

/* ---- the SIGBUS handler: async-signal-safe, on the thread that touched the page ---------------------------------- */

/* Map the spare page over the missing page. This allocates a mapping and no memory. */
static bool replace_page(const struct aiod_memory_guard *guard, uintptr_t address)
{
    char *page = guard->start + ((address - (uintptr_t)guard->start) & ~(page_bytes - 1));

    return mremap(guard->spare, 0, page_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page;
}

/* Map anonymous memory elsewhere and move it: a mmap() with MAP_FIXED that fails may have unmapped the old pages. */
static bool replace_all(const struct aiod_memory_guard *guard)
{
    void *memory = mmap(NULL, guard->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory != MAP_FAILED &&
           mremap(memory, guard->bytes, guard->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, guard->start) == guard->start;
}

static bool replace(struct aiod_memory_guard *guard, uintptr_t address)
{
    unsigned replaced = atomic_fetch_add(&guard->replaced, 1);

    atomic_store(&guard->lost, true);
    return (replaced < PAGES_MAX && replace_page(guard, address)) || (replaced < ATTEMPTS_MAX && replace_all(guard));
}

/*
 * The fault is not in a guarded mapping: restore the previous handler. A fault is raised again when this handler
 * returns; a signal that was sent is not, and is raised here.
 */
static void restore_previous_handler(const siginfo_t *info)
{
    sigaction(SIGBUS, &previous, NULL);
    if (info->si_code <= 0) {
        raise(SIGBUS);
    }
}

static void handle(int number, siginfo_t *info, void *context)
{
    int error = errno;
    /* A misaligned access (BUS_ADRALN) is not cured by another page. */
    bool missing = info->si_code > 0 && info->si_code != BUS_ADRALN;
    struct aiod_memory_guard *guard = missing ? find_guard((uintptr_t)info->si_addr) : NULL;

    (void)number;
    (void)context;
    if (guard == NULL || !replace(guard, (uintptr_t)info->si_addr)) {
        restore_previous_handler(info);
    }
    errno = error;
}

/* ---- any thread -------------------------------------------------------------------------------------------------- */

static void install(void)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
}

/* Lock held. NULL if there is no memory. */
static struct slot *free_slot(void)
{
    for (struct table *table = &first_table;; table = atomic_load(&table->next)) {
        for (unsigned i = 0; i < SLOTS; i++) {
            if (atomic_load(&table->slots[i].start) == 0) {
                return &table->slots[i];
            }
        }
        if (atomic_load(&table->next) == NULL) {
            struct table *more = calloc(1, sizeof(*more));

            if (more == NULL) {
                return NULL;
            }
            atomic_store(&table->next, more);
        }
    }
}

static int add_guard(struct aiod_memory_guard *guard)
{
    struct slot *slot;

    pthread_mutex_lock(&table_lock);
    slot = free_slot();
    if (slot != NULL) {
        atomic_store(&slot->guard, guard);
        atomic_store(&slot->end, (uintptr_t)guard->start + guard->bytes);
        atomic_store(&slot->start, (uintptr_t)guard->start);
    }
    pthread_mutex_unlock(&table_lock);
    return slot == NULL ? -ENOMEM : 0;
}

static void remove_guard(const struct aiod_memory_guard *guard)
{
    pthread_mutex_lock(&table_lock);
    for (struct table *table = &first_table; table != NULL; table = atomic_load(&table->next)) {
        for (unsigned i = 0; i < SLOTS; i++) {
            if (atomic_load(&table->slots[i].guard) == guard) {
                atomic_store(&table->slots[i].start, 0);
                atomic_store(&table->slots[i].guard, NULL);
            }
        }
    }
    pthread_mutex_unlock(&table_lock);
}

int aiod_memory_guard_start(struct aiod_memory_guard *guard, char *start, uint64_t bytes)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int error;

    pthread_once(&once, install);
    guard->start = start;
    guard->bytes = bytes;
    atomic_init(&guard->lost, false);
    atomic_init(&guard->replaced, 0);
    guard->spare = mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (guard->spare == MAP_FAILED) {
        return -errno;
    }
    error = add_guard(guard);
    if (error < 0) {
        munmap(guard->spare, page_bytes);
    }
    return error;
}

void aiod_memory_guard_stop(struct aiod_memory_guard *guard)
{
    remove_guard(guard);
    munmap(guard->spare, page_bytes);
}

bool aiod_memory_guard_page_lost(const struct aiod_memory_guard *guard)
{
    return atomic_load_explicit(&guard->lost, memory_order_relaxed);
}

bool aiod_memory_guard_page_lost_at(const void *address)
{
    const struct aiod_memory_guard *guard = find_guard((uintptr_t)address);

    return guard != NULL && aiod_memory_guard_page_lost(guard);
}
