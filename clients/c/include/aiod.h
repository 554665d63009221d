/*
 * aiod.h - libaiod: a C program's way to aiod on the same host, by the shared-memory ring (docs/ring.md).
 *
 *     struct aiod_client *client;
 *     if (aiod_connect(&client, "scratch", NULL) < 0) die(aiod_error());
 *     int64_t handle = aiod_open(client, "scratch/disk.img", AIOD_OPEN_READ, 0);
 *     aiod_pread(client, (uint32_t)handle, buffer, 4096, 0, AIOD_NO_TIMEOUT);
 *     aiod_close(client, (uint32_t)handle);
 *     aiod_disconnect(client);
 *
 * Every function that can fail returns a negative errno, and aiod_error() is a sentence about it. Any thread may call any
 * function, but aiod_disconnect() when another is inside one.
 *
 * After fork() a client is the parent's. In the child its functions fail with -EBADF or do nothing, and aiod_disconnect() gives back
 * what is the child's: descriptors and plain memory. Buffers are not there in the child (MADV_DONTFORK): to touch one ends it with
 * SIGSEGV. A child that only exits, or executes another program, need not care.
 *
 * A session ends with its engine (it has died, or the daemon is stopped): requests in flight end with -ECONNRESET,
 * aiod_ended() says why, and aiod_last_word() whether they may have been executed; buffers stay until aiod_disconnect(). A
 * program that goes on connects again, and writes once more what no flush had covered, unless the last word was
 * AIOD_RING_FLUSHED.
 *
 * With reconnect_timeout_ms the library does that, as far as it can. It attaches to the next engine that serves the export, in
 * whichever thread waits, reaps or calls meanwhile, opens the files again, and goes on: handles keep their numbers, buffers
 * stay what and where they are, and what is submitted meanwhile waits. Of what is in flight:
 *
 *   - what changes nothing (READ, FLUSH, SIZE, PREFETCH, CANCEL) is submitted again, and its deadline_ms begins anew;
 *   - so is all that was not executed: submitted meanwhile, refused by a daemon that stops, or unfinished when one that has
 *     stopped in order said that what is unfinished was not executed;
 *   - anything else ends with -EIO and AIOD_RING_UNKNOWN: it may have been done, in part, or not.
 *
 * If the engine has not stopped in order, the first flush of a handle with acknowledged changes that no flush has covered fails
 * once, with -EIO and AIOD_RING_RESTARTED: a disk may have failed to take them, with nobody there to hear of it. Write them
 * again, then flush. A file that cannot be opened again under its name, or that is another one by now (-ESTALE), is lost:
 * its requests end with that errno and AIOD_RING_NOT_REOPENED. An OPEN with EXCLUSIVE or TRUNCATE whose answer is lost is -EIO.
 *
 * With no engine in time, or one that has not gone but has ended the session (aiodctl kick), the session has ended as above;
 * what ends with -ECONNRESET then was not executed, or changes nothing. While there is no engine, waits keep their timeouts. When
 * there is one, the thread that goes on is in it until the files are open again, reconnect_timeout_ms at most; so
 * may be aiod_reap() and aiod_disarm(). aiod_fd() stays the same descriptor.
 */
#ifndef AIOD_H
#define AIOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "aiod_ring.h"

#ifdef __cplusplus
extern "C" {
#endif

#define AIOD_NO_TIMEOUT (-1)

struct aiod_client;

/* Zero is a default for each. */
struct aiod_options {
    const char
        *endpoint;    /* of the daemon: "ipc:///run/aiod/aiod.sock"; NULL: the environment's AIOD_ENDPOINT, or that */
    uint32_t entries; /* most requests in flight; a power of two; 0: 256 */
    uint64_t area_bytes;   /* of the buffer area; 0: 8 MiB */
    uint64_t spin_max_ns;  /* longest that a waiting thread looks for a completion before it sleeps; 0: 100,000 */
    bool never_spin;       /* sleeps at once */
    const char *software;  /* for the daemon's log; NULL: "libaiod" */
    const uint8_t *ticket; /* AIOD_RING_TICKET_BYTES: of a session that there is; NULL: begin one */

    /* How long another engine is looked for when this one has gone, see above; 0: not at all. Not used with a ticket. */
    uint32_t reconnect_timeout_ms;

    /*
     * How long aiod_connect(), aiod_open() and aiod_close() wait for the engine's answer; 0: 30,000; UINT32_MAX: as long as it
     * takes. The time in which another engine is looked for does not count.
     */
    uint32_t call_timeout_ms;
};

/* A request. The caller keeps it, and leaves it alone from aiod_submit() until it is done. */
struct aiod_op {
    /* What is asked; see aiod_ring.h for which operation uses what. */
    uint16_t op; /* enum aiod_ring_op */
    uint16_t flags;
    uint32_t handle;
    uint64_t offset; /* bytes */
    uint64_t length; /* bytes */
    void *buffer;    /* from aiod_alloc() */
    uint32_t source;
    uint32_t deadline_ms; /* not started by then, it ends with ETIMEDOUT; 0: none */
    uint64_t source_offset;
    bool awaited; /* aiod_reap() never returns it: somebody will use aiod_wait() or aiod_look_for() */
    void *user;   /* the caller's */

    /* What came of it. */
    int64_t result;   /* bytes (APPEND: offset), or -errno */
    uint32_t written; /* bytes known to be done by one that failed */
    uint32_t reason;  /* enum aiod_ring_reason */

    /* The library's. */
    uint64_t cookie;
    uint32_t state;
    bool listed;
    bool sent;
    struct aiod_op *next;
};

/* ---- sessions --------------------------------------------------------------------------------------------------------- */

/*
 * Begin a session with the engine that serves `export`. `options` may be NULL. -EACCES: nobody has named an endpoint, and
 * somebody else may have put the sockets there that were found.
 */
int aiod_connect(struct aiod_client **client, const char *export_name, const struct aiod_options *options);

/* The same by the path of the engine's ring socket. */
int aiod_attach(struct aiod_client **client, const char *socket_path, const struct aiod_options *options);

/* End it: files are closed, what is in flight ends with -ESHUTDOWN, and whoever waits is woken. Buffers stay. */
void aiod_shutdown(struct aiod_client *client);

/* The same, and free all there is, buffers too. */
void aiod_disconnect(struct aiod_client *client);

/* Is this process a fork of the one that has connected? */
bool aiod_forked(const struct aiod_client *client);

/* Why the session ended, as a positive errno; 0: it has not, so far as is known. */
int aiod_ended(struct aiod_client *client);

/* What the engine that there is has said as it stopped in order: bits of enum aiod_ring_shutdown_notice; 0: nothing. */
unsigned aiod_last_word(const struct aiod_client *client);

/* Most bytes of one request. */
uint64_t aiod_request_bytes_max(const struct aiod_client *client);

/*
 * Open "EXPORT/PATH" with `flags` of enum aiod_open_flag; a handle, or -errno. -ETIMEDOUT: unknown whether done (created,
 * truncated); a file that is opened later is closed at once. Calls of several threads do not wait for each other.
 */
int64_t aiod_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode);

/* Close a handle when what is in flight on it has completed. -ETIMEDOUT: that is still to come. */
int aiod_close(struct aiod_client *client, uint32_t handle);

/* The sentence about the calling thread's last failure. */
const char *aiod_error(void);

/* What a request's `reason` means, for people. */
const char *aiod_reason_text(uint32_t reason);

/* ---- buffers: memory of the ring, which the engine reads into and writes from --------------------------------------------- */

/* At least `bytes`, aligned to 4096; NULL: there are none so large now. Not there in a forked child, see above. */
void *aiod_alloc(struct aiod_client *client, uint64_t bytes);

/* Give it back; NULL is ignored. Not while a request uses it. */
void aiod_free(struct aiod_client *client, void *buffer);

/* The largest that there could be. */
uint64_t aiod_alloc_max(const struct aiod_client *client);

/* Do the `bytes` at `data` lie in it, so that they can be a request's buffer? */
bool aiod_in_area(struct aiod_client *client, const void *data, uint64_t bytes);

/* ---- requests ----------------------------------------------------------------------------------------------------------- */

/*
 * Submit up to `count` requests in order; returns how many (fewer: `entries` are in flight). Each ends exactly once, and is
 * then returned by aiod_reap(), unless somebody waits for it by aiod_wait(). -ECONNRESET: the session has ended.
 */
int aiod_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count);

/* Take up to `max` requests that are done, without waiting. Returns how many. */
unsigned aiod_reap(struct aiod_client *client, struct aiod_op **done, unsigned max);

/* Wait until aiod_reap() has something. 0, -ETIMEDOUT, or -ECONNRESET with nothing in flight any more. */
int aiod_wait_any(struct aiod_client *client, int64_t timeout_ns);

/*
 * For several threads that reap for each other: how many requests are done so far, and wait until that is not `seen` any
 * more. 0 or -ETIMEDOUT.
 */
uint64_t aiod_done_count(struct aiod_client *client);
int aiod_wait_count(struct aiod_client *client, uint64_t seen, int64_t timeout_ns);

/*
 * Look for `op` up to so many times (each some tens of nanoseconds), without ever sleeping. 1: it is done, and aiod_reap() does
 * not return it; 0: it is not; -EAGAIN: the engine sleeps, so that there was no use in looking.
 */
int aiod_look_for(struct aiod_client *client, struct aiod_op *op, unsigned looks);

/* Wait until `op` is done; aiod_reap() does not return it then. 0, or -ETIMEDOUT: it is in flight still. */
int aiod_wait(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns);

/*
 * Nobody cares for `op` any more, which malloc() made: once it is done, which may be now, its buffer is given back and it is
 * freed.
 */
void aiod_abandon(struct aiod_client *client, struct aiod_op *op);

/* Nobody awaits `op` any more: aiod_reap() returns it, now or later. */
void aiod_await_no_more(struct aiod_client *client, struct aiod_op *op);

/* Is it done? It may still be to be reaped. */
bool aiod_done(const struct aiod_op *op);

/* Have `op` ended before it is started: 1: it is ending so; 0: too late; or -errno. It ends as any other. */
int aiod_cancel(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns);

/* ---- event loops -------------------------------------------------------------------------------------------------------- */

/* Readable when completions have come since aiod_arm(), when the session has ended, and when it is time to look for an engine; or
 * -errno. The same descriptor for as long as the client lives. */
int aiod_fd(struct aiod_client *client);

/*
 * One thread at a time sleeps on aiod_fd(). Others may wait, reap and call meanwhile: what they take off the ring without
 * reaping it wakes the event loop.
 */

/* Before sleeping on aiod_fd(). False: do not sleep, aiod_reap() has something. */
bool aiod_arm(struct aiod_client *client);

/* After waking: make it unreadable. */
void aiod_disarm(struct aiod_client *client);

/* ---- blocking, with a copy ------------------------------------------------------------------------------------------------ */

/*
 * Bytes, fewer only at the end of the file; or -errno. -ETIMEDOUT: unknown whether done. Long ones go in parts, of which a few
 * are in flight at once. While requests in flight, or other blocking calls, have what is needed, they wait for room; -ENOBUFS:
 * the caller has the whole area itself.
 */
int64_t aiod_pread(struct aiod_client *client, uint32_t handle, void *data, uint64_t length, uint64_t offset,
                   int64_t timeout_ns);
int64_t aiod_pwrite(struct aiod_client *client, uint32_t handle, const void *data, uint64_t length, uint64_t offset,
                    int64_t timeout_ns);
int64_t aiod_flush(struct aiod_client *client, uint32_t handle, int64_t timeout_ns);

/* Of the calling thread's last aiod_pwrite() that failed: bytes from the beginning on that are known to be done. */
uint64_t aiod_written(void);

#ifdef __cplusplus
}
#endif

#endif
