"""The Python interface of the native core (aiod/core/module.cpp). Main loop's thread only, unless stated otherwise."""

from collections.abc import Mapping, Sequence
from typing import Any

Failure = tuple[int, int, int, int, int, int, int]
"""(index in records, op, handle, offset, length, errno, reason), where `reason` is one of aiod_protocol.reasons."""

Completions = tuple[bytes, list["Buffer"], list[Failure]]
"""(completion records of wire.COMPLETION, payload frames, failures)."""

Control = tuple[int, int, int, int, int, int, int, int, int, bool, int, int]
"""The result of an `open`, `adopt` or `close`.

(tag, result, reason, size, dev, ino, generation, store_fd, flush_fd, on FUSE, memory alignment, offset alignment).
Result of an open or adopt: the descriptor or -errno; of a close: 0 or -errno. reason: a Reason. store_fd and flush_fd:
the file, opened once more for the descriptor store and for flushes; -1: none. The alignments are in bytes, with DIRECT.
"""

Listing = tuple[bytes, bytes, int | None]
"""A page of a directory: (names, records of STAT, cursor of the next page or None). Less than 64 KiB as msgpack.

Each of up to 512 names ends with a zero byte, and has a record. The record is zeroes if the name cannot be examined.
"""

DirectoryResult = tuple[int, int, int, bool, Listing | bytes | None]
"""The result of a directory operation: (tag, 0 or -errno, a Reason, outside, found).

1 instead of 0: an rmtree that has to be continued. outside: -EXDEV means that a path leaves the root. found: the page
of a list, the bytes that a query has found, else None.
"""

AttachResult = tuple[Session, int, int, int]
"""The result of an `attach`: (session, 0 or errno, memory descriptor, doorbell descriptor). The core owns both."""

VERB_LIST: int
VERB_STAT: int
VERB_REMOVE: int
VERB_RMDIR: int
VERB_RENAME: int
VERB_MKDIR: int
VERB_SYNC: int
VERB_LSTAT: int
VERB_READLINK: int
VERB_SYMLINK: int
VERB_LINK: int
VERB_UTIME: int
VERB_CHMOD: int
VERB_GETXATTR: int
VERB_SETXATTR: int
VERB_LISTXATTR: int
VERB_REMOVEXATTR: int
VERB_RMTREE: int

XATTR_BYTES_MAX: int
"""Longest value of an extended attribute, and most bytes of their names."""

def keep_large_blocks() -> None:
    """Configure malloc to keep up to 64 MiB of freed memory.

    libzmq allocates memory for each message, and fresh memory costs page faults.
    """

class ZmqFrame:
    """A frame that was received (protocol/zmq_receiver.hpp), with the read-only buffer protocol."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def buffer(self) -> memoryview:
        """The frame's bytes."""

    def get(self, what: int | str) -> Any:
        """As zmq.Frame.get(). ValueError: the connection has no such property."""

class ZmqReceiver:
    """Receives messages on sockets of pyzmq (protocol/zmq_receiver.hpp)."""

    def __init__(
        self, init: int, receive: int, size: int, data: int, more: int, get: int, gets: int, close: int
    ) -> None:
        """With the addresses of libzmq's functions (aiod_protocol/zmq_receiving.py)."""

    def receive(self, socket: int, leading: int) -> Any:
        """The frames of the next message on the socket that is `underlying`; or the errno of why there is none.

        The first `leading` frames are bytes, the others ZmqFrames.
        """

class ZmqSender:
    """Sends messages on sockets of pyzmq, large read-only frames without a copy (protocol/zmq_sender.hpp)."""

    def __init__(self, init_size: int, init_data: int, data: int, send: int, close: int) -> None:
        """With the addresses of libzmq's functions (aiod_protocol/zmq_sending.py)."""

    def send(self, socket: int, frames: Sequence[Any]) -> int:
        """Send a message on the socket that is `underlying`, without waiting; 0, or the errno of why not."""

    def release(self) -> None:
        """Release the buffers that libzmq has sent. send() does it, too."""

class Buffer:
    """A payload frame. Supports the buffer protocol, read-only.

    With the last reference its memory returns to the core's cache, on any thread that holds the GIL.
    """

    def __len__(self) -> int: ...

def may_set_ioprio() -> bool:
    """Whether this process may set the I/O priority of its threads. A unit's SystemCallFilter= can forbid it."""

def keep_open_in_urings(fd: int) -> None:
    """Keep the file open until all requests that io_uring has started have ended, also if the process is killed.

    Once, before the first Core and probe_uring().
    """

def probe_uring() -> int:
    """Test io_uring, with everything that the pool needs of it, in this process: 0, or a negative errno. Any thread."""

def probe_open_beneath() -> int:
    """Test openat2() in this process: 0, or a negative errno (ENOSYS, EPERM). Any thread."""

class Rate:
    """A rate limiter for requests and bytes, applied to requests of the pool's queue. Has no limits initially."""

class Session:
    """A client's session in the core: credit, handles and counters."""

    def __init__(
        self,
        tag: object,
        *,
        client: str,
        transport: str,
        depth_max: int,
        bytes_max: int,
        request_bytes_max: int,
        batch_max: int,
        handles_max: int,
        rate: Rate | None,
    ) -> None:
        """`client`: the client's name in messages, at most 8 characters. `rate`: that of its user.

        `transport`: of its messages, "ipc", "tcp" or "socket" (the ring's); for the statistics.
        """
    tag: Any
    """Set by the caller, to find its own session object."""
    lease_until_ns: int
    """From then on (CLOCK_BOOTTIME) no change is begun; 0: no limit."""
    @property
    def handles(self) -> int:
        """The number of open files."""
    @property
    def names(self) -> int:
        """The number of NAMES handles."""
    def describe_handles(self) -> list[dict[str, Any]]:
        """Describe each handle: handle, readable, writable, append, direct, inflight (requests), closing, poisoned."""
    def revoke_names(self) -> None:
        """Have the session's NAMES handles serve no more requests (EBADF)."""

    @property
    def lent(self) -> int:
        """The number of handles that are lent to the session's ring, or opened by it and not collected."""
    def ran_out_of_handles(self) -> bool:
        """Whether an open by the ring was refused since the last call because every lent number was in use."""
    def is_poisoned(self, number: int, /) -> bool:
        """Whether a flush of the open file with this number has failed."""

    def has_handle(self, number: int, /) -> bool:
        """Whether it is the number of an open handle of the session's table."""
    @property
    def has_opened(self) -> bool:
        """Whether the session's ring has opened or closed files since the last collect_opened()."""

    def file_of(self, number: int) -> tuple[int, int, bool, bool] | None:
        """Device, inode, whether it may be read, and written, of an open file; None: the handle is no open file's."""

    def set_locks(self, number: int, *, held: bool, lost: bool, regained: Sequence[tuple[int, int]]) -> None:
        """Refuse the handle's requests if a lock is `lost`; execute repeated ones in the ranges (first, last)
        `regained`. `held`: the client has locks, held or lost, which go with the description.

        Raises OSError (EBADF).
        """

    def retire_handle(self, number: int) -> None:
        """Reserve the number of an earlier engine's handle that is not open here: no new handle gets it."""
    @property
    def inflight(self) -> int:
        """The number of requests that were admitted and are not completed."""
    @property
    def has_ring(self) -> bool:
        """Whether the session has a ring."""
    @property
    def unacknowledged(self) -> int:
        """The number of requests in flight, and of completions that the client has not acknowledged, with refusals."""
    @property
    def unacknowledged_bytes(self) -> int:
        """The bytes of reads and writes that are in flight, or whose completion the client has not acknowledged."""
    def stats(self) -> dict[str, Any]:
        """Return the statistics of this session's requests, in the form of Core.stats()."""

class Core:
    """The native half of an engine: pool, spawner, buffers, files and counters."""

    def __init__(
        self,
        name: str,
        *,
        max_threads: int,
        min_threads: int,
        idle_timeout_ms: int,
        spawn_retry_ms: int,
        inline_read_max: int,
        buffer_cache_max: int,
        rings_max: int,
        ring_poll_max_us: int,
    ) -> None:
        """Raises OSError if an eventfd cannot be created, and ValueError for numbers out of range."""

    completion_fd: int
    """An eventfd, readable when reap() returns something."""
    doorbell_fd: int
    """An eventfd, readable when spawn() must be called (the spawner's bottom half)."""

    def submit(self, session: Session, received: int, records: bytes, frames: Sequence[Any]) -> Completions | None:
        """Admit a batch. Return what completes at once (inline reads, refusals); reap() returns the rest.

        records: wire.SUBMISSION records. frames: objects with the buffer protocol, kept until their writes have ended.
        Raises ValueError for a malformed batch, or for a session over twice its credit: then nothing was executed, and
        the caller must end the session.
        """

    def reap(
        self,
    ) -> tuple[
        list[tuple[Session, Completions]],
        list[Control],
        list[DirectoryResult],
        list[tuple[Session, str]],
        list[AttachResult],
        list[tuple[Session, int]],
    ]:
        """Return everything that has completed, grouped by session. Clears completion_fd. Does not block.

        The fourth list contains sessions that the caller must end, because their clients broke a rule of the ring,
        which the text names; the last one handles that the caller must close, by close_handle(), before it does
        anything else with them: that answers the client's CLOSE_FILE.
        """

    def attach(self, session: Session, wake_fd: int, entries: int, area_bytes: int) -> int:
        """Start to create a ring for the session (docs/ring.md). Return the size of its memory in bytes.

        The memory counts from now on. reap() returns the result as an AttachResult, unless the session ends before.

        wake_fd: the socket that wakes the client; it is duplicated. entries: a power of two up to 4096. Raises OSError:
        EEXIST (the session has a ring), EINVAL (sizes out of range), EAGAIN (no thread), ENOMEM, EMFILE.
        """

    @property
    def rings(self) -> int:
        """The number of rings whose memory is in use."""
    @property
    def ring_bytes(self) -> int:
        """The bytes of the rings' memory."""

    def cancel(self, session: Session, cookies: Sequence[int]) -> int:
        """Cancel queued requests; reap() returns their completions (ECANCELED). Return their number."""

    def open(
        self,
        tag: int,
        transport: str,
        rate: Rate | None,
        root: str,
        path: str,
        flags: int,
        mode: int,
        *,
        exact_mode: bool,
        uid: int,
        gid: int,
        links: bool,
        as_client: tuple[int, int, Sequence[int]] | None,
        timeout_ms: int,
    ) -> None:
        """Open `path` beneath `root` on a worker (flags: wire.OpenFlag); reap() returns the result as a Control.

        Only regular files and, with an empty `path`, `root` itself, which may be a block device. A created file gets
        `mode` (`exact_mode`: regardless of the umask), and `uid` and `gid` as its owner (-1: the daemon's). `links`:
        follow symbolic links within `root`. `as_client`: the identity (uid, gid, groups) for the kernel's checks, on a
        thread of the export; None: the daemon's. An open that has not started after `timeout_ms` (0: no limit) ends
        with ETIMEDOUT, Reason.DEADLINE. `rate`: that of the export (None: none), which is not charged; while requests
        of the export hang, the open waits. `transport`: as for Session.
        """

    def directory_operation(
        self,
        tag: int,
        transport: str,
        rate: Rate | None,
        verb: int,
        root: str,
        path: str,
        *,
        to: str,
        cursor: int,
        mode: int,
        replace: bool,
        links: bool,
        times: tuple[int, int] | None = None,
        value: bytes = b"",
        xattr_flags: int = 0,
        follow: bool = True,
        as_client: tuple[int, int, Sequence[int]] | None,
        timeout_ms: int,
    ) -> None:
        """Run a directory operation beneath the directory `root` on a worker (docs/operations.md).

        verb: one of VERB_*. `replace` belongs to rename, `cursor` to list, `mode` to mkdir and chmod, `times` (of
        access, and of the content's change; ns; None: now) to utime, `value` and `xattr_flags` to setxattr. `to` is the
        new path of a rename or link, the target of a symlink, the name of an extended attribute. `links`: follow
        symbolic links within `root`; `follow`: also one that is the last part of the path of a utime, chmod, or of an
        extended attribute. `transport`, `rate`, `as_client`, `timeout_ms`: as for open(). reap() returns the result as
        a DirectoryResult.
        """

    def add_names(
        self,
        session: Session,
        *,
        root: str,
        links: bool,
        writable: bool,
        verbs: int,
        size_max: int,
        name: str,
        mode: int,
        exact_mode: bool,
        uid: int,
        gid: int,
        ioctls: Sequence[tuple[int, int]],
        rate: Rate | None,
        ioprio: int,
        keep_token: bytes,
        keep_record: bytes,
    ) -> int:
        """Make a handle of the export at `root` by which a ring's requests name files in it. Return its number.

        `mode`, `exact_mode`, `uid` and `gid` are of files that WRITE_FILE makes, as in `open`; without `writable` it
        makes none. `verbs` are those of NAME that the export allows, bit by bit. `keep_token` and
        `keep_record` are those of fd_store_messages.kept_by_workers(), both empty if no descriptors are kept. Raises
        OSError EMFILE at handles_max.
        """

    def lend_handles(self, session: Session, count: int) -> int:
        """Lend the session's ring up to `count` handles for the files that it opens by itself; returns their number."""

    def take_back_handles(self, session: Session) -> int:
        """Take back the lent handles that the session's ring does not use; returns their number."""

    def collect_opened(
        self, session: Session, *, everything: bool, again: bool
    ) -> list[tuple[int, bytes, int, int, int, int, bool]]:
        """Register the files that the session's ring has opened, or those that have been open for some time.

        Each is (handle, "export/path", descriptor, flags, device, inode, on FUSE). The descriptor, which the caller
        owns, is for the descriptor store: the file opened once more, if `again` or if the ring has done so; -1: there
        is none, or a worker has stored it.
        """

    def sessions_to_collect(self) -> list[Any]:
        """The tags of the sessions whose rings have something to collect. Call it when `collect_fd` is readable."""
    collect_fd: int
    """Readable when rings have opened or closed files some milliseconds ago."""
    lent: int
    """The number of handles that are lent to rings, or opened by them and not collected."""

    def add_handle(
        self,
        session: Session,
        fd: int,
        dev: int,
        ino: int,
        *,
        readable: bool,
        writable: bool,
        append: bool,
        on_fuse: bool = False,
        alignment: tuple[int, int] | None,
        ioctls: Sequence[tuple[int, int]],
        size_max: int,
        name: str,
        wanted: int = 0,
        suspect: bool = False,
        poisoned: bool = False,
        flush_fd: int = -1,
        rate: Rate | None = None,
        ioprio: int = 0,
        uring: bool = False,
        uring_alone: bool = False,
        faults: Sequence[tuple[int, int, int, int, int]] = (),
    ) -> int:
        """Make `fd` a handle of the session. Return its number, above 0. Raises OSError EMFILE at handles_max.

        `rate`: that of the export, the same object for all its handles. `ioprio`: the I/O priority of the workers that
        serve it (0: none). `uring`: reads and writes may be started by io_uring, if there is an `alignment`;
        `uring_alone`: also those that come alone, which a worker would run in less time. `faults`: what is to go wrong,
        at most 8 of (bits 1 << Op, every Nth, delay in ms, errno or 0, bytes written before an error).

        For a file of an earlier engine, `wanted` is its number there (EEXIST: in use). After a `suspect` one the first
        flush of each handle of the file fails.

        `flush_fd` (-1: none) is the file opened for flushes only, taken over in any case; the file keeps the first one.

        `append`: writable by APPEND only. `alignment`: (memory, offset) in bytes for a file opened with DIRECT.
        `ioctls`: the allowed (number, bytes of the argument). `size_max`: no byte is written beyond it (0: no limit).
        `name`: the file's name in messages.
        """

    def set_rate(self, rate: Rate, *, per_second: int, bytes_per_second: int, burst_ms: int) -> None:
        """Set the limits of `rate` (0: no limit). `burst_ms`: unused capacity that may be saved up."""

    def adopt(self, tag: int, rate: Rate | None, fd: int, flags: int) -> None:
        """Describe `fd`, which an earlier engine opened with `flags`; reap() returns the result as for open().

        If the file can be opened once more, `fd` becomes the result's flush_fd. It is closed if this fails.
        """

    poison_notice_fd: int
    """A socket on which workers send ["poisoned", dev, ino] (msgpack) when a flush of a file first fails; -1: none."""

    takes_repeats: bool
    """Whether requests with the flag REPEAT are executed; else they fail with EIO."""

    def close_fd(self, tag: int, rate: Rate | None, fd: int) -> None:
        """Close a descriptor that is no handle's, on a worker; ends as a Control. `rate`: as for open()."""

    def close_handle(self, tag: int, session: Session, handle: int) -> None:
        """Close a handle after its requests in flight; reap() returns the result as a Control.

        Raises OSError EBADF if there is no such handle.
        """

    def fuse_handles(self, session: Session) -> list[tuple[int, int, bytes]]:
        """The session's open files on FUSE: (handle, loss, name).

        loss: what a request has found: 0 nothing, 1 the server has given up the open file, 2 the mount is dead.
        """

    def move_handle(
        self,
        tag: int,
        session: Session,
        handle: int,
        root: str,
        path: str,
        *,
        links: bool,
        as_client: tuple[int, int, Sequence[int]] | None,
        timeout_ms: int,
    ) -> None:
        """Open the file again, and move the handle to the mount that is there now; reap() returns the result.

        It is a Control: 1: the handle has moved, store_fd is the file's new descriptor for the descriptor store; 0: the
        mount is the same; -ESTALE: it is another file, or the server does not say. The first flush of each handle of
        the file fails if writes may be lost. Raises OSError EBADF if there is no such handle.
        """

    def lock(
        self, tag: int, session: Session, handle: int, *, exclusive: bool, first: int, last: int, regain: int
    ) -> None:
        """Try once to lock the bytes `first` to `last` of the handle's file; reap() returns the result as a Control.

        `regain`: the number that the lock had with an earlier engine; 0: it is a new one. The result: its number, or 0
        if it has none; see core/ops/file_locks.h. Raises OSError (EBADF).
        """

    def unlock(self, tag: int, session: Session, handle: int, *, first: int, last: int) -> None:
        """Release the locks of these bytes after the handle's requests in flight; reap() returns the result.

        One call for a handle at a time. Raises OSError (EBADF).
        """

    def flush_handle(self, tag: int, session: Session, handle: int) -> None:
        """Make durable everything that is completed on the handle's file; reap() returns the result as a Control.

        Raises OSError: EBADF if there is no such handle, EIO if writes may have been lost before.
        """

    def announce_drained(self, session: Session, *, flushed: bool) -> None:
        """Announce by the session's ring that requests without a completion were not executed.

        `flushed`: and that everything completed is durable.
        """

    def end_session(self, session: Session) -> None:
        """Cancel the session's queued requests, close its handles when they are idle, deliver nothing any more."""

    @property
    def bytes_inflight(self) -> int:
        """The bytes of all reads and writes in flight."""
    @property
    def message_bytes_inflight(self) -> int:
        """The bytes of those that came by message, whose payload is in the engine's memory."""
    @property
    def inflight(self) -> int:
        """The number of requests and controls in flight."""
    @property
    def files(self) -> int:
        """The number of open handles."""
    @property
    def descriptors(self) -> int:
        """The number of descriptors of handles: one each, and one for the flushes of a file that is written."""

    def spawn(self) -> None:
        """Run the main loop's spawn step. To be called when doorbell_fd is readable; clears it."""

    def tick(self) -> int:
        """Do timer work: retried creation of threads, rates, deadlines, lost-wakeup recovery.

        Return the ms until the next call, -1: never. Call tick_wanted() after each submit and reap (it takes one lock),
        so that the timer is set when it is needed.
        """

    def tick_wanted(self) -> int:
        """Return what tick() would return, without the work."""

    def resize(self, max_threads: int, min_threads: int) -> None:
        """Change the limits of the pool. Raises ValueError unless 1 <= max and 0 <= min <= max <= 4096."""

    def share(self, *, reserve_threads: int, active_max: int, active_bytes_max: int) -> None:
        """Set how workers are shared among sessions; 0 turns a rule off.

        The last `reserve_threads` workers, at most a sixteenth of max_threads, are reserved for sessions without active
        requests. While several sessions submit, each has at most `active_max` requests and about `active_bytes_max`
        bytes active.
        """

    def watch(self, *, slow_request_ms: int, stuck_threads_max: int) -> None:
        """Set the age at which active requests are slow (0: never), and the limit for replacing stuck workers.

        A worker is stuck when it has worked on the same request for that long. Up to `stuck_threads_max` stuck workers
        do not count against max_threads.
        """

    def active_requests(self, limit: int) -> list[dict[str, Any]]:
        """Describe up to `limit` active requests, which workers have started and not ended, oldest first.

        Keys: op (as in stats()), client, file, handle (of an open, close or directory operation: tag instead, the rest
        empty), offset, bytes, age_s (since it was started), tid (0: it shares another request's flush, and has no
        thread).
        """

    def find_slow(self, limit: int) -> list[dict[str, Any]]:
        """Describe the requests that have become slow since the last call, and replace stuck workers.

        To be called regularly: it also ends requests that have waited too long for a thread with a client's identity.
        """

    @property
    def open_as_client_waiting(self) -> int:
        """The number of opens and directory operations that wait for a thread with a client's identity."""

    def pool_stats(self) -> dict[str, Any]:
        """max_threads, stuck_threads, min_threads, cur_threads, idle_threads, new_threads, pending_threads, queued,
        active, threads_created, threads_peak, spawn_failures, lost_wakeups (recoveries of lost wake-ups; expected 0),
        uring_inflight (requests started by io_uring), uring_requests (that have ended), uring_returned (of these: left
        to workers), uring_failures (io_urings that could not be created),
        created_for {"burst": n, "min": n, "retry": n}, longest_chain (creations in a row from the main loop),
        spawn_latency_ns, spawn_latency_sum_ns (a histogram as in stats(): from the decision to create a worker until
        it runs)."""

    def trace_begin(self) -> None:
        """Begin to record completed requests, up to 65536. Forgets an earlier trace. Raises OSError ENOMEM."""

    def trace_end(self) -> tuple[bytes, int]:
        """End the trace: return its records (engine_api/trace_records.py), and the number of requests without room."""

    def worker_tids(self) -> list[int]:
        """Return the kernel thread ids of the living workers."""

    def follow(self) -> int:
        """Set the affinity of all workers and of the maker of rings to the calling thread's.

        Return the number of changed threads. Main loop's thread. Raises OSError if a thread could not be changed.
        """

    def stats(self) -> dict[str, Any]:
        """Per operation ("read", "write", ... as wire.Op, and "open", "close", "name"):
        {"count": n, "bytes": n, "errors": n, "inline": n,
         "latency_ns": [[value, count], ...], "queue_ns": ..., "service_ns": ...,
         "latency_sum_ns": n, "queue_sum_ns": n, "service_sum_ns": n}
        Each histogram is sparse: `value` is the highest value of the bucket (ns), `count` > 0. The sums are exact."""

    def snapshot(self, rates: Mapping[str, Rate]) -> tuple[dict[str, Any], dict[str, Any]]:
        """stats(), and the same requests by export. `rates`: that of each export, by its name.

        Of each export that has had requests: {"ops": {"read": {"count": n, "bytes": n, "errors": n,
        "transports": {"ring": n, ...}, "errnos": [[errno, n], ...]}, ...}, the histograms and sums of stats() over all
        operations, and throttling()}. Transports are "ring", "socket", "ipc", "tcp" and "daemon" (the daemon's own
        requests). Export "" has the requests that name no open file; without throttling()."""

    def throttling(self, rate: Rate) -> dict[str, Any]:
        """How `rate` holds requests back: "waiting" (sessions that wait for it now, once for each export), and
        "throttled_s" (the time in which at least one has waited)."""

    def flush_groups(self) -> dict[str, Any]:
        """How many flushes share one fdatasync(): {"counts": [of 1, of 2, up to 4, ... 2048, above], "requests": n},
        `requests` in all groups."""

    def serve_vhost(self, session: Session, handle: int, *, queues: int, block_bytes: int, serial: str) -> None:
        """Serve the open file to a guest as a block device, until the core ends. Raises OSError.

        The following functions are for a core that does."""

    @property
    def vhost_fd(self) -> int:
        """Readable when `vhost_step` has something to do."""

    def vhost_connect(self, fd: int) -> None:
        """Serve the VMM at the other end of the socket `fd`, which is taken over. Raises OSError.

        The device is free."""

    def vhost_disconnect(self) -> None:
        """End the connection, if there is one."""

    def vhost_step(self) -> list[bytes]:
        """Handle messages and notices; lines for the log."""

    def vhost_measure(self) -> None:
        """Have a worker look whether the file's size has changed."""

    def vhost_status(self) -> dict[str, Any]:
        """The state of the device: connected, free, queues, bytes ... (docs/guests.md)."""

    def drain(self) -> None:
        """Refuse new requests from now on (ESHUTDOWN); queued and active ones continue."""

    def stop(self, timeout_ms: int) -> bool:
        """Cancel queued requests, and end the workers. Wait (GIL released) up to timeout_ms for them.

        Return False if workers are still in system calls. Nothing may be submitted afterwards.
        """
