"""libaiod: a ring of one session with an engine (docs/ring.md). Any thread; the GIL is released while a thread waits.

A failure is (result, written, reason): -errno, bytes known to be done, and a reason of aiod_protocol.reasons (-1:
timeout).
"""

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

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

class RequestFields:
    """The base of Request: its attributes in slots."""

class FutureFields:
    """The base of RequestFuture: its attributes in slots."""

def make_requests(
    kind: type[Any],
    handle: int,
    batch: Iterable[Any],
    deadline_s: float,
    other: Callable[[Any], Any],
) -> list[Any]:
    """A Request of the class `kind` for each ("read", int, int) and ("write", bytes, int); `other` makes the rest."""

def fill_records(
    records: bytearray,
    queue: deque[Any],
    in_flight: dict[int, Any],
    cookie: int,
    bytes_free: int,
    now_s: float,
    payload: Any,
) -> tuple[int, int]:
    """Move the plain reads and writes at the head of `queue` to `in_flight`, with the cookies after `cookie`.

    Their records go to `records`, their bytes to `payload`. Returns their number, and the bytes of credit they take.
    """

def complete_records(
    records: bytes,
    requests: dict[int, Any],
    files: dict[int, Any],
    frames: Sequence[Any],
    finished: list[Any],
    kind: type[Any],
) -> tuple[int, int]:
    """Complete the first requests of a COMPLETE that are plain reads and writes, of the class `kind` itself.

    They move from `requests` to `finished`. Returns their number, and the bytes of credit that come back.
    """

def make_futures(
    kind: type[Any], requests: list[Any], condition: Any, link: Any, file: Any, cancel_timeout_s: float
) -> list[Any]:
    """A RequestFuture, of the class `kind`, for each request."""

def settle_futures(finished: list[Any]) -> int:
    """Settle the futures of the first requests that no thread waits for; returns how many requests that were."""

class Buffer:
    """Memory of a ring's buffer pool, with the (writable) buffer protocol. Released with the last reference."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Pending:
    """A request in flight. When it is dropped, its completion is ignored."""

    owner: Any
    """The object that reap() returns for it."""

    def cancel(self, timeout_s: float) -> int:
        """Cancel it before it is started. 1: it will end so; 0: too late; -errno: unknown."""

Failure = tuple[int, int, int]

Awaited = tuple[Future[Any], int, int, int, int, int, Any, bool, float, float]
"""A request that a future waits for, to be adopted by the session: (future, op, flags, handle, offset, length, data,
submitted, deadline on the monotonic clock, timeout). `data` is what was given to read_into_soon or write_soon, the
`covers` of flush_soon, or the path of on_path_soon.
"""

class Ring:
    """The ring. None as a result: no room now, or arguments that the ring cannot take: the session has to do it."""

    def read(self, handle: int, length: Any, offset: Any, timeout_s: Any) -> bytes | Failure | None:
        """Read, and wait for it."""

    def read_into(self, handle: int, buffer: Any, offset: Any, timeout_s: Any) -> int | Failure | None:
        """Read into `buffer`, without a copy if it is the ring's; the bytes read."""

    def write(self, handle: int, data: Any, offset: Any, flags: int, timeout_s: Any) -> int | Failure | None:
        """Write `data`, without a copy if it is the ring's; its length."""

    def attend(self, loop: AbstractEventLoop, wake: Callable[[], None], set_timer: Callable[[float], None]) -> None:
        """Allow the methods below, in the thread of `loop`.

        They call `wake` where reap() is to follow at the end of this turn of the loop, and `set_timer` with the time
        (monotonic) at which overdue() has something to return.
        """

    def read_soon(
        self, handle: int, length: Any, offset: Any, timeout_s: Any
    ) -> bytes | Failure | Future[bytes] | None:
        """Read; the future of a read that does not complete within microseconds. reap() sets its result."""

    def read_into_soon(
        self, handle: int, buffer: Any, offset: Any, timeout_s: Any
    ) -> int | Failure | Future[int] | None:
        """As read_into(): the result if it is there at once, else a future."""

    def write_soon(
        self, handle: int, data: Any, offset: Any, flags: int, timeout_s: Any, file: Any
    ) -> int | Failure | Future[int] | None:
        """As write(): the result if it is there at once, else a future.

        `file` is the open_files.OpenFile in which a completed write is noted as a change; None: it needs no note.
        """

    def flush_soon(self, handle: int, timeout_s: Any, covers: int) -> int | Failure | Future[int] | None:
        """Flush: 0, or a future of that. `covers` is kept for adopt()."""

    def adopt(self, future: Any) -> tuple[Pending, Awaited] | None:
        """The request that `future` waits for, which from now on is one as of start(), whose owner has to be set.

        None: it is done.
        """

    def adopt_all(self, handle: int | None) -> list[tuple[Pending, Awaited]]:
        """As adopt(), for all requests of `handle`; None: of all handles."""

    def overdue(self, now_s: float) -> tuple[list[Future[Any]], float]:
        """The futures whose requests' time is up, and when to ask next."""

    @property
    def awaited(self) -> int:
        """The number of futures that wait."""
    @property
    def resolved(self) -> int:
        """The number of futures with a result by the last reap()."""
    held: bool
    """Whether requests wait for room in the ring: new ones queue behind them, and the methods above return None."""

    def on_path(
        self, op: int, flags: int, handle: int, path: str | bytes, data: Any, length: int, timeout_s: float
    ) -> bytes | int | Failure | None:
        """A request on a path in the export of `handle`, waited for. `length`: room for a result, without `data`.

        READ_FILE: the file's bytes, behind its stat if `flags` has WITH_STAT (ring/paths.py); STAT_NAME: the stat;
        NAME, whose `path` is its record and what follows that: the answer. A failure with EFBIG has the file's size in
        the place of `written`. Opens: `data` is a list, to which its result is appended, so that no handler of
        a signal can lose it.
        """

    def on_path_soon(
        self, op: int, flags: int, handle: int, path: str | bytes, data: Any, length: int, timeout_s: float, alone: bool
    ) -> bytes | int | Failure | Future[bytes] | Pending | None:
        """The same, as read_soon(): a future of what only reads, else a Pending whose owner has to be set.

        `alone`: poll as long as on_path(), since no other request is to be submitted.
        """

    def close_file(self, handle: int, timeout_s: float, soon: bool = False) -> int | Failure | Pending | None:
        """Close a file that OPEN_FILE has opened, waited for. `soon`: as read_soon()."""

    def late_opened(self) -> list[int]:
        """The handles of the files that OPEN_FILE has opened after it was given up; each is returned once."""

    def start(
        self,
        op: int,
        flags: int,
        handle: int,
        offset: int,
        length: int,
        source: int,
        source_offset: int,
        timeout_s: float,
        data: Any,
        owner: Any,
    ) -> Pending | None:
        """Submit any request; `data` is the bytes of a write, or the destination of a read (None: new bytes)."""

    def reap(self, look: bool = False) -> list[tuple[Any, int, int, int, bytes | None]]:
        """(owner, result, written, reason, a read's new bytes) of the started requests that are done. Never waits.

        It sets the results of futures; of their requests only failed ones are in the list, each with its Awaited as the
        owner. `look`: if nothing is done and futures wait, poll for some microseconds, as long as that pays; of
        several reads with much to copy take one alone.
        """

    def wait(self, seen: int, timeout_s: float) -> bool:
        """Wait until done_count is not `seen`; False: it still is. Signal handlers run meanwhile."""

    @property
    def done_count(self) -> int:
        """The number of requests done so far."""
    def buffer(self, nbytes: int) -> Buffer | None:
        """`nbytes` of zeroed memory, aligned to 4096; None: the buffer pool has no room now."""

    @property
    def request_bytes_max(self) -> int:
        """The most bytes of one request."""
    @property
    def ended(self) -> int:
        """The errno for which the session ended; 0: it has not, as far as is known."""
    @property
    def shutdown_notice(self) -> int:
        """The engine's notice of an orderly stop: flags of ring_wire.RingLastWord."""
    @property
    def fd(self) -> int:
        """Readable when requests are done since arm(), and when the session has ended."""
    def arm(self) -> bool:
        """Prepare for sleeping on `fd`. False: do not sleep, there is something to reap."""

    def disarm(self) -> None:
        """Make `fd` unreadable, after waking."""

    def close(self) -> None:
        """End the ring and wake all threads that wait. Its memory stays for as long as a Buffer is used."""

def attach(path: str, ticket: bytes, *, software: str, entries: int, area_bytes: int) -> Ring:
    """Attach a ring to the session of `ticket` at the engine's ring socket. Raises OSError with a message."""
