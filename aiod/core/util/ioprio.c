/* ioprio.c - ioprio_set(2) with a per-thread memory of the last priority. */
#include "util/ioprio.h"

#include <linux/ioprio.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Thread_local int current;

static long set(int priority)
{
    return syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority);
}

void aiod_ioprio_set(int priority)
{
    if (priority != current && set(priority) == 0) {
        current = priority;
    }
}

bool aiod_ioprio_allowed(void)
{
    return set(IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 4)) == 0 && set(0) == 0;
}
