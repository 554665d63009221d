"""Requests (a submission record each) and calls (open, close, directory operations, cancel, goodbye) of a session.

Each is queued, then sent, then done; `done` is set once, with `result` or `error`. All of it is
protected by whatever protects the session: the link's lock (blocking) or the event loop (aio).
"""

from __future__ import annotations

import errno
import math
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.errors import set_written
from aiod_client.records import parse_extents, parse_stat
from aiod_client.requests.batch_steps import RequestFields
from aiod_client.requests.payload import put
from aiod_protocol.names import ASKS
from aiod_protocol.operations import Op, OpProperty, op_name, operations_with
from aiod_protocol.wire import SHARED_PAYLOAD_MAX, MessageType, OpenFlag, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.errors import Failure
    from aiod_client.requests.payload import Buffer
    from aiod_client.requests.split import Split

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)

GRACE_S: Final = 0.1
"""How long after its deadline a request that was sent is waited for: the daemon may still report its outcome."""

IOCTL_VALUE_BYTES: Final = 8
"""The ioctl's return value, before the argument in the payload of its completion (bytes)."""


class Pending:
    """A request or a call. `waiter` is what the link settles once it is done: a future."""

    __slots__ = ()

    cookie: int
    sent: bool
    done: bool
    result: Any
    error: BaseException | None
    waiter: Any

    @property
    def written(self) -> int:
        """Bytes known to be done, from the beginning on."""
        return 0

    def fail(self, error: BaseException) -> None:
        """Make it done, with `error`."""
        set_written(error, self.written)
        self.error = error  # type: ignore[misc]  # a slot of each of its classes, this and the next
        self.done = True  # type: ignore[misc]

    def outcome(self) -> Any:
        """The result, or the error raised. Call once it is done."""
        if self.error is not None:
            raise self.error
        return self.result


class Request(RequestFields, Pending):
    """One submission record, or several for a request that is too long for one. Made by operations.py.

    `buffer` is the payload, or the destination of a read (None: new bytes). It must not change until the request has
    completed, even if no thread waits for it any more. `charge` is the part of `length` that counts against the credit.
    The native module makes requests, too, without __init__().
    """

    __slots__ = ()

    def __init__(
        self, op: int, handle: int, offset: int, length: int, buffer: Buffer | None, charge: int, flags: int = 0
    ) -> None:
        self.cookie = 0
        self.sent = False
        self.done = False
        self.result = None
        self.error = None
        self.waiter = None
        self.op = op
        self.handle = handle
        self.offset = offset
        self.length = length
        self.buffer = buffer
        self.charge = charge
        self.flags = flags
        self.split: Split | None = None
        self.by_ring = False
        """Whether the ring transport has it, not the session."""
        self.deadline_s = math.inf
        """The deadline (monotonic seconds): it is not executed if it has not been started by then."""
        self.cancelling = False
        """The daemon was asked to cancel it: then ECANCELED means success."""
        self.source = 0
        """COPY_RANGE: the handle of the source, and the offset there."""
        self.source_offset = 0
        self.covers = 0
        """FLUSH: the epoch of the changes that it makes durable (open_files.py)."""

    def complete(self, result: int, data: bytes | memoryview, failure: Failure | None) -> None:
        """Take a completion: `data` is all its payload. Raises WireError or struct.error for an invalid one.

        An abandoned request keeps its error, and its buffer is not written.
        """
        if failure is not None:
            self.error = self.error or failure.error()
        elif self.done:
            self.result = result
        elif self.op == _READ:
            self._take_read(result, data)
        else:
            parse = _PARSERS.get(self.op)
            self.result = result if parse is None else parse(self, data)

    def begin_parts(self, split: Split) -> None:
        """Send it in the parts of `split`."""
        self.split = split
        if type(self.buffer) is bytes:
            self.buffer = memoryview(self.buffer)  # its parts are slices, not copies

    def join_parts(self, plain_result: int) -> None:
        """Set the outcome: every part has come. `plain_result` is that of an operation that returns no byte count."""
        assert self.split is not None  # noqa: S101 - a mistake of ours
        self.error, self.result = self.split.joined(self.buffer, plain_result)

    def _take_read(self, result: int, data: bytes | memoryview) -> None:
        if result > self.length:
            raise WireError(f"{result} bytes for {self}")
        if self.buffer is None:
            self.result = bytes(data)
            return
        self.result = result
        put(self.buffer, 0, data)

    @property
    def written(self) -> int:
        """Bytes known to be done, from the beginning on, of a request in parts."""
        return 0 if self.split is None else self.split.written

    @property
    def cancelled(self) -> bool:
        """Whether the daemon has cancelled it: it was not executed."""
        return self.cancelling and isinstance(self.error, OSError) and self.error.errno == errno.ECANCELED

    def __str__(self) -> str:
        """The request in error messages."""
        name = op_name(self.op)
        return f"{name} of {self.length} bytes at {self.offset}" if self.length else name


class ViewRequest(Request):
    """A read whose result is a read-only memoryview: of the message that has brought the bytes, if they are many.

    A view of few bytes would keep the whole frame, which has those of other requests, too.
    """

    __slots__ = ()

    def join_parts(self, plain_result: int) -> None:
        """See Request."""
        super().join_parts(plain_result)
        if self.error is None:
            self.result = memoryview(self.result)

    def _take_read(self, result: int, data: bytes | memoryview) -> None:
        if result > self.length:
            raise WireError(f"{result} bytes for {self}")
        in_message = type(data) is memoryview and len(data) >= SHARED_PAYLOAD_MAX
        self.result = memoryview(data if in_message else bytes(data)).toreadonly()


def _parse_ioctl(request: Request, data: bytes | memoryview) -> tuple[int, bytes]:
    if len(data) != IOCTL_VALUE_BYTES + request.length:
        raise WireError(f"{len(data)} bytes for {request}")
    value = int.from_bytes(data[:IOCTL_VALUE_BYTES], "little", signed=True)
    return value, bytes(data[IOCTL_VALUE_BYTES:])


def _note_opened(request: Request, data: bytes | memoryview) -> bytes | memoryview:
    """Note the file in the list of the caller: a signal's handler may raise before the caller has the result."""
    noted: Any = request.buffer
    if noted is not None:
        noted.append(data)
    return data


_PARSERS: Final[dict[int, Callable[[Request, bytes | memoryview], Any]]] = {
    int(Op.EXTENTS): lambda request, data: parse_extents(data, request.offset),
    int(Op.STAT): lambda _, data: parse_stat(data),
    int(Op.IOCTL): _parse_ioctl,
    int(Op.READ_FILE): lambda _, data: data,
    int(Op.STAT_NAME): lambda _, data: data,
    int(Op.OPEN_FILE): _note_opened,
    int(Op.NAME): lambda _, data: data,
    int(Op.OPEN_WRITABLE): _note_opened,
}

HAVE_PAYLOAD: Final = operations_with(OpProperty.REPLIES)
"""The operations whose result is the size of the payload of the completion."""


class Losable(Protocol):
    """A lock, which may be lost (locks.LockState)."""

    lost: bool


class Call(Pending):
    """A message with one REPLY as its answer: `arguments` follow token and cookie in its header."""

    __slots__ = (
        "arguments",
        "cookie",
        "done",
        "error",
        "filename",
        "handle",
        "kind",
        "locks",
        "result",
        "sent",
        "waiter",
    )

    def __init__(self, kind: MessageType, *arguments: Any, handle: int = -1, filename: str | None = None) -> None:
        self.cookie = 0
        self.sent = False
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.waiter: Any = None
        self.filename = filename
        self.kind = kind
        self.arguments = arguments
        self.handle = handle
        self.locks: list[Losable] = []
        """Of an UNLOCK that was sent: the locks that it releases."""

    def note_locks(self, result: int) -> None:
        """An UNLOCK has returned how many of the locks had been lost."""
        if self.kind == MessageType.UNLOCK and result > 0:
            for lock in self.locks:
                lock.lost = True

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again to another engine, though it may have been done."""
        if self.kind == MessageType.OPEN:
            return not self.arguments[2] & (OpenFlag.EXCLUSIVE | OpenFlag.TRUNCATE)
        if self.kind == MessageType.NAME:
            return self.arguments[0] in ASKS
        return True

    def __str__(self) -> str:
        """The request in error messages."""
        return f"{self.kind.name.lower()} {' '.join(str(a) for a in self.arguments[:2])}".rstrip()
