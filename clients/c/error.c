/*
 * error.c - the calling thread's last error, and the texts of reasons.
 */
#include "error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "aiod.h"

static _Thread_local char message[AIOD_RING_ERROR_MESSAGE_MAX + 256];
static _Thread_local uint32_t last_reason;

int aiod_fail(int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    last_reason = AIOD_RING_BY_KERNEL;
    return error;
}

int aiod_fail_because(uint32_t reason, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    last_reason = reason;
    return error;
}

uint32_t aiod_reason(void)
{
    return last_reason;
}

const char *aiod_error(void)
{
    return message;
}

#define AIOD_REASON(number, name, message) static_assert(AIOD_RING_##name == (number), "protocol/reasons.def");
#include "../../protocol/reasons.def"

const char *aiod_reason_text(uint32_t reason)
{
    switch (reason) {
#define AIOD_REASON(number, name, message)                                                                             \
    case number:                                                                                                       \
        return message;
#include "../../protocol/reasons.def"
    default:
        return "a reason that this library does not know";
    }
}
