/* Which bytes are valid UTF-8. */
#include "check.h"

#include <string.h>

#include "util/utf8.h"

static bool valid(const char *bytes)
{
    return aiod_utf8_valid(bytes, strlen(bytes));
}

static void text_is_valid(void)
{
    CHECK(valid("") && valid("plain\nwith a line end") && valid("Z\xc3\xbcrich"));
    CHECK(valid("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"));
}

static void zero_bytes_are_not(void)
{
    CHECK(!aiod_utf8_valid("a\0b", 3) && !aiod_utf8_valid("", 1));
}

static void malformed_text_is_not(void)
{
    static const char *const malformed[] = {
        "\x80",
        "\xbf",
        "\xc0\xaf",
        "\xc1\xbf",
        "\xc3",
        "\xc3(",
        "\xe0\x9f\xbf",
        "\xe2\x82",
        "\xe2\x28\xa1",
        "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf0\x90\x80",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "a\xfe",
    };

    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        CHECK(!valid(malformed[i]));
    }
}

/* The bytes behind the end are not looked at. */
static void a_character_that_is_cut_is_not(void)
{
    CHECK(!aiod_utf8_valid("\xc3\xbc", 1) && !aiod_utf8_valid("\xf0\x90\x80\x80", 3));
}

int main(void)
{
    text_is_valid();
    zero_bytes_are_not();
    malformed_text_is_not();
    a_character_that_is_cut_is_not();
    return 0;
}
