/* A possible loss of writes is reported once to each handle that was open. */
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

/* One letter per handle; s: its next flush fails. */
static void check(const char *wanted)
{
    for (int i = 0; i < HANDLES && wanted[i] != '\0'; i++) {
        CHECK(aiod_write_loss_unreported(&loss, &handles[i]) == (wanted[i] == 's'));
    }
}

static void without_a_loss_no_flush_fails(void)
{
    begin();
    enter(0, AIOD_HANDLE_NEW);
    enter(1, AIOD_HANDLE_RESUMED);
    check("..");
    CHECK(!aiod_write_loss_report(&loss, &handles[0]) && !aiod_write_loss_report(&loss, &handles[1]));
    enter(2, AIOD_HANDLE_SUSPECT);
    check("sss"); /* an earlier flush makes no difference */
}

static void each_resumed_handle_fails_once(void)
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

static void a_new_handle_fails_only_before_the_first_report(void)
{
    begin();
    enter(0, AIOD_HANDLE_SUSPECT);
    enter(1, AIOD_HANDLE_NEW);
    check("ss");
    CHECK(aiod_write_loss_report(&loss, &handles[1]));
    enter(2, AIOD_HANDLE_NEW);
    check("s..");
}

static void a_later_loss_is_reported_as_well(void)
{
    begin();
    enter(0, AIOD_HANDLE_NEW);
    enter(1, AIOD_HANDLE_NEW);
    aiod_write_loss_add(&loss);
    check("ss");
    CHECK(aiod_write_loss_report(&loss, &handles[0]));
    enter(2, AIOD_HANDLE_NEW);
    check(".s.");
    aiod_write_loss_add(&loss);
    check("sss");
    for (int i = 0; i < HANDLES; i++) { /* two losses before a flush are one failure */
        CHECK(aiod_write_loss_report(&loss, &handles[i]) && !aiod_write_loss_report(&loss, &handles[i]));
    }
    check("...");
}

int main(void)
{
    without_a_loss_no_flush_fails();
    each_resumed_handle_fails_once();
    a_new_handle_fails_only_before_the_first_report();
    a_later_loss_is_reported_as_well();
    return 0;
}
