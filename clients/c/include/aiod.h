/*
 * aiod.h - libaiod: file I/O through an aiod daemon on the same host, by a shared-memory ring (docs/ring.md).
 *
 *     struct aiod_client *client;
 *     int64_t handle;
 *
 *     if (aiod_connect(&client, "scratch", NULL) < 0) {
 *         die(aiod_error());
 *     }
 *     handle = aiod_open(client, "scratch/disk.img", AIOD_OPEN_READ, 0);
 *     if (handle < 0 || aiod_pread(client, (uint32_t)handle, data, 4096, 0, AIOD_NO_TIMEOUT) < 0) {
 *         die(aiod_error());
 *     }
 *     aiod_close(client, (uint32_t)handle);
 *     aiod_disconnect(client);
 *
 * There are three ways to use a client: the blocking calls above; requests in flight that threads wait for
 * (aiod_submit(), aiod_wait()); and an event loop (aiod_fd()). They can be mixed.
 *
 * UNITS
 *     Offsets, lengths and sizes are bytes. Names of times end in their unit. A timeout below 0 (AIOD_NO_TIMEOUT)
 *     means none; a timeout of 0 does not wait.
 *
 * ERRORS
 *     A function that can fail returns a negative errno. All but the waits and aiod_look_for() also keep a message for
 *     aiod_error(). Each function lists the errnos of its own below. Every function that needs the session can also
 *     return
 *
 *     -ECONNRESET    the session has ended with its engine
 *     -ESHUTDOWN     the session has ended by aiod_shutdown()
 *     -EBADF         the client belongs to the parent process (see FORK), or, with a handle: no such handle
 *     -ENOMEM        out of memory
 *
 *     docs/operations.md has the errnos of requests.
 *
 * THREADS
 *     Any thread may call any function at any time, except that aiod_disconnect() must not run while another thread
 *     is in a function of the same client. A struct aiod_op, and the buffer it names, must not be used by two
 *     threads at once, except that one thread may cancel a request that another one waits for. No function may be
 *     called from a signal handler. Signals interrupt no function: libaiod repeats the system call.
 *
 * FORK
 *     After fork() the client belongs to the parent. In the child its functions fail with -EBADF or do nothing, and
 *     aiod_disconnect() releases the child's copies of descriptors and plain memory. The ring's memory is not
 *     mapped in the child (MADV_DONTFORK): access to a buffer ends the child with SIGSEGV. A child that only calls
 *     execve() or exits needs no care.
 *
 * THE END OF A SESSION
 *     A session ends with its engine: the engine has died, or the daemon has stopped. Requests in flight end with
 *     -ECONNRESET, those that the engine had not taken with the reason AIOD_RING_NOT_TAKEN: they were not executed, and
 *     never will be. aiod_ended() reports the errno, and aiod_last_word() whether the others may have been executed.
 *     Buffers stay valid until aiod_disconnect(). To continue, connect again and repeat the writes that no flush has
 *     covered, unless the last word was AIOD_RING_FLUSHED.
 *
 * RECONNECTING
 *     With reconnect_timeout_ms the library continues by itself, as far as it can. It attaches to the next engine
 *     that serves the export, in any thread that waits, reaps or calls, opens the files again, and continues.
 *     Handles keep their numbers, buffer addresses and contents are preserved, and new requests wait. Of the
 *     requests in flight
 *
 *     - those that change nothing (READ, FLUSH, SIZE and the like) are submitted again, with a new deadline_ms;
 *     - those that were not executed are submitted again: requests submitted after the engine had gone, or that it had
 *       not taken, requests that a stopping daemon refused, and unfinished ones if the daemon stopped in order and
 *       reported that it had not executed them;
 *     - all others end with -EIO and AIOD_RING_UNKNOWN: they may be done, done in part, or not done.
 *
 *     The daemon keeps the files of a dead engine: a handle has the same file at the next one, whatever has become of
 *     its name, and a flush covers what the dead engine had acknowledged. It fails with -EIO if the disk has failed to
 *     take that.
 *
 *     Nothing is kept if the whole daemon was killed, or had more files open than it can keep. Then the first flush of
 *     a handle with acknowledged but unflushed changes fails once, with -EIO and AIOD_RING_RESTARTED: the disk may have
 *     failed to take them while no process could hear of it. Repeat those writes, then flush again. A file that cannot
 *     be opened again under its name, or that is another file by now (-ESTALE), is lost: its requests end with that
 *     errno and AIOD_RING_NOT_REOPENED. aiod_open() with EXCLUSIVE or TRUNCATE fails with -EIO if its answer was lost.
 *
 *     The session ends as above if no engine serves the export in time, or if the engine still runs and has ended
 *     the session itself (aiodctl kick). A request that then ends with -ECONNRESET was not executed, or changes
 *     nothing.
 *
 *     Waits keep their timeouts while there is no engine. The thread that attaches stays in its call until the
 *     files are open again, for reconnect_timeout_ms at most; that includes aiod_reap() and aiod_disarm().
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

/* Zero selects the default of each member. The strings are copied. */
struct aiod_options {
    const char *endpoint;  /* of the daemon, as "ipc:///run/aiod/aiod.sock"; default: AIOD_ENDPOINT, else it is found */
    uint32_t entries;      /* maximum of requests in flight, a power of two; default: 256 */
    uint64_t area_bytes;   /* size of the buffer area; default: 8 MiB */
    uint64_t spin_max_ns;  /* how long a waiting thread polls before it sleeps, at most; default: 100,000 */
    bool never_spin;       /* sleep at once instead */
    const char *software;  /* the program's name in the daemon's log; default: "libaiod" */
    const uint8_t *ticket; /* AIOD_RING_TICKET_BYTES: attach to this existing session; NULL: begin a session */

    /*
     * How long to look for another engine after this one has gone (see RECONNECTING); 0: not. Ignored with a
     * ticket.
     */
    uint32_t reconnect_timeout_ms;

    /*
     * How long aiod_connect(), aiod_open() and aiod_close() wait for the engine's answer; default: 30,000;
     * UINT32_MAX: no limit. The time in which the library looks for another engine does not count.
     */
    uint32_t call_timeout_ms;
};

/*
 * A request. Set the first members, the rest to zero. The structure and its buffer belong to the library from
 * aiod_submit() until the request is done: until aiod_reap() returns it, aiod_wait() returns 0 or aiod_look_for()
 * returns 1. Then it can be submitted again.
 */
struct aiod_op {
    /* The request; aiod_ring.h tells which operation uses which member. */
    uint16_t op;            /* enum aiod_ring_op */
    uint16_t flags;         /* AIOD_RING_FUA, ... */
    uint32_t handle;        /* from aiod_open() */
    uint64_t offset;        /* in the file */
    uint64_t length;        /* at most aiod_request_bytes_max() for READ, WRITE and APPEND */
    void *buffer;           /* from aiod_alloc() */
    uint32_t source;        /* COPY_RANGE: the handle to copy from */
    uint32_t deadline_ms;   /* end with -ETIMEDOUT if not started by then, counted from submission; 0: no deadline */
    uint64_t source_offset; /* COPY_RANGE: where to copy from */
    bool awaited; /* a thread will use aiod_wait() or aiod_look_for(): aiod_reap() never returns the request */
    void *user;   /* the caller's; not used by the library */

    /* The result. */
    int64_t result;   /* bytes (APPEND: the offset of the data), or -errno */
    uint32_t written; /* of a failed request: bytes from its beginning on that are known to be done */
    uint32_t reason;  /* of a failed request: enum aiod_ring_reason */

    /* Private to the library. */
    uint64_t cookie;
    uint32_t state;
    bool listed;
    bool sent;
    struct aiod_op *next;
};

/* ---- sessions --------------------------------------------------------------------------------------------------- */

/*
 * Connect to the engine that serves the export, and begin a session with it. `options` may be NULL.
 *
 * Returns 0 and sets *client; release the client with aiod_disconnect(). Errors:
 *
 *     -EINVAL           `export_name` is no name of an export, an option is out of range, or the endpoint is
 *                       not on this host
 *     -ENOENT           no daemon listens, or it has no such export
 *     -ECONNREFUSED     the daemon has gone and left its socket
 *     -EACCES           this user may not connect; or no endpoint was named and another user may have put the
 *                       socket there
 *     -ENAMETOOLONG     the path of the socket is longer than the kernel allows
 *     -EAGAIN           the engine or the user has the maximum of sessions or rings, or serves its earlier clients
 *                       first
 *     -EDQUOT           the ring is larger than the user's limits allow
 *     -ENOBUFS          the ring is larger than the rest of the engine's ring_bytes_max
 *     -ESHUTDOWN        the daemon is stopping
 *     -ETIMEDOUT        no answer within call_timeout_ms
 *     -EPROTO, -EPROTONOSUPPORT    the engine is of another version
 *     -ENOMEM, -EMFILE, ...        of the system calls
 */
int aiod_connect(struct aiod_client **client, const char *export_name, const struct aiod_options *options);

/* As aiod_connect(), by the path of the engine's ring socket. `options->endpoint` is ignored. */
int aiod_attach(struct aiod_client **client, const char *socket_path, const struct aiod_options *options);

/*
 * End the session: its files are closed, requests in flight end with -ESHUTDOWN, and threads that wait are woken.
 * Other threads may be in functions of the client. Buffers stay valid until aiod_disconnect().
 */
void aiod_shutdown(struct aiod_client *client);

/* End the session and free the client with all its buffers. No other thread may be in a function of the client. */
void aiod_disconnect(struct aiod_client *client);

/* Is this process a child that was forked after aiod_connect()? */
bool aiod_forked(const struct aiod_client *client);

/* Returns the positive errno with which the session has ended; 0: it has not ended as far as is known. */
int aiod_ended(struct aiod_client *client);

/*
 * Returns the shutdown notice of the present engine: bits of enum aiod_ring_shutdown_notice. 0: the engine has not
 * stopped, or not in order.
 */
unsigned aiod_last_word(const struct aiod_client *client);

/* Returns the maximum length of a READ, WRITE or APPEND. The blocking calls take any length. */
uint64_t aiod_request_bytes_max(const struct aiod_client *client);

/*
 * Open a file, by the ring if that is possible. `path` is "EXPORT/PATH", or "EXPORT" if it is a file or a device; `flags` are of enum
 * aiod_open_flag; `mode` has the permission bits of a file that is created. Calls of several threads do not wait
 * for each other.
 *
 * Returns a handle, which is above 0 and fits into uint32_t. Errors:
 *
 *     -EINVAL                 flags that are unknown or exclude each other
 *     -ENAMETOOLONG           a path of more than AIOD_RING_PATH_MAX bytes
 *     -ENOENT, -EEXIST, -EISDIR, ...   of the file system; -ENOENT also for an export that the engine does not serve
 *     -EACCES, -EROFS         the export, the user's permissions or the file's do not allow it
 *     -EMFILE, -ENFILE        the session, the user or the engine has the maximum of handles
 *     -EAGAIN                 too many opens of the session wait already
 *     -ESHUTDOWN              the daemon is stopping
 *     -ETIMEDOUT              no answer within call_timeout_ms, or not opened within the daemon's open_timeout_s:
 *                             unknown whether the file was created or truncated; a file that is opened later is
 *                             closed at once
 *     -EIO                    see RECONNECTING
 */
int64_t aiod_open(struct aiod_client *client, const char *path, unsigned flags, unsigned mode);

/*
 * Close a handle. New requests on it fail with -EBADF at once; the call returns when those in flight are done.
 *
 * Returns 0. Errors: -EBADF: no such handle; -ETIMEDOUT: requests are still in flight, and the handle is closed
 * after them.
 */
int aiod_close(struct aiod_client *client, uint32_t handle);

/*
 * Lock a range of a file against other clients, daemons and programs that lock (docs/distributed.md). Locks are advisory:
 * who does not lock is not kept off. `flags`: AIOD_LOCK_EXCLUSIVE for a file that is open for writing, AIOD_LOCK_SHARED
 * for one that is open for reading. `length` 0: up to any end that the file has or will have. The calling thread waits
 * for `timeout_ns`; 0: the range has to be free now. Locks end with aiod_unlock(), aiod_close() and the session.
 *
 * With reconnect_timeout_ms the library claims the locks from the next engine (see RECONNECTING). A lock that others may
 * have had in between is lost. Then all requests on the handle but FLUSH end with -EIO and AIOD_RING_LOCK_LOST, until
 * aiod_unlock() has released the lost lock, or aiod_lock() has taken its place.
 *
 * Returns 0. Errors:
 *
 *     -EAGAIN, -ETIMEDOUT     others have a lock of a part of the range: now, or for `timeout_ns`
 *     -EDEADLK                this handle has, or waits for, a lock of a part of the range
 *     -EBADF                  also: not open for writing, or for reading
 *     -EINVAL                 unknown flags, or a range that ends behind byte 2^63 - 2
 *     -ENOLCK                 the session has 1024 locks, or the file system has none left
 *     -EOPNOTSUPP             the file system or the engine has no locks, or the session has not begun on the ring's socket
 *     -EPERM                  the export does not allow locks
 *     -ECANCELED              aiod_unlock() or aiod_close() of another thread came first
 *     -ESHUTDOWN              the daemon is stopping
 *     -ETIMEDOUT              also: no answer within call_timeout_ms after that; a lock that is granted later is released
 */
int aiod_lock(struct aiod_client *client, uint32_t handle, unsigned flags, uint64_t offset, uint64_t length,
              int64_t timeout_ns);

/*
 * Release the handle's locks in a range, each as a whole, after the handle's requests that are in flight. `length` as of
 * aiod_lock(). Releasing what is not locked is no error.
 *
 * Returns 0; or 1: a lock that was released had been lost. Errors:
 *
 *     -EINVAL        a lock reaches beyond the range
 *     -ETIMEDOUT     requests of the handle are still in flight after call_timeout_ms: nothing was released. Or no answer
 *                    in time: the locks are released later
 *     -EOPNOTSUPP    as of aiod_lock()
 */
int aiod_unlock(struct aiod_client *client, uint32_t handle, uint64_t offset, uint64_t length);

/* Returns the message of the calling thread's last failure. It is valid until the thread's next failure. */
const char *aiod_error(void);

/*
 * Returns the reason (enum aiod_ring_reason) of the calling thread's last failure, where the engine has given one:
 * of a call on a file or a path. Else AIOD_RING_BY_KERNEL.
 */
uint32_t aiod_reason(void);

/* Returns a constant text for a request's `reason`. */
const char *aiod_reason_text(uint32_t reason);

/* ---- buffers ---------------------------------------------------------------------------------------------------- */

/*
 * Get a buffer of at least `bytes` in the ring's memory, which the engine reads into and writes from. It is aligned
 * to 4096 and not cleared; it takes the next power of two of the buffer area, from 4096 on. Returns NULL if no free
 * block is large enough. Not mapped in a forked child.
 */
void *aiod_alloc(struct aiod_client *client, uint64_t bytes);

/* Release a buffer from aiod_alloc() that no request in flight uses. NULL is ignored. */
void aiod_free(struct aiod_client *client, void *buffer);

/* Returns the size of the largest buffer of an unused area. */
uint64_t aiod_alloc_max(const struct aiod_client *client);

/* Do the `bytes` at `data` lie in the buffer area, so that a request can use them without a copy? */
bool aiod_in_area(struct aiod_client *client, const void *data, uint64_t bytes);

/* ---- requests --------------------------------------------------------------------------------------------------- */

/*
 * Submit up to `count` requests, in order. Requests in flight have no order among themselves. Each ends exactly
 * once; then aiod_reap() returns it, unless a thread waits for it with aiod_wait() or its `awaited` is set. A
 * request that the engine refuses ends with its errno and reason as any other.
 *
 * Returns how many were submitted: fewer than `count` if `entries` requests are in flight. Errors: -ECONNRESET,
 * -ESHUTDOWN, -EBADF: none was submitted.
 */
int aiod_submit(struct aiod_client *client, struct aiod_op *const *ops, unsigned count);

/* Take up to `max` requests that are done, the oldest first, without waiting. Returns how many. */
unsigned aiod_reap(struct aiod_client *client, struct aiod_op **done, unsigned max);

/*
 * Wait until aiod_reap() has a request to return.
 *
 * Returns 0. Errors: -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN: the session has ended, and no request is left to be reaped.
 */
int aiod_wait_any(struct aiod_client *client, int64_t timeout_ns);

/*
 * For several threads that reap for each other: aiod_done_count() returns how many requests are done so far, and
 * aiod_wait_count() waits until that number is not `seen`, or the session has ended.
 *
 * aiod_wait_count() returns 0. Errors: -ETIMEDOUT.
 */
uint64_t aiod_done_count(struct aiod_client *client);
int aiod_wait_count(struct aiod_client *client, uint64_t seen, int64_t timeout_ns);

/*
 * Poll for `op` up to `looks` times, each of some tens of nanoseconds. The function never sleeps.
 *
 * Returns 1: `op` is done, and aiod_reap() does not return it; 0: it is in flight. Errors: -EAGAIN: polling is of
 * no use: the engine sleeps, or it needs the CPU of this thread.
 */
int aiod_look_for(struct aiod_client *client, struct aiod_op *op, unsigned looks);

/*
 * Poll up to `looks` times for any completion, whether or not the engine sleeps. The function never sleeps, and does not
 * look at all where that keeps the engine from running. Returns whether a completion has arrived that no function has taken.
 */
bool aiod_look(const struct aiod_client *client, unsigned looks);

/*
 * Does a submission wake the engine now, by a system call? A hint: it may change at any moment. A caller with more
 * requests to come may collect them for one aiod_submit().
 */
bool aiod_engine_sleeps(const struct aiod_client *client);

/*
 * Wait until `op` is done; aiod_reap() does not return it. One thread at a time may wait for a request.
 *
 * Returns 0 when the request is done, failed or not: see its `result`. Errors: -ETIMEDOUT: it is still in flight;
 * aiod_reap() may return it from now on, unless its `awaited` is set.
 */
int aiod_wait(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns);

/*
 * Give `op`, which malloc() allocated, and its buffer to the library, which releases both when the request is done.
 * The caller must not use `op` again.
 */
void aiod_abandon(struct aiod_client *client, struct aiod_op *op);

/* Clear `awaited`: aiod_reap() returns `op` once it is done, which it may be already. */
void aiod_await_no_more(struct aiod_client *client, struct aiod_op *op);

/* Is `op` done? If so its result is set, and it may still be to be reaped. */
bool aiod_done(const struct aiod_op *op);

/*
 * Cancel `op` if it has not been started. It ends in any case, and is reaped or waited for as usual.
 *
 * Returns 1: it ends with -ECANCELED and AIOD_RING_CANCELLED, not executed; 0: too late, it is being executed or is
 * done. Errors:
 *
 *     -EAGAIN        `entries` requests are in flight: there is no room for the cancel
 *     -ETIMEDOUT     no answer in time: `op` may still be cancelled
 */
int aiod_cancel(struct aiod_client *client, struct aiod_op *op, int64_t timeout_ns);

/* ---- event loops -------------------------------------------------------------------------------------------------
 *
 *     for (;;) {
 *         if (aiod_arm(client)) {
 *             poll() until aiod_fd(client) is readable
 *         }
 *         aiod_disarm(client);
 *         aiod_reap() and handle what is done
 *     }
 *
 * One event loop at a time may use aiod_fd(). Other threads may wait, reap and call at the same time: if one of
 * them takes completions off the ring without reaping them it wakes the loop.
 */

/*
 * Returns the descriptor to poll for reading, the same one for the life of the client; the client closes it. While
 * armed it becomes readable when requests are done, when the session has ended, and when it is time to look for
 * another engine.
 *
 * Errors: -EMFILE, -ENFILE, -ENOMEM: of the system calls.
 */
int aiod_fd(struct aiod_client *client);

/* Call before sleeping. False: do not sleep, aiod_reap() has requests to return or the session has ended. */
bool aiod_arm(struct aiod_client *client);

/* Call after waking: makes the descriptor unreadable, unless the session has ended. */
void aiod_disarm(struct aiod_client *client);

/* ---- blocking calls ----------------------------------------------------------------------------------------------
 *
 * They copy between `data` and buffers of the ring. A long transfer goes in parts, a few of them in flight at once.
 * A call that finds no room in the ring waits for requests in flight and other blocking calls to release some.
 */

/*
 * Read or write `length` bytes at `offset`; or flush: make durable all that had completed before.
 *
 * aiod_pread() returns the number of bytes, less than `length` only at the end of the file; aiod_pwrite() returns
 * `length`; aiod_flush() returns 0. Errors: those of the request (docs/operations.md), with its reason in the
 * message, and
 *
 *     -ETIMEDOUT     not done in time; the message says whether it is unknown what was done, or nothing was
 *     -ENOBUFS       the caller's own buffers take the whole area
 */
int64_t aiod_pread(struct aiod_client *client, uint32_t handle, void *data, uint64_t length, uint64_t offset,
                   int64_t timeout_ns);
int64_t aiod_pwrite(struct aiod_client *client, uint32_t handle, const void *data, uint64_t length, uint64_t offset,
                    int64_t timeout_ns);
int64_t aiod_flush(struct aiod_client *client, uint32_t handle, int64_t timeout_ns);

/*
 * Carry out any other request, and wait for its result. Of `request` the members above `buffer`, `source`,
 * `source_offset` and `deadline_ms` count. `data` has the bytes of a WRITE or APPEND, or room for the result:
 *
 *     READ        `length` bytes, at most
 *     STAT        struct aiod_ring_stat
 *     EXTENTS     AIOD_RING_EXTENTS_MAX structs aiod_ring_extent
 *     others      NULL
 *
 * READ and WRITE take any length, as above; with AIOD_RING_FUA each part of a long WRITE is durable by itself. The rest
 * goes in one request. Returns its result (enum aiod_ring_op). Errors: as above, and
 *
 *     -EINVAL        a CANCEL, or an operation on a path: they have calls of their own
 */
int64_t aiod_perform(struct aiod_client *client, const struct aiod_op *request, void *data, int64_t timeout_ns);

/*
 * Read, examine or write a whole file by one request (docs/operations.md, Whole files). `names` is a handle of
 * aiod_open(client, "EXPORT", AIOD_OPEN_NAMES, 0); `path` is relative to the export. A reload of the daemon's configuration
 * ends such a handle: -EBADF, and another one has to be opened.
 *
 * aiod_read_file() returns the number of bytes, and sets *stat unless that is NULL. aiod_stat_name() returns 0.
 * aiod_write_file() returns `length`; its flags are AIOD_RING_FUA (durable) and AIOD_RING_EXCLUSIVE. Errors: those of the
 * request, and
 *
 *     -EFBIG         aiod_read_file(): the file has more than `length` bytes; *stat is set
 *     -EMSGSIZE      the path has AIOD_RING_PATH_MAX bytes or more, or `length` is too long for one request
 *     -ENOBUFS       no free block of the buffer area is large enough
 *     -EAGAIN        `entries` requests are in flight
 *     -ETIMEDOUT     not done in time; unknown whether it will be
 *     -EIO           see RECONNECTING: the engine has gone, and the request had been sent
 */
int64_t aiod_read_file(struct aiod_client *client, uint32_t names, const char *path, void *data, uint64_t length,
                       struct aiod_ring_stat *stat, int64_t timeout_ns);
int64_t aiod_stat_name(struct aiod_client *client, uint32_t names, const char *path, struct aiod_ring_stat *stat,
                       int64_t timeout_ns);
int64_t aiod_write_file(struct aiod_client *client, uint32_t names, const char *path, const void *data, uint64_t length,
                        unsigned flags, int64_t timeout_ns);

/*
 * After a failed aiod_pwrite() or aiod_perform() of the calling thread: how many bytes, from the beginning on, are known to be
 * written.
 */
uint64_t aiod_written(void);

#ifdef __cplusplus
}
#endif

#endif
