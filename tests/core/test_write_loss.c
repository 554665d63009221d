/* What one handle has written may be lost: each one that was there is told, once. */
#include "check.h"

#include <string.h>

#include "ops/write_loss.h"

enum {
    HANDLES = 3
};

static struct aiod_write_loss loss;
static struct aiod_write_loss_reader handles[HANDLES];

static void begin(void)
{
    memset(&loss, 0, sizeof(loss));
    memset(handles, 0, sizeof(handles));
}

static void enter(int i, enum aiod_handle_origin origin)
{
    handles[i] = (struct aiod_write_loss_reader){0};
    aiod_write_loss_add_handle(&loss, &handles[i], origin);
}

/* A letter for each handle: s: its next flush fails. */
static void check(const char *wanted)
{
    for (int i = 0; i < HANDLES && wanted[i] != '\0'; i++) {
        CHECK(aiod_write_loss_unreported(&loss, &handles[i]) == (wanted[i] == 's'));
    }
}

static void nobody_is_told_of_nothing(void)
{
    begin();
    enter(0, AIOD_HANDLE_NEW);
    enter(1, AIOD_HANDLE_RESUMED);
    check("..");
    CHECK(!aiod_write_loss_report(&loss, &handles[0]) && !aiod_write_loss_report(&loss, &handles[1]));
    enter(2, AIOD_HANDLE_SUSPECT);
    check("sss"); /* to have flushed before does not help */
}

static void each_that_was_there_is_told_once(void)
{
    begin();
    enter(0, AIOD_HANDLE_RESUMED);
    check(".");
    enter(1, AIOD_HANDLE_SUSPECT);
    check("ss");
    CHECK(aiod_write_loss_report(&loss, &handles[0]) && !aiod_write_loss_report(&loss, &handles[0]));
    enter(2, AIOD_HANDLE_SUSPECT);
    check(".ss");
    enter(2, AIOD_HANDLE_RESUMED);
    check(".ss");
    CHECK(aiod_write_loss_report(&loss, &handles[1]) && aiod_write_loss_report(&loss, &handles[2]));
    check("...");
}

static void a_new_one_is_told_only_where_nobody_was(void)
{
    begin();
    enter(0, AIOD_HANDLE_SUSPECT);
    enter(1, AIOD_HANDLE_NEW);
    check("ss");
    CHECK(aiod_write_loss_report(&loss, &handles[1]));
    enter(2, AIOD_HANDLE_NEW);
    check("s..");
}

int main(void)
{
    nobody_is_told_of_nothing();
    each_that_was_there_is_told_once();
    a_new_one_is_told_only_where_nobody_was();
    return 0;
}
