/* utf8.c - checks UTF-8 by the table of RFC 3629, section 4. */
#include "util/utf8.h"

#include <stdint.h>

/* The bytes that follow `lead`, and the range of the first of them. -1: it leads nothing. */
static int follow(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    *high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead > 0 && lead < 0x80) {
        return 0;
    }
    if (lead < 0xc2 || lead > 0xf4) {
        return -1;
    }
    return lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
}

bool aiod_utf8_valid(const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        uint8_t low, high;
        int more = follow((uint8_t)bytes[i], &low, &high);

        if (more < 0 || (size_t)more > length - i - 1) {
            return false;
        }
        for (; more > 0; more--) {
            uint8_t byte = (uint8_t)bytes[++i];

            if (byte < low || byte > high) {
                return false;
            }
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}
