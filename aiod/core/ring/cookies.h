/*
 * cookies.h - a hash table of a ring's queued requests by cookie, so that a request to be cancelled is found in O(1).
 *
 * The table has as many chains as the ring has entries, and is in the engine's own memory. A client chooses its
 * cookies, and must not be able to choose their chains: each ring has a random factor for the hash. Requests with the
 * same cookie are in one chain, the last one first, and only that one is found. The caller holds the ring's lock.
 */
#ifndef AIOD_COOKIES_H
#define AIOD_COOKIES_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded in a request. All zero initially. */
struct aiod_cookie {
    uint64_t value;
    struct aiod_cookie *next;
    struct aiod_cookie **link; /* the pointer that points to it; NULL: in no chain */
};

struct aiod_cookies {
    struct aiod_cookie **chains;
    uint64_t factor; /* odd, random */
    unsigned bits;   /* there are 1 << bits chains */
};

/* `count` is a power of two. 0, or -ENOMEM. */
int aiod_cookies_init(struct aiod_cookies *cookies, uint32_t count, uint64_t factor);
void aiod_cookies_destroy(struct aiod_cookies *cookies);

void aiod_cookies_add(struct aiod_cookies *cookies, struct aiod_cookie *cookie);

/* Does nothing if the cookie is in no chain. */
void aiod_cookies_remove(struct aiod_cookie *cookie);

/*
 * The cookie with that value that was added last, or NULL. Adds the number of comparisons to `*looks`, unless it is
 * NULL.
 */
struct aiod_cookie *aiod_cookies_find(const struct aiod_cookies *cookies, uint64_t value, unsigned *looks);

#endif
