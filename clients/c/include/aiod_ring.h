/*
 * aiod_ring.h - the shared-memory ring: its memory, its indices, and the messages on its socket (docs/ring.md).
 *
 * Both ends are compiled with this file. An application includes aiod.h.
 *
 * The engine creates the memory (a sealed memfd) and a doorbell (an eventfd), and passes both to the client over a
 * unix socket. The memory holds a submission queue, a completion queue and a buffer area. Numbers have the
 * machine's byte order (little-endian): both ends run on it. Each index has one writer and only grows; the entry of
 * index i is at i modulo `entries`.
 *
 *     index       writer   order sq_tail     client   stored (sequentially consistent) after the entries; the
 *     engine loads it before it reads them cq_tail     engine   stored (sequentially consistent) after the entries;
 *     the client loads it before it reads them cq_head     client   stored (release) after the entries were read
 *
 * Credit: a client has at most `entries` requests that it has submitted and whose completions it has not taken,
 * that is, which cq_head has not passed. So neither queue can be full. An engine that finds more entries ends the
 * session.
 *
 * Sleeping and waking: an end that is about to sleep sets its word in the memory and then reads the index again; an
 * end that has stored an index then reads the other end's word. All four accesses are sequentially consistent (on
 * x86 the stores are the fence, on Arm they are stlr and ldar), so at least one end sees the other (Dekker's
 * algorithm), and neither makes a system call while the other is awake.
 *
 *     engine   engine_sleeps = 1; read sq_tail; wait for the doorbell (edge-triggered); engine_sleeps = 0
 *     client   store sq_tail; if engine_sleeps: write 1 to the doorbell
 *     client   client_waits = HOW; read cq_tail; wait
 *     engine   store cq_tail; if client_waits: exchange it for 0, and wake the client as the old value says:
 *                  AIOD_RING_WAITS_FUTEX    FUTEX_WAKE of one waiter on client_waits (not private)
 *                  AIOD_RING_WAITS_SOCKET   a message of one byte on the socket
 *
 * Withdrawing, when the engine has died, or the client leaves it: the client sets sq_withdrawn, and then reads sq_begun.
 * Before the engine takes submissions it stores the index after the last one that it may take as sq_begun, and then reads
 * sq_withdrawn; it takes nothing any more if that is set. All four accesses are sequentially consistent, as above. So the
 * submissions from sq_begun on were not executed, and never will be: the client may carry them out elsewhere.
 *
 * The client calls FUTEX_WAIT on client_waits while it is AIOD_RING_WAITS_FUTEX. Rejected: FUTEX_WAIT on cq_tail.
 * Two threads of the engine may complete requests at once, and the slower one may reset client_waits for a
 * completion that the client has taken already; then the client would sleep on cq_tail and no engine thread would
 * wake it. With client_waits the client wakes and reads cq_tail again. Of several threads of a client, one at a
 * time uses client_waits and wakes the others.
 */
#ifndef AIOD_RING_ABI_H
#define AIOD_RING_ABI_H

#include <stdint.h>

#if SIZE_MAX < UINT64_MAX || UINTPTR_MAX < UINT64_MAX
#error "aiod is for 64-bit programs: a size_t or an off_t of 32 bits would cut lengths and offsets short"
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define AIOD_RING_MAGIC UINT64_C(0x474e4952444f4941) /* "AIODRING" */
#define AIOD_RING_VERSION 1u
#define AIOD_RING_ENTRIES_MIN 1u
#define AIOD_RING_ENTRIES_MAX 4096u /* every number of entries is a power of two */
#define AIOD_RING_LINE_BYTES 64u

/*
 * The operations that a ring carries, by the numbers of docs/protocol.md; docs/operations.md says what each means.
 * The comments name the members that each uses beside `handle`, its flags, and the result if it is not a number of
 * bytes or 0.
 */
enum aiod_ring_op {
    AIOD_RING_READ = 1,         /* offset, length, buffer */
    AIOD_RING_WRITE = 2,        /* offset, length, buffer; FUA */
    AIOD_RING_FLUSH = 3,        /* none */
    AIOD_RING_SIZE = 4,         /* none; result: the size of the file in bytes */
    AIOD_RING_DISCARD = 5,      /* offset, length */
    AIOD_RING_WRITE_ZEROES = 6, /* offset, length; FUA, UNMAP, FAST */
    AIOD_RING_TRUNCATE = 7,     /* length: the new size */
    AIOD_RING_ALLOCATE = 8,     /* offset, length; KEEP_SIZE */
    AIOD_RING_EXTENTS = 9,      /* offset, length, buffer; result: bytes of at most AIOD_RING_EXTENTS_MAX structs
                                 * aiod_ring_extent. The buffer has room for that many */
    AIOD_RING_COPY_RANGE = 10,  /* offset, length, source, source_offset */
    AIOD_RING_PREFETCH = 11,    /* offset, length */
    AIOD_RING_STAT = 12,        /* buffer; result: bytes of struct aiod_ring_stat */
    AIOD_RING_APPEND = 14,      /* length, buffer; result: the offset of the data */
    AIOD_RING_READ_FILE = 15, /* length, buffer, source; result: bytes of struct aiod_ring_stat and the data after it */
    AIOD_RING_STAT_NAME = 16, /* length, buffer, source; result: bytes of struct aiod_ring_stat */
    AIOD_RING_WRITE_FILE = 17,    /* length, buffer, source; FUA, EXCLUSIVE */
    AIOD_RING_OPEN_FILE = 18,     /* length, buffer, source; result: bytes of struct aiod_ring_opened */
    AIOD_RING_CLOSE_FILE = 19,    /* none */
    AIOD_RING_NAME = 20,          /* length, buffer, source; result: bytes of the answer (struct aiod_ring_name) */
    AIOD_RING_OPEN_WRITABLE = 21, /* length, buffer, source; result: bytes of struct aiod_ring_opened */
    AIOD_RING_CANCEL = 255,       /* on a ring only. offset: the cookie of a request; result: 1 cancelled, 0 too late */
};

/* Bits of a submission's flags. */
#define AIOD_RING_FUA 1u
#define AIOD_RING_UNMAP 2u
#define AIOD_RING_KEEP_SIZE 4u
#define AIOD_RING_EXCLUSIVE 8u
#define AIOD_RING_FAST 16u /* EOPNOTSUPP rather than write zeroes: BY_KERNEL */

/* A submission. Members that an operation does not use are 0. */
struct aiod_ring_sqe {
    uint64_t cookie; /* the completion has the same */
    uint16_t op;
    uint16_t flags;
    uint32_t handle;
    uint64_t offset;        /* bytes, in the file */
    uint64_t length;        /* bytes */
    uint64_t buffer;        /* READ, WRITE, APPEND, operations on a path: bytes, in the buffer area */
    uint64_t source_offset; /* COPY_RANGE */
    uint32_t source;        /* COPY_RANGE: the source's handle; operations on a path: bytes of the path */
    uint32_t deadline_ms;   /* if not started by then, it ends with ETIMEDOUT; 0: no deadline */
    uint64_t reserved;
};

/*
 * Operations on a path (READ_FILE, STAT_NAME, WRITE_FILE). `handle` is one of OPEN with AIOD_OPEN_NAMES. The path lies at
 * the beginning of the buffer, `source` bytes without a final zero, relative to the export's root; of WRITE_FILE the data
 * follows, `length` bytes. The engine copies the path before it writes the result over it: up to `length` bytes, at least
 * sizeof(struct aiod_ring_stat). A READ_FILE for which the room is too small ends with EFBIG; the stat is there then.
 *
 * OPEN_FILE opens an existing file for reading; its result is written over the path, too. CLOSE_FILE closes a file that
 * the ring has opened. EAGAIN with the reason LIMIT, of either: it has to go by OPEN or CLOSE (docs/ring.md).
 */
struct aiod_ring_stat {
    uint64_t size;      /* bytes, as the file was opened */
    uint64_t allocated; /* bytes */
    uint64_t device;
    uint64_t inode;
    int64_t atime_ns; /* since 1970 */
    int64_t mtime_ns;
    int64_t ctime_ns;
    uint32_t mode;
    uint32_t links;
    uint32_t uid;
    uint32_t gid;
    uint32_t block_size; /* bytes */
    uint32_t io_size;    /* bytes */
};

#define AIOD_RING_EXTENTS_MAX 1024u
#define AIOD_RING_HOLE 1u

/* A piece of a file, data or a hole. The pieces of EXTENTS follow one another from its offset on. */
struct aiod_ring_extent {
    uint64_t length; /* bytes */
    uint64_t flags;  /* AIOD_RING_HOLE: it reads as zeroes */
};

/*
 * OPEN_WRITABLE opens or creates a file for writing, with flags of OPEN: WRITE, and any others but DIRECT and NAMES. At the
 * beginning of its buffer lies this record, then the path; `source` is the length of both. The result is that of OPEN_FILE.
 */
struct aiod_ring_open_file {
    uint32_t flags; /* enum aiod_open_flag */
    uint32_t mode;  /* permission bits of a file that is created */
};

/*
 * A NAME is an operation on names; docs/operations.md says what each does (Directory operations). `source` is the length of
 * what lies at the beginning of its buffer: struct aiod_ring_name, then the path, `to` and the value, without zero bytes
 * between them. The answer is written over it; `length` is its room, at least as much as the verb's longest answer:
 *
 *     STAT, LSTAT             struct aiod_ring_stat
 *     LIST                    struct aiod_ring_page, a struct aiod_ring_stat for each entry, the names, each with a 0;
 *                             AIOD_RING_PAGE_BYTES_MAX
 *     READLINK                the target; AIOD_RING_PATH_MAX
 *     GETXATTR, LISTXATTR     the value; the names, each with a 0; AIOD_RING_ATTRIBUTE_BYTES_MAX
 *     RMTREE                  1 byte if there is more to remove, which the next one does
 *     the others              none
 */
enum aiod_ring_verb {
    AIOD_RING_LIST = 0,  /* cursor: 0, or `next` of the page before */
    AIOD_RING_STAT_PATH, /* as STAT_NAME */
    AIOD_RING_REMOVE,
    AIOD_RING_RMDIR,
    AIOD_RING_RENAME, /* to: the new path; REPLACE */
    AIOD_RING_MKDIR,  /* mode */
    AIOD_RING_SYNC,
    AIOD_RING_LSTAT,
    AIOD_RING_READLINK,
    AIOD_RING_SYMLINK,  /* to: the target */
    AIOD_RING_LINK,     /* to: the new path */
    AIOD_RING_UTIME,    /* the times, or NOW; NO_FOLLOW */
    AIOD_RING_CHMOD,    /* mode; NO_FOLLOW */
    AIOD_RING_GETXATTR, /* to: the attribute's name; NO_FOLLOW, as the following */
    AIOD_RING_SETXATTR, /* to, value, xattr_flags */
    AIOD_RING_LISTXATTR,
    AIOD_RING_REMOVEXATTR, /* to */
    AIOD_RING_RMTREE,
};

enum aiod_ring_name_flag {
    AIOD_RING_REPLACE = 1,
    AIOD_RING_NO_FOLLOW = 2, /* of a symbolic link that is the last part of the path: itself */
    AIOD_RING_NOW = 4,       /* instead of the times */
};

/* What a verb does not use is 0. */
struct aiod_ring_name {
    uint16_t verb;
    uint16_t flags; /* enum aiod_ring_name_flag */
    uint32_t mode;  /* permission bits */
    uint32_t path_bytes;
    uint32_t to_bytes;
    uint32_t value_bytes; /* of an attribute: at most AIOD_RING_ATTRIBUTE_BYTES_MAX */
    uint32_t xattr_flags; /* XATTR_CREATE, XATTR_REPLACE or 0 */
    int64_t cursor;
    int64_t access_ns; /* since 1970 */
    int64_t change_ns;
};

struct aiod_ring_page {
    int64_t next; /* the cursor of the next page, if `more` */
    uint32_t more;
    uint32_t entries;
    uint32_t name_bytes; /* of all names */
    uint32_t reserved;
};

#define AIOD_RING_PAGE_BYTES_MAX 65536u
#define AIOD_RING_ATTRIBUTE_BYTES_MAX 57344u

/* The result of OPEN_FILE. */
struct aiod_ring_opened {
    uint64_t handle;
    uint64_t size; /* bytes */
    uint64_t device;
    uint64_t inode;
    uint64_t generation; /* of the inode, as in struct aiod_ring_file; of OPEN_FILE never 0 */
    uint64_t reserved[5];
};

/* A completion. */
struct aiod_ring_cqe {
    uint64_t cookie;
    int64_t result;   /* bytes (APPEND: offset), or -errno */
    uint32_t written; /* of a failed request: bytes from its beginning on that are known to be done */
    uint32_t reason;  /* of a failed request: enum aiod_ring_reason */
    uint64_t reserved;
};

/* Why a request failed, where its errno alone does not say. */
enum aiod_ring_reason {
    AIOD_RING_BY_KERNEL = 0, /* any errno: a system call failed in the daemon */
    AIOD_RING_NO_HANDLE,     /* EBADF: the handle is unknown or closed */
    AIOD_RING_NO_ACCESS,     /* EBADF: the file was not opened for this operation */
    AIOD_RING_BAD_ENTRY,     /* EINVAL: an unknown operation or flag, or an argument out of range */
    AIOD_RING_TOO_LONG,      /* EMSGSIZE: longer than request_bytes_max */
    AIOD_RING_OVER_CREDIT,   /* EAGAIN: more requests in flight than `entries` */
    AIOD_RING_CANCELLED,     /* ECANCELED: before it was started */
    AIOD_RING_DEADLINE,      /* ETIMEDOUT: not started before its deadline */
    AIOD_RING_NO_THREADS,    /* EAGAIN: no worker could be created */
    AIOD_RING_POISONED,      /* EIO: an earlier flush failed */
    AIOD_RING_STOPPING,      /* ESHUTDOWN: the daemon is stopping; not executed */
    AIOD_RING_NO_IOCTL,      /* EPERM: IOCTL travels by message only */
    AIOD_RING_TOO_LARGE,     /* EFBIG: the file would exceed the export's max_file_bytes */
    AIOD_RING_LATE,          /* EIO: repeated too late at another engine; by message only */
    AIOD_RING_RESTARTED,     /* EIO: of a handle's next flush, once: earlier writes may be lost */

    /* Reasons in messages (struct aiod_ring_reply). */
    AIOD_RING_MALFORMED,   /* EPROTO: the message does not have the form that the protocol defines */
    AIOD_RING_NO_SESSION,  /* ENOTCONN; not by a ring's socket */
    AIOD_RING_NO_VERSION,  /* EPROTONOSUPPORT */
    AIOD_RING_KICKED,      /* ESHUTDOWN: an administrator has ended the session */
    AIOD_RING_LIMIT,       /* EAGAIN, EMFILE, ENFILE, EDQUOT, ENOBUFS: a limit of the daemon or of the user */
    AIOD_RING_GRACE,       /* EAGAIN: the engine was started again, and serves its earlier clients first */
    AIOD_RING_NO_EXPORT,   /* ENOENT */
    AIOD_RING_NOT_ALLOWED, /* EACCES, EROFS: the daemon's configuration does not allow it */
    AIOD_RING_OUTSIDE,     /* EACCES: the path leaves the export */
    AIOD_RING_NOT_SERVING, /* EIO: the export's engine; not by a ring's socket */
    AIOD_RING_OTHER_FILE,  /* ESTALE: not by a ring's socket */
    AIOD_RING_HANGS,       /* ETIMEDOUT: unknown whether done */
    AIOD_RING_LOCK_LOST,   /* EIO: a lock of the file was lost; release it first. Of a claim: EOWNERDEAD */

    /* libaiod's own; no engine sends them. */
    AIOD_RING_UNKNOWN = 100, /* EIO: the engine has gone; unknown whether done */
    AIOD_RING_NOT_REOPENED,  /* the next engine could not open the file; the errno says why */
    AIOD_RING_NOT_TAKEN,     /* ECONNRESET, ESHUTDOWN: the session ended before the engine took it: not executed */
};

enum aiod_ring_waits {
    AIOD_RING_AWAKE = 0,
    AIOD_RING_WAITS_FUTEX = 1,
    AIOD_RING_WAITS_SOCKET = 2,
};

/*
 * How an engine stopped in order. With both bits a client may continue with the next engine as if it were the same.
 */
enum aiod_ring_shutdown_notice {
    AIOD_RING_DRAINED = 1, /* requests without a completion were not executed */
    AIOD_RING_FLUSHED = 2, /* and completed changes of all files of the session are on disk */
};

/*
 * The header, at the beginning of the memory. Each index has a cache line of its own. The members are plain
 * integers since C++ includes this file, too; both ends access them with atomic built-ins.
 */
struct aiod_ring_header {
    /* Line 0: constant. */
    uint64_t magic;
    uint32_t version;
    uint32_t entries;
    uint64_t memory_bytes;
    uint64_t sq_offset; /* bytes from the beginning of the memory, as the other offsets */
    uint64_t cq_offset;
    uint64_t area_offset; /* a multiple of 4096 */
    uint64_t area_bytes;
    uint64_t line_0_reserved;

    uint32_t sq_tail; /* line 1: client */
    uint32_t line_1_reserved[15];
    uint32_t cq_head; /* line 2: client */
    uint32_t line_2_reserved[15];
    uint32_t client_waits; /* line 3: client; the futex; the engine resets it when it wakes the client */
    uint32_t line_3_reserved[15];
    uint32_t cq_tail; /* line 4: engine */
    uint32_t line_4_reserved[15];
    uint32_t engine_sleeps;   /* line 5: engine */
    uint32_t shutdown_notice; /* line 5: engine; enum aiod_ring_shutdown_notice, set before the session ends */
    uint32_t line_5_reserved[14];
};

/* Follows the header: line 6. Only the engine uses it, until the client withdraws. */
struct aiod_ring_withdrawal {
    uint32_t shown;        /* engine, constant: 1; 0: an older engine, which does not know the others */
    uint32_t sq_begun;     /* engine: submissions before this one may have been executed */
    uint32_t sq_withdrawn; /* client: 1: nothing is to be taken any more */
    uint32_t line_6_reserved[13];
};

/* ---- the socket: SOCK_SEQPACKET, each message is one of these structs ------------------------------------------- */

/* Flags of OPEN: the numbers of docs/protocol.md. */
enum aiod_open_flag {
    AIOD_OPEN_READ = 1,
    AIOD_OPEN_WRITE = 2,
    AIOD_OPEN_CREATE = 4,
    AIOD_OPEN_EXCLUSIVE = 8,
    AIOD_OPEN_TRUNCATE = 16,
    AIOD_OPEN_APPEND = 32, /* writable by APPEND only */
    AIOD_OPEN_DIRECT = 64,
    AIOD_OPEN_NAMES = 128, /* alone: a handle for READ_FILE, STAT_NAME and WRITE_FILE in the export */
};

#define AIOD_RING_TICKET_BYTES 16u
#define AIOD_RING_PATH_MAX 4096u          /* bytes of "EXPORT/PATH", without a final zero */
#define AIOD_RING_ERROR_MESSAGE_MAX 1024u /* bytes, without a final zero */

enum aiod_ring_message {
    AIOD_RING_ATTACH = 1, /* client -> engine: aiod_ring_attach, the first message, once */
    AIOD_RING_ATTACHED,   /* engine -> client: aiod_ring_attached, with the descriptors of memory and doorbell */
    AIOD_RING_OPEN,       /* client -> engine: aiod_ring_open and the path */
    AIOD_RING_CLOSE,      /* client -> engine: aiod_ring_close */
    AIOD_RING_REPLY,      /* engine -> client: aiod_ring_reply, then an error message or aiod_ring_file */
    AIOD_RING_GOODBYE,    /* client -> engine: aiod_ring_goodbye, the last message: the session ends in order */

    /* Of a resumable session. */
    AIOD_RING_REOPEN = 16,   /* client -> engine: aiod_ring_reopen and the path; answered as OPEN */
    AIOD_RING_REPEATED = 17, /* client -> engine: aiod_ring_plain: all files are reopened */
    AIOD_RING_GO = 18,       /* engine -> client: aiod_ring_plain: the grace period is over */

    AIOD_RING_LOCK = 19, /* client -> engine: aiod_ring_lock */
    AIOD_RING_UNLOCK,    /* client -> engine: aiod_ring_unlock */
};

/* Bits of the flags of ATTACH. An older engine ignores them. */
enum aiod_ring_attach_flag {
    AIOD_RING_RESUMABLE = 1, /* begin a session that can be resumed at the next engine */
    AIOD_RING_RESUMES = 2,   /* `ticket` is the token of the session that the client had with an earlier engine */
};

struct aiod_ring_attach {
    uint32_t type;
    uint32_t version;
    uint8_t ticket[AIOD_RING_TICKET_BYTES]; /* of a session (docs/protocol.md, RING); all zero: begin a session */
    uint32_t entries;
    union {
        uint32_t flags;    /* enum aiod_ring_attach_flag */
        uint32_t reserved; /* its former name */
    };
    uint64_t area_bytes;
    char software[64]; /* for the log; zero-terminated */
};

enum aiod_ring_feature {
    AIOD_RING_LOCKS = 1, /* the engine knows LOCK and UNLOCK */
};

struct aiod_ring_attached {
    uint32_t type;
    uint32_t version;
    uint64_t memory_bytes;
    uint64_t request_bytes_max;
    uint32_t entries;
    uint32_t features; /* bits of enum aiod_ring_feature; older engines send 0 */
};

enum aiod_ring_session_flag {
    AIOD_RING_IN_GRACE = 1, /* the client reopens its files, sends REPEATED, and waits for GO before anything else */
};

/* Follows ATTACHED of a resumable session. An older engine does not send it: the length of the message tells. */
struct aiod_ring_session {
    uint8_t token[AIOD_RING_TICKET_BYTES]; /* secret */
    uint32_t flags;                        /* enum aiod_ring_session_flag */
    uint32_t reserved;
};

struct aiod_ring_open {
    uint32_t type;
    uint32_t flags; /* enum aiod_open_flag */
    uint64_t cookie;
    uint32_t mode;
    uint32_t reserved;
};

struct aiod_ring_close {
    uint32_t type;
    uint32_t handle;
    uint64_t cookie;
};

/* Of `flags` in aiod_lock(). */
enum aiod_lock_flag {
    AIOD_LOCK_SHARED = 0,
    AIOD_LOCK_EXCLUSIVE = 1,
};

#define AIOD_RING_LOCK_CLAIM 2u /* of `flags` in aiod_ring_lock: the client had the lock at an earlier engine */

/* docs/protocol.md, LOCK and UNLOCK. */
struct aiod_ring_lock {
    uint32_t type;
    uint32_t handle;
    uint64_t cookie;
    uint64_t offset;
    uint64_t length;  /* 0: up to any end that the file has or will have */
    uint64_t number;  /* of a claim: the result of the LOCK at the earlier engine; 0: the lock is known to be lost */
    uint32_t flags;   /* enum aiod_lock_flag, AIOD_RING_LOCK_CLAIM */
    uint32_t wait_ms; /* at most a day */
};

struct aiod_ring_unlock {
    uint32_t type;
    uint32_t handle;
    uint64_t cookie;
    uint64_t offset;
    uint64_t length; /* as of aiod_ring_lock */
};

struct aiod_ring_goodbye {
    uint32_t type;
    uint32_t reserved;
};

/* REPEATED, GO. */
struct aiod_ring_plain {
    uint32_t type;
    uint32_t reserved;
};

/*
 * Follows the reply to a successful OPEN. Older engines do not send it: the length of the message tells. All zero:
 * unknown.
 */
struct aiod_ring_file {
    uint64_t device;
    uint64_t inode;
    uint64_t generation; /* of the inode; 0: unknown, so that no two files are known to be the same */
};

/* A file that was open with an earlier engine (docs/protocol.md, REOPEN). */
struct aiod_ring_reopen {
    uint32_t type;
    uint32_t flags; /* of its OPEN */
    uint64_t cookie;
    uint32_t handle;            /* its number there, which it keeps */
    uint32_t changed;           /* 1: it has acknowledged changes that no acknowledged flush covers */
    struct aiod_ring_file file; /* as the reply to OPEN said */
};

/*
 * The answer to OPEN, REOPEN, CLOSE, LOCK and UNLOCK, and to a refused ATTACH (cookie 0; then the engine closes the socket).
 */
struct aiod_ring_reply {
    uint32_t type;
    uint32_t reason; /* of a failure: enum aiod_ring_reason; older engines send 0 */
    uint64_t cookie;
    int64_t
        result; /* OPEN: the handle; LOCK: the lock's number; UNLOCK: how many lost locks were released; or -errno */
};

#ifdef __cplusplus
}
#endif

#endif
