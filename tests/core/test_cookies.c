/* A request is found by its cookie in O(1), whatever cookies a client chooses. */
#include "check.h"
#include "ring/cookies.h"

#define COUNT 4096u
#define FACTOR UINT64_C(0x5851f42d4c957f2d)
#define LOOKS_MAX 4u /* on average */

static struct aiod_cookie all[COUNT];

static void check_all_found(uint64_t first, uint64_t step)
{
    struct aiod_cookies cookies;
    unsigned looks = 0;

    CHECK(aiod_cookies_init(&cookies, COUNT, FACTOR) == 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        all[i] = (struct aiod_cookie){.value = first + i * step};
        aiod_cookies_add(&cookies, &all[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(aiod_cookies_find(&cookies, all[i].value, &looks) == &all[i]);
    }
    CHECK(looks <= COUNT * LOOKS_MAX);
    for (uint32_t i = 0; i < COUNT; i += 2) {
        aiod_cookies_remove(&all[i]);
        aiod_cookies_remove(&all[i]); /* in no chain */
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(aiod_cookies_find(&cookies, all[i].value, NULL) == (i % 2 == 0 ? NULL : &all[i]));
    }
    aiod_cookies_destroy(&cookies);
}

/* With equal cookies the last one is found first, and then the one before it. */
static void check_equal_cookies(uint32_t count)
{
    struct aiod_cookies cookies;
    unsigned looks = 0;

    CHECK(aiod_cookies_init(&cookies, count, FACTOR) == 0);
    for (uint32_t i = 0; i < count; i++) {
        all[i] = (struct aiod_cookie){.value = 7};
        aiod_cookies_add(&cookies, &all[i]);
    }
    for (uint32_t i = count; i-- > 0;) {
        CHECK(aiod_cookies_find(&cookies, 7, &looks) == &all[i]);
        aiod_cookies_remove(&all[i]);
    }
    CHECK(looks == count && aiod_cookies_find(&cookies, 7, NULL) == NULL);
    aiod_cookies_destroy(&cookies);
}

int main(void)
{
    for (unsigned bit = 0; bit <= 52; bit++) {
        check_all_found(0, UINT64_C(1) << bit);
    }
    check_all_found(UINT64_MAX, UINT64_C(1) << 32 | 1); /* cookies as libaiod chooses them */
    check_equal_cookies(COUNT);
    check_equal_cookies(1);
    return 0;
}
