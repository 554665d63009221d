"""A request that is longer than the daemon accepts at once: its parts, and how they join into one result."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Final

from aiod_client.requests.pending import put
from aiod_client.wire import Op, WireError

if TYPE_CHECKING:
    from aiod_client.errors import Failure
    from aiod_client.requests.pending import Request

_READ: Final = int(Op.READ)
_SHORT_MEANS_THE_END: Final = frozenset({_READ, int(Op.COPY_RANGE)})


class Split:
    """How far a request has come that is sent in parts of at most `part_max` bytes."""

    __slots__ = ("_done", "asked", "end", "error", "failed_at", "part_max", "parts", "pieces", "written")

    def __init__(self, length: int, part_max: int) -> None:
        self.part_max = part_max
        self.asked = 0
        """Bytes of the request in parts sent so far."""
        self.end = length
        """Where the result ends: the first short part moves it down."""
        self.parts: dict[int, tuple[int, int]] = {}
        """Cookie to (start, length) of the parts in flight."""
        self.pieces: dict[int, memoryview] = {}
        """Start to bytes of the parts read, unless they go into the caller's buffer."""
        self.error: OSError | None = None
        """That of the foremost part that failed."""
        self.failed_at = 0
        """Bytes from the request's beginning on that are known to be done, if all parts before that one are."""
        self.written = 0
        """Bytes from the beginning on that are known to be done so far."""
        self._done: dict[int, int] = {}  # start to bytes of the parts done behind one that is not

    def all_asked(self) -> bool:
        """Whether no further part needs sending: all are, or the end or an error has been met."""
        return self.error is not None or self.asked >= self.end

    def complete(
        self,
        request: Request,
        start: int,
        length: int,
        result: int,
        data: bytes | memoryview | None,
        failure: Failure | None,
    ) -> None:
        """Take over the completion of the part of `length` bytes from `start` on. Raises WireError as Request's.

        `data` is None where the bytes of a read are in the caller's buffer already.
        """
        if failure is not None:
            written = start + failure.written
            if self.error is None or written < self.failed_at:
                self.error, self.failed_at = failure._replace(written=written).error(), written
        elif result > length:
            raise WireError(f"{result} bytes for {length} of {request}")
        elif request.op in _SHORT_MEANS_THE_END:
            if request.op != _READ:
                self._count(start, result)
            if result < length:
                self.end = min(self.end, start + result)
            if request.op == _READ and data is not None:
                self._keep(request, start, data)
        else:
            self._count(start, length)

    def _count(self, start: int, count: int) -> None:
        self._done[start] = count
        while more := self._done.pop(self.written, 0):
            self.written += more

    def _keep(self, request: Request, start: int, data: bytes | memoryview) -> None:
        if request.buffer is None:
            self.pieces[start] = memoryview(data)
        else:
            put(request.buffer, start, data)

    def join(self, request: Request, plain_result: int) -> None:
        """Set the request's outcome: every part has come. A read ends with its first short part.

        `plain_result` is that of an operation whose result is no number of bytes.
        """
        if self.error is not None:
            request.error = self.error
        elif request.op == _READ and request.buffer is None:
            request.result = b"".join(
                piece for start, piece in sorted(self.pieces.items(), key=operator.itemgetter(0)) if start < self.end
            )
        else:
            request.result = plain_result if request.op == Op.WRITE_ZEROES else self.end
        self.pieces.clear()
