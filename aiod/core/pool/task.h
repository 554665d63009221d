/* task.h - the common head of all entries of the pool's queue and done list, with their kind. */
#ifndef AIOD_TASK_H
#define AIOD_TASK_H

#include "pool/request.h"

enum aiod_task_kind {
    AIOD_TASK_IO,             /* an aiod_message_io */
    AIOD_TASK_CONTROL,        /* an aiod_control */
    AIOD_TASK_HANDLE_IDLE,    /* aiod_handle.ring_idle: no request of its ring is in flight on it any more */
    AIOD_TASK_RING_CLOSE,     /* an aiod_ring_request: a CLOSE_FILE that the main loop carries out */
    AIOD_TASK_RING_ALLOCATED, /* aiod_ring.allocated_notice */
    AIOD_TASK_RING_BROKEN,    /* aiod_ring.broken_notice */
    AIOD_TASK_RING_FREED,     /* aiod_ring.freed_notice */
};

struct aiod_task {
    struct aiod_request request; /* first: the pool returns a pointer to it */
    enum aiod_task_kind kind;
};

#endif
