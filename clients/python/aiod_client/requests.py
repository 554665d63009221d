"""What a session carries: requests (read, write, flush, size) and calls (open, close, goodbye), checked at the door.

A pending thing is queued, then sent, then done; `done` is set once, with `result` or `error`. All of it is
protected by whatever protects the session: the link's lock (blocking) or the event loop (aio).
"""

from __future__ import annotations

import errno
import operator
import os
from typing import Any, Final

from aiod_client.errors import from_wire
from aiod_client.wire import MessageType, Op, OpenFlag, WireError

OFFSET_MAX: Final = (1 << 63) - 1
PATH_BYTES_MAX: Final = 4096
PERMISSION_BITS: Final = 0o777

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)
_WRITE: Final = int(Op.WRITE)

Payload = bytes | memoryview

_MODES: Final = {
    "r": OpenFlag.READ,
    "r+": OpenFlag.READ | OpenFlag.WRITE,
    "w": OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.TRUNCATE,
    "w+": OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.TRUNCATE,
    "x": OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.EXCLUSIVE,
    "x+": OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.EXCLUSIVE,
}


class Pending:
    """Something asked of the daemon. `waiter` is the front end's: whatever it must wake when this is done."""

    __slots__ = ("cookie", "done", "error", "result", "sent", "waiter")

    def __init__(self) -> None:
        self.cookie = 0
        self.sent = False
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.waiter: Any = None

    def fail(self, error: BaseException) -> None:
        """Done, with `error`."""
        self.error = error
        self.done = True

    def outcome(self) -> Any:
        """The result, or the error raised. Call once it is done."""
        if self.error is not None:
            raise self.error
        return self.result


class Request(Pending):
    """One read, write, flush or size. Make it with the functions below.

    `buffer` is a write's payload, or where a read's bytes go (None: into new bytes). It must stay as it is until
    the request has completed, whatever became of the one who waited for it.
    """

    __slots__ = ("buffer", "handle", "length", "offset", "op", "split")

    def __init__(self, op: int, handle: int, offset: int, length: int, buffer: Payload | None) -> None:
        # Pending's fields are set here rather than by super(): this runs once a request.
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
        self.split: Split | None = None

    def complete(self, result: int, data: bytes | memoryview, sentence: str | None) -> None:
        """Take over a completion: `data` is all that was read. Raises WireError for more than was asked.

        One that was abandoned keeps its error, and its buffer is not touched.
        """
        if result < 0:
            self.error = self.error or from_wire(-result, sentence)
        elif self.op != _READ or self.done:
            self.result = result
        elif result > self.length:
            raise WireError(f"{result} bytes for {self}")
        elif self.buffer is None:
            self.result = bytes(data)
        else:
            self.result = result
            self.buffer[:result] = data  # type: ignore[index]

    def __str__(self) -> str:
        """For people: what was asked."""
        name = Op(self.op).name.lower()
        return f"{name} of {self.length} bytes at {self.offset}" if self.op in (Op.READ, Op.WRITE) else name


class Split:
    """How far a request longer than the daemon accepts at once has come; its parts join into one result."""

    __slots__ = ("asked", "end", "error", "parts", "pieces")

    def __init__(self, length: int) -> None:
        self.asked = 0
        """Bytes of the request in parts sent so far."""
        self.end = length
        """Where the result ends: the first short part moves it down."""
        self.parts: dict[int, tuple[int, int]] = {}
        """Cookie to (start, length) of the parts in flight."""
        self.pieces: dict[int, memoryview] = {}
        """Start to bytes of the parts read, unless they go into the caller's buffer."""
        self.error: OSError | None = None
        """The first part's that failed."""

    def all_asked(self) -> bool:
        """Whether no further part needs sending: all are, or the end or an error has been met."""
        return self.error is not None or self.asked >= self.end

    def complete(
        self, request: Request, start: int, length: int, result: int, data: bytes | memoryview, sentence: str | None
    ) -> None:
        """Take over the completion of the part of `length` bytes from `start` on. Raises WireError as Request's."""
        if result < 0:
            self.error = self.error or from_wire(-result, sentence)
        elif result > length:
            raise WireError(f"{result} bytes for {length} of {request}")
        elif request.op == _READ:
            self._read(request, start, length, data)

    def _read(self, request: Request, start: int, length: int, data: bytes | memoryview) -> None:
        if len(data) < length:
            self.end = min(self.end, start + len(data))
        if request.buffer is None:
            self.pieces[start] = memoryview(data)
        else:
            request.buffer[start : start + len(data)] = data  # type: ignore[index]

    def join(self, request: Request) -> None:
        """Set the request's outcome: every part has come. A read ends with its first short part."""
        if self.error is not None:
            request.error = self.error
        elif request.op == _READ and request.buffer is None:
            request.result = b"".join(
                piece for start, piece in sorted(self.pieces.items(), key=operator.itemgetter(0)) if start < self.end
            )
        else:
            request.result = self.end
        self.pieces.clear()


class Call(Pending):
    """A message that is answered by one REPLY: `arguments` follow token and cookie in its header."""

    __slots__ = ("arguments", "filename", "handle", "kind")

    def __init__(self, kind: MessageType, *arguments: Any, handle: int = -1, filename: str | None = None) -> None:
        super().__init__()
        self.filename = filename
        self.kind = kind
        self.arguments = arguments
        self.handle = handle

    def __str__(self) -> str:
        """For people: what was asked."""
        return f"{self.kind.name.lower()} {' '.join(str(a) for a in self.arguments[:2])}".rstrip()


def read_request(handle: int, length: int, offset: int) -> Request:
    """A read into new bytes. Raises OSError (EINVAL) for a negative or over-large range, TypeError for no integers."""
    if type(length) is not int or type(offset) is not int:
        length, offset = operator.index(length), operator.index(offset)
    if length < 0 or offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range("read", length, offset)
    return Request(_READ, handle, offset, length, None)


def read_into_request(handle: int, buffer: Any, offset: int) -> Request:
    """A read into `buffer` (writable, contiguous). Raises TypeError for anything else, OSError as read_request."""
    into = _bytes_of(buffer)
    if into.readonly:
        raise TypeError(f"cannot read into {type(buffer).__name__}: it is read-only")
    length, offset = len(into), operator.index(offset)
    if offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range("read", length, offset)
    return Request(_READ, handle, offset, length, into)


def write_request(handle: int, data: Any, offset: int) -> Request:
    """A write of `data` (bytes-like, contiguous). Raises TypeError for anything else, OSError as read_request."""
    payload: Payload = data if type(data) is bytes else _bytes_of(data)
    length = len(payload)
    if type(offset) is not int:
        offset = operator.index(offset)
    if offset < 0 or offset + length > OFFSET_MAX:
        raise _bad_range("write", length, offset)
    return Request(_WRITE, handle, offset, length, payload)


def flush_request(handle: int) -> Request:
    """A flush of every write completed before it was submitted."""
    return Request(Op.FLUSH, handle, 0, 0, None)


def size_request(handle: int) -> Request:
    """The file's size in bytes."""
    return Request(Op.SIZE, handle, 0, 0, None)


_MAKERS: Final = {
    "read": read_request,
    "read_into": read_into_request,
    "write": write_request,
    "flush": flush_request,
    "size": size_request,
}


def from_tuple(handle: int, item: Any) -> Request:
    """The request that `("read", length, offset)`, `("write", data, offset)` and so on describe.

    Raises ValueError for an unknown operation, TypeError for wrong arguments, OSError as the functions above.
    """
    operation, *arguments = item
    maker: Any = _MAKERS.get(operation)
    if maker is None:
        raise ValueError(f"unknown operation {operation!r}: one of {', '.join(_MAKERS)}")
    request: Request = maker(handle, *arguments)
    return request


def parse_path(path: str | os.PathLike[str]) -> tuple[str, str]:
    """(export, path in it) of "EXPORT/PATH". Raises TypeError, or OSError (EINVAL, ENAMETOOLONG)."""
    text = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"path must be str, not {type(text).__name__}")
    try:
        length = len(text.encode())
    except UnicodeEncodeError as error:
        raise OSError(errno.EINVAL, "the path is not valid Unicode: aiod's paths are UTF-8", text) from error
    if length > PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a path of {length} bytes: at most {PATH_BYTES_MAX}", text)
    export, _, inside = text.partition("/")
    return export, inside


def parse_mode(mode: str) -> OpenFlag:
    """OPEN's flags of `mode`: r, r+, w, w+, x, x+; a "b" anywhere is allowed. Raises ValueError."""
    flags = _MODES.get(mode.replace("b", "", 1))
    if flags is None:
        raise ValueError(f"invalid mode {mode!r}: one of {', '.join(_MODES)}")
    return flags


def check_permissions(perm: int) -> int:
    """`perm` if it is permission bits; raises ValueError."""
    bits = operator.index(perm)
    if not 0 <= bits <= PERMISSION_BITS:
        raise ValueError(
            f"perm {bits:#o}: permission bits from 0 to {PERMISSION_BITS:#o}; the daemon sets no others on a file"
        )
    return bits


def _bytes_of(data: Any) -> memoryview:
    view = memoryview(data)
    if view.nbytes == 0:
        return memoryview(b"" if view.readonly else bytearray())  # cast() refuses a shape with zeros in it
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")


def _bad_range(operation: str, length: int, offset: int) -> OSError:
    return OSError(
        errno.EINVAL,
        f"{operation} of {length} bytes at {offset}: neither may be negative, nor their sum over 2**63 - 1",
    )
