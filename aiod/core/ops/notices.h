/*
 * notices.h - messages to the supervisor's descriptor store (engine_api/fd_store_messages.py), from workers.
 *
 * A worker waits for room in the socket, but not for a supervisor that is stopped. Thread-safe, without locks.
 */
#ifndef AIOD_NOTICES_H
#define AIOD_NOTICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the store has to know of a session's files in one export, in msgpack. */
struct aiod_keeping {
    const char *token;  /* of the session */
    size_t token_bytes; /* 0: nothing is kept */
    const char *record; /* the first members of the record, with the head of its array */
    size_t record_bytes;
};

/* A file whose descriptor is kept. */
struct aiod_kept {
    uint32_t handle;
    unsigned flags; /* of its OPEN */
    uint64_t dev;
    uint64_t ino;
    int fd; /* stays the caller's */
};

/* A flush of the file has failed. */
void aiod_notice_poisoned(int socket, uint64_t dev, uint64_t ino);

/* False: it is not kept. */
bool aiod_notice_keep(int socket, const struct aiod_keeping *keeping, const struct aiod_kept *kept);

/* The file is closed. */
void aiod_notice_drop(int socket, const struct aiod_keeping *keeping, uint32_t handle);

#endif
