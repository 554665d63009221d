#include "error.h"

#include <stdarg.h>
#include <stdio.h>

#include "aiod.h"

static _Thread_local char message[AIOD_RING_ERROR_MESSAGE_MAX + 256];

int aiod_fail(int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    return error;
}

const char *aiod_error(void)
{
    return message;
}

const char *aiod_reason_text(uint32_t reason)
{
    static const char *const texts[] = {
        [AIOD_RING_BY_KERNEL] = "the system call failed in the daemon",
        [AIOD_RING_NO_HANDLE] = "there is no such handle: it was closed, or is another session's",
        [AIOD_RING_NO_ACCESS] = "the file is not open for that: choose another mode",
        [AIOD_RING_BAD_ENTRY] = "the request makes no sense",
        [AIOD_RING_TOO_LONG] = "the request is longer than the daemon's request_bytes_max",
        [AIOD_RING_OVER_CREDIT] = "more requests in flight than the ring has entries",
        [AIOD_RING_CANCELLED] = "cancelled before it was started: not executed",
        [AIOD_RING_DEADLINE] = "not started before its deadline: not executed",
        [AIOD_RING_NO_THREADS] = "the daemon can create no worker (TasksMax, RLIMIT_NPROC): not executed",
        [AIOD_RING_POISONED] = "an earlier flush of the file failed: close all its handles, and write its data again",
        [AIOD_RING_STOPPING] = "the daemon is stopping: connect again later",
        [AIOD_RING_NO_IOCTL] = "the export does not list this ioctl",
        [AIOD_RING_TOO_LARGE] = "the file would be larger than the export's max_file_bytes",
        [AIOD_RING_LATE] = "sent again too late: unknown whether done",
        [AIOD_RING_RESTARTED] = "the daemon was started again: write what was not flushed once more, then flush",
        [AIOD_RING_UNKNOWN] = "the engine has gone: unknown whether done",
        [AIOD_RING_NOT_REOPENED] = "the file could not be opened again at the next engine",
    };

    const char *text = reason < sizeof(texts) / sizeof(texts[0]) ? texts[reason] : NULL;

    return text != NULL ? text : "for a reason that this library does not know";
}
