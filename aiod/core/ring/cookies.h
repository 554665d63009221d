/*
 * cookies.h - a ring's queued requests by the cookies that its client chose for them: who is to be cancelled is found in one
 * look, however many there are.
 *
 * As large as the ring has entries, and in the engine's own memory. The client chooses the cookies and must not be able to
 * choose their places: so the hash has a factor that is drawn for each ring. Requests with one and the same cookie are in one
 * chain, the last one first; no more than that one is looked for.
 */
#ifndef AIOD_COOKIES_H
#define AIOD_COOKIES_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded in what has the cookie. All zero at first. */
struct aiod_cookie {
    uint64_t value;
    struct aiod_cookie *next;
    struct aiod_cookie **link; /* what points to it; NULL: it is in no chain */
};

struct aiod_cookies {
    struct aiod_cookie **chains;
    uint64_t factor; /* odd */
    unsigned bits;   /* there are 1 << bits chains */
};

/* `count` is a power of two. 0, or -ENOMEM. */
int aiod_cookies_init(struct aiod_cookies *cookies, uint32_t count, uint64_t factor);
void aiod_cookies_destroy(struct aiod_cookies *cookies);

void aiod_cookies_add(struct aiod_cookies *cookies, struct aiod_cookie *cookie);

/* Also of what is in no chain. */
void aiod_cookies_remove(struct aiod_cookie *cookie);

/* The one with that value which was added last, or NULL. `*looks` (NULL: do not count) grows by the cookies compared. */
struct aiod_cookie *aiod_cookies_find(const struct aiod_cookies *cookies, uint64_t value, unsigned *looks);

#endif
