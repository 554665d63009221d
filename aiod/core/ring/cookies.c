/* cookies.c - the hash table of cookies. */
#include "ring/cookies.h"

#include <errno.h>
#include <stdlib.h>

int aiod_cookies_init(struct aiod_cookies *cookies, uint32_t count, uint64_t factor)
{
    cookies->chains = calloc(count, sizeof(struct aiod_cookie *));
    cookies->factor = factor | 1;
    cookies->bits = (unsigned)__builtin_ctz(count);
    return cookies->chains == NULL ? -ENOMEM : 0;
}

void aiod_cookies_destroy(struct aiod_cookies *cookies)
{
    free(cookies->chains);
}

/* One multiplication would put consecutive cookies into few chains with some factors. */
static struct aiod_cookie **chain_of(const struct aiod_cookies *cookies, uint64_t value)
{
    uint64_t hash = value * cookies->factor;

    hash = (hash ^ hash >> 33) * UINT64_C(0xff51afd7ed558ccd); /* a constant of MurmurHash3 */
    hash = (hash ^ hash >> 33) * cookies->factor;
    return &cookies->chains[cookies->bits == 0 ? 0 : hash >> (64 - cookies->bits)];
}

void aiod_cookies_add(struct aiod_cookies *cookies, struct aiod_cookie *cookie)
{
    struct aiod_cookie **chain = chain_of(cookies, cookie->value);

    cookie->next = *chain;
    cookie->link = chain;
    if (cookie->next != NULL) {
        cookie->next->link = &cookie->next;
    }
    *chain = cookie;
}

void aiod_cookies_remove(struct aiod_cookie *cookie)
{
    if (cookie->link == NULL) {
        return;
    }
    *cookie->link = cookie->next;
    if (cookie->next != NULL) {
        cookie->next->link = cookie->link;
    }
    cookie->link = NULL;
}

struct aiod_cookie *aiod_cookies_find(const struct aiod_cookies *cookies, uint64_t value, unsigned *looks)
{
    struct aiod_cookie *cookie = *chain_of(cookies, value);
    unsigned count = 1;

    while (cookie != NULL && cookie->value != value) {
        cookie = cookie->next;
        count++;
    }
    if (looks != NULL) {
        *looks += count;
    }
    return cookie;
}
