/* What one handle has written may be lost: each one that was there is told, once. */
#include "check.h"

#include <string.h>

#include "ops/doubt.h"

enum {
    HANDLES = 3
};

static struct aiod_doubt doubt;
static struct aiod_doubter handles[HANDLES];

static void begin(void)
{
    memset(&doubt, 0, sizeof(doubt));
    memset(handles, 0, sizeof(handles));
}

static void enter(int i, enum aiod_comer comer)
{
    handles[i] = (struct aiod_doubter){0};
    aiod_doubt_enter(&doubt, &handles[i], comer);
}

/* A letter for each handle: s: its next flush fails. */
static void check(const char *wanted)
{
    for (int i = 0; i < HANDLES && wanted[i] != '\0'; i++) {
        CHECK(aiod_doubt_is(&doubt, &handles[i]) == (wanted[i] == 's'));
    }
}

static void nobody_is_told_of_nothing(void)
{
    begin();
    enter(0, AIOD_COMER_NEW);
    enter(1, AIOD_COMER_BACK);
    check("..");
    CHECK(!aiod_doubt_tell(&doubt, &handles[0]) && !aiod_doubt_tell(&doubt, &handles[1]));
    enter(2, AIOD_COMER_SUSPECT);
    check("sss"); /* to have flushed before does not help */
}

static void each_that_was_there_is_told_once(void)
{
    begin();
    enter(0, AIOD_COMER_BACK);
    check(".");
    enter(1, AIOD_COMER_SUSPECT);
    check("ss");
    CHECK(aiod_doubt_tell(&doubt, &handles[0]) && !aiod_doubt_tell(&doubt, &handles[0]));
    enter(2, AIOD_COMER_SUSPECT);
    check(".ss");
    enter(2, AIOD_COMER_BACK);
    check(".ss");
    CHECK(aiod_doubt_tell(&doubt, &handles[1]) && aiod_doubt_tell(&doubt, &handles[2]));
    check("...");
}

static void a_new_one_is_told_only_where_nobody_was(void)
{
    begin();
    enter(0, AIOD_COMER_SUSPECT);
    enter(1, AIOD_COMER_NEW);
    check("ss");
    CHECK(aiod_doubt_tell(&doubt, &handles[1]));
    enter(2, AIOD_COMER_NEW);
    check("s..");
}

int main(void)
{
    nobody_is_told_of_nothing();
    each_that_was_there_is_told_once();
    a_new_one_is_told_only_where_nobody_was();
    return 0;
}
