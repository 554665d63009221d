"""The native core as Python sees it (aiod/core/module.cpp). Main loop thread only, unless said otherwise."""

from collections.abc import Sequence
from typing import Any

Failure = tuple[int, int, int, int, int, int, int]
"""(index in records, op, handle, offset, length, errno, reason): `reason` is one of aiod_protocol.reasons."""

Completions = tuple[bytes, list["Buffer"], list[Failure]]
"""(completion records of wire.COMPLETION, payload frames, failures)."""

Control = tuple[int, int, int, int, int, int, int, int, int, bool, int, int]
"""(tag, result, reason, size, dev, ino, generation, witness, flush_fd, on FUSE, memory, offset alignment) of an `open`
or `adopt` (result: fd or -errno; reason: a Reason; witness and flush_fd: the file opened once more, -1: there is
none; the alignments (bytes) with DIRECT), or of a `close` (result: 0 or -errno)."""

Listing = tuple[list[tuple[str | bytes, str, int]], int | None]
"""((name, bytes if it is not UTF-8; kind: "file", "dir", "link", "block" or "other"; size in bytes) of each entry, at
most 512; the next page's cursor, None: there is none). Less than 48 KiB as msgpack."""

DirectoryResult = tuple[int, int, int, bool, Listing | bytes | None]
"""(tag, 0 or -errno, a Reason, whether -EXDEV means that a path leaves the root, what "list" or "stat" found) of
a `name`."""

AttachResult = tuple[Session, int, int, int]
"""(session, 0 or errno, descriptor of the memory, of the doorbell) of an `attach`; the descriptors are the core's."""

VERB_LIST: int
VERB_STAT: int
VERB_REMOVE: int
VERB_RMDIR: int
VERB_RENAME: int
VERB_MKDIR: int
VERB_SYNC: int

def keep_large_blocks() -> None:
    """Have malloc keep up to 64 MiB of freed memory: libzmq allocates every message, and fresh pages cost faults."""

class Buffer:
    """Bytes of a payload frame; supports the (read-only) buffer protocol.

    Its memory goes back to the core's bounded cache with the last reference, from any thread that holds the GIL.
    """

    def __len__(self) -> int: ...

def may_set_ioprio() -> bool:
    """Whether this process may set its threads' I/O priority (a unit's SystemCallFilter= may say no)."""

def probe_open_beneath() -> int:
    """0 if this process may open files by openat2, else the negative errno (ENOSYS, EPERM). Any thread."""

class Rate:
    """A token bucket of requests and of bytes, for what is picked from the pool's queue; no limits at first."""

class Session:
    """What admission knows of one client: credit, handles, counters."""

    def __init__(
        self,
        tag: object,
        *,
        client: str,
        depth_max: int,
        bytes_max: int,
        request_bytes_max: int,
        batch_max: int,
        handles_max: int,
        rate: Rate | None,
    ) -> None:
        """`client`: what people call it, at most 8 characters; `rate`: its user's."""
    tag: Any
    """Whatever the caller wants to find its own session object by."""
    @property
    def handles(self) -> int:
        """Open handles."""
    def describe_handles(self) -> list[dict[str, Any]]:
        """Of each: handle, readable, writable, append, direct, inflight (requests), closing, poisoned."""
    def retire_handle(self, number: int) -> None:
        """What an earlier engine had open as `number` is not open here: no new handle gets that number."""
    @property
    def inflight(self) -> int:
        """Requests admitted and not yet completed."""
    @property
    def has_ring(self) -> bool:
        """Whether attach() has given it one."""
    @property
    def unacknowledged(self) -> int:
        """Completion records (refusals included) the client has not said it received, plus inflight."""
    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes of the reads and writes that are in flight, or whose completion the client has not said it received."""
    def stats(self) -> dict[str, Any]:
        """As Core.stats, of this session's requests only."""

class Core:
    """One engine's pool, spawner, buffers, file table and counters."""

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
        """Raises OSError when an eventfd cannot be made, ValueError for numbers out of range."""

    completion_fd: int
    """eventfd, readable when reap() has something."""
    doorbell_fd: int
    """eventfd, readable when spawn() is wanted (the spawner's bottom half)."""

    def submit(self, session: Session, received: int, records: bytes, frames: Sequence[Any]) -> Completions | None:
        """Admit a batch. What completes at once (inline reads, refusals) is returned, the rest comes from reap().

        records: wire.SUBMISSION records; frames: objects with the buffer protocol, kept until their writes are done.
        Raises ValueError (nothing of the batch was executed) for a malformed batch, or for a session over twice its
        credit: the caller ends the session.
        """

    def reap(
        self,
    ) -> tuple[
        list[tuple[Session, Completions]],
        list[Control],
        list[DirectoryResult],
        list[tuple[Session, str]],
        list[AttachResult],
    ]:
        """Everything that has completed, grouped by session. Clears completion_fd. Never blocks.

        Last but one the sessions to be ended since their client broke a rule by its ring, and which one.
        """

    def attach(self, session: Session, wake_fd: int, entries: int, area_bytes: int) -> int:
        """Begin to make a ring for the session (docs/ring.md); the bytes of its memory.

        It counts from now on; how it ends comes from reap() as an AttachResult, unless the session ends before.

        wake_fd: the socket that wakes the client (it is duplicated). entries: a power of two up to 4096. Raises
        OSError: EEXIST (it has one), EINVAL (no ring is like that), EAGAIN (no thread), ENOMEM, EMFILE.
        """

    @property
    def rings(self) -> int:
        """Rings whose memory is in use."""
    @property
    def ring_bytes(self) -> int:
        """Bytes of their memory."""

    def cancel(self, session: Session, cookies: Sequence[int]) -> int:
        """Cancel what is still queued; their completions (ECANCELED) come from reap(). Returns how many."""

    def open(
        self,
        tag: int,
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
        """Open `path` beneath `root` on a worker (flags: wire.OpenFlag); the result comes from reap() as a Control.

        An empty `path` opens `root` itself. Only regular files (and, with an empty path, block devices). A file that
        is made gets `mode` (with `exact_mode` whatever the umask), and is given to `uid` and `gid` (-1: stays the
        daemon's). `links`: symbolic links are followed within `root`. `as_client`: (uid, gid, groups) that the kernel
        checks, by a thread of its export; None: the daemon's own. What has not been begun after `timeout_ms` (0: for
        ever) ends with ETIMEDOUT, Reason.DEADLINE. `rate`: of its export (None: of none), which is not charged: while
        requests of that export hang, this one waits with the others.
        """

    def directory_operation(
        self,
        tag: int,
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
        as_client: tuple[int, int, Sequence[int]] | None,
        timeout_ms: int,
    ) -> None:
        """Look at or change a name beneath the directory `root` on a worker (docs/operations.md, Directory operations).

        verb: one of VERB_*; `to` and `replace` are rename's, `cursor` is list's, `mode` mkdir's; `links`: symbolic
        links are followed within `root`; `rate`, `as_client`, `timeout_ms`: as for open. The result comes from reap()
        as a DirectoryResult.
        """

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
    ) -> int:
        """Give `fd` to the session as a handle (a number above 0). Raises OSError EMFILE at handles_max.

        `rate`: of its export; the same one for all of it. `ioprio`: I/O priority of who works for it (0: none).

        Of one that an earlier engine had: `wanted` is its number then (EEXIST: it is taken), after a `suspect`
        one the first flush of each handle of the file fails.

        `flush_fd` (taken over, also if this raises; -1: none) is the file for flushes alone; the first one stays so.

        `append`: written by APPEND only. `alignment`: (memory, offset) in bytes of one opened DIRECT. `ioctls`: the
        (number, bytes of the argument) that are allowed. `size_max`: no byte is written beyond it (0: no limit).
        `name`: what people call the file.
        """

    def set_rate(self, rate: Rate, *, per_second: int, bytes_per_second: int, burst_ms: int) -> None:
        """Give it other limits (0: none); `burst_ms`: what may be saved up of either."""

    def adopt(self, tag: int, rate: Rate | None, fd: int, flags: int) -> None:
        """Find out about `fd`, which an earlier engine has opened with `flags`; the result comes as that of open().

        `fd` is the result's flush_fd then, if the file could be opened once more; it is closed if this fails.
        """

    poison_notice_fd: int
    """A socket on which workers say ["poisoned", dev, ino] (msgpack) when a file's first flush has failed; -1: none."""

    takes_repeats: bool
    """Whether requests with the flag REPEAT are carried out; else they fail with EIO."""

    def close_fd(self, tag: int, rate: Rate | None, fd: int) -> None:
        """Close a descriptor that never became a handle, on a worker; ends as a Control. `rate`: as for open."""

    def close_handle(self, tag: int, session: Session, handle: int) -> None:
        """Close after the handle's requests in flight; the result comes from reap() as a Control.

        Raises OSError EBADF when there is no such handle.
        """

    def flush_handle(self, tag: int, session: Session, handle: int) -> None:
        """Have on disk all that is completed on the handle's file; the result comes from reap() as a Control.

        Raises OSError: EBADF when there is no such handle, EIO when what was written may be lost already.
        """

    def announce_drained(self, session: Session, *, flushed: bool) -> None:
        """Say by its ring that what has no completion was not executed; `flushed`: and that the rest is on disk."""

    def end_session(self, session: Session) -> None:
        """Cancel what is queued, close the handles when nothing is in flight on them, deliver nothing any more."""

    @property
    def bytes_inflight(self) -> int:
        """Sum of the lengths of all reads and writes in flight."""
    @property
    def message_bytes_inflight(self) -> int:
        """Of those that came by message, and have memory of the engine's for their payload."""
    @property
    def inflight(self) -> int:
        """Requests and controls in flight."""
    @property
    def files(self) -> int:
        """Open handles."""
    @property
    def descriptors(self) -> int:
        """Descriptors held for handles: one each, and one for the flushes of a file that is written."""

    def spawn(self) -> None:
        """The main loop's spawn step; call when doorbell_fd is readable (clears it)."""

    def tick(self) -> int:
        """Timer work: creation retry, lost-wake-up belt, deadlines. Returns ms until it wants the next call, -1: never.

        Ask after every submit and reap (cheap: one lock), so that the caller's timer is armed when needed.
        """

    def tick_wanted(self) -> int:
        """As tick()'s result, without doing anything."""

    def resize(self, max_threads: int, min_threads: int) -> None:
        """Change the pool's limits live. Raises ValueError unless 1 <= max and 0 <= min <= max <= 4096."""

    def share(self, *, reserve_threads: int, active_max: int, active_bytes_max: int) -> None:
        """How workers are shared among sessions; 0: no such rule.

        The last `reserve_threads` workers (a sixteenth of max_threads at most) are for sessions with nothing in
        service; while more than one asks, each has at most `active_max` requests and about `active_bytes_max` bytes
        there.
        """

    def watch(self, *, slow_request_ms: int, stuck_threads_max: int) -> None:
        """What is in service for longer than that is slow (0: nothing ever).

        A worker that has been with the same for so long is stuck: as many as are stuck, at most `stuck_threads_max`,
        may be there beyond max_threads.
        """

    def active_requests(self, limit: int) -> list[dict[str, Any]]:
        """What workers have begun and not ended, the oldest of them first, at most so many; what is queued is not here.

        Of each: op (as in stats()), client, file, handle (or of an open, a close or a name: tag, the rest empty),
        offset, bytes, age_s (since it was begun), tid (0: it waits for another's flush, and holds no thread).
        """

    def find_slow(self, limit: int) -> list[dict[str, Any]]:
        """Those that have become slow since the last call. Counts the workers that are stuck, and has them replaced.

        To be called now and then: what has waited too long for the opener's thread is ended as well.
        """

    @property
    def open_as_client_waiting(self) -> int:
        """Opens and names as a client that wait for the opener's thread."""

    def pool_stats(self) -> dict[str, Any]:
        """max_threads, stuck_threads, min_threads, cur_threads, idle_threads, new_threads, pending_threads, queued,
        active, threads_created, threads_peak, spawn_failures, lost_wakeups (what the belt caught; expected 0),
        created_for {"burst": n, "min": n, "retry": n}, longest_chain (creations in a row from the main loop),
        spawn_latency_ns (histogram as of stats(): from owed to running)."""

    def worker_tids(self) -> list[int]:
        """Kernel thread ids of the living workers."""

    def follow(self) -> int:
        """Give every living worker, the poller and the maker of rings the calling thread's affinity.

        Returns how many had another. Main loop's thread. Raises OSError when one could not be moved."""

    def stats(self) -> dict[str, Any]:
        """Per operation ("read", "write", ... as wire.Op, and "open", "close", "name"):
        {"count": n, "bytes": n, "errors": n, "inline": n,
         "latency_ns": [[value, count], ...], "queue_ns": ..., "service_ns": ...}
        Each histogram is sparse: `value` is the highest value of the bucket (ns), `count` > 0."""

    def drain(self) -> None:
        """Refuse new requests from now on (ESHUTDOWN); what is queued and active goes on."""

    def stop(self, timeout_ms: int) -> bool:
        """End the workers: what is still queued is cancelled. Waits (GIL released) up to timeout_ms for the
        workers; False when some are still inside a system call. Nothing may be submitted afterwards."""
