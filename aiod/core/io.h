/*
 * io.h - what the pool carries out: a client's request (aiod_io), or an open or close (aiod_control).
 *
 * Made and freed on the main loop's thread; a worker has it between submit and reap, and then touches nothing of the
 * session but the handle's flushes and the file's poison flag.
 */
#ifndef AIOD_IO_H
#define AIOD_IO_H

#include <stdint.h>
#include <sys/types.h>

#include "buffers.h"
#include "confined_open.h"
#include "request.h"
#include "session.h"

enum aiod_task_kind {
    AIOD_TASK_IO,
    AIOD_TASK_CONTROL,
};

/* What every entry of the pool's queue starts with. */
struct aiod_task {
    struct aiod_request request; /* first: the pool hands back a pointer to it */
    enum aiod_task_kind kind;
};

/* A client's bytes to be written: a frame shared by the writes that name it. The main loop's thread only. */
struct aiod_payload {
    const char *data;
    size_t length;
    unsigned refs;
    void (*release)(struct aiod_payload *payload); /* called with the last reference */
};

struct aiod_io {
    struct aiod_task task;

    /* Constant until reaped. */
    struct aiod_session *session;
    struct aiod_handle *handle;
    struct aiod_file *file;
    uint64_t cookie;
    enum aiod_op op;
    int fd;
    uint64_t offset;
    uint64_t length;
    uint64_t charged; /* bytes of credit */

    struct aiod_buffer *buffer;   /* read: where to */
    uint64_t have;                /* read: bytes that are there already */
    struct aiod_payload *payload; /* write */
    const char *data;             /* write: in the payload */

    /* The session's requests in flight. */
    struct aiod_io *next;
    struct aiod_io *previous;
};

struct aiod_control {
    struct aiod_task task;
    enum aiod_op op;
    uint64_t tag; /* 0: nobody waits for the result */

    /* open */
    char *root;
    char *path;
    unsigned flags;
    mode_t mode;
    struct aiod_opened opened;

    /* close */
    int fd;
};

/* aiod_request.run of a client's request, by its op. */
int64_t aiod_io_run(struct aiod_request *request);

/* aiod_request.run of an open or close. */
int64_t aiod_control_run(struct aiod_request *request);

void aiod_payload_put(struct aiod_payload *payload);

#endif
