/*
 * attach.h - what a client receives from an engine when it attaches (attach.c).
 */
#ifndef LIBAIOD_ATTACH_H
#define LIBAIOD_ATTACH_H

#include "aiod.h"

/* Of a session that can be resumed at the next engine. */
struct aiod_token {
    bool known; /* the engine has given one */
    uint8_t bytes[AIOD_RING_TICKET_BYTES];
};

struct aiod_attachment {
    int socket;
    int doorbell;
    char *base; /* the ring's memory */
    uint64_t bytes;
    uint64_t request_bytes_max;
    uint32_t features;       /* bits of enum aiod_ring_feature */
    struct aiod_token token; /* if a resumable session was asked for */
    bool grace;              /* nothing but reopening is allowed before GO */
};

/*
 * Connect to the engine's socket at `path` and attach. `directory` is NULL if the user named the endpoint; else it
 * is the default directory that was found, and nothing is sent unless its owner can be trusted. `resumed` is NULL if
 * the session ends with its engine; else the session is to be resumable, and resumes that one if its token is known.
 * 0, or -errno with its message and nothing to release.
 */
int aiod_attachment_get(struct aiod_attachment *attachment, const char *path, const char *directory,
                        const struct aiod_options *options, const struct aiod_token *resumed, uint64_t deadline_ns);

/* Close and unmap what the attachment still owns: descriptors that are not -1, memory that is not MAP_FAILED. */
void aiod_attachment_release(const struct aiod_attachment *attachment);

#endif
