"""A request that is longer than the daemon accepts at once: its parts, and how they join into one result.

Whatever protects the request protects its Split.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

from aiod_client.requests.payload import put
from aiod_protocol.operations import Op, OpProperty, operations_with
from aiod_protocol.wire import RANGE_BYTES_MAX, WireError

if TYPE_CHECKING:
    from aiod_client.errors import Failure
    from aiod_client.requests.payload import Buffer

_READ: Final = int(Op.READ)
_BY_PAYLOAD: Final = frozenset({_READ, int(Op.WRITE)})
_BY_RANGE: Final = operations_with(OpProperty.BOUNDED)
_SHORT_MEANS_THE_END: Final = frozenset({_READ, int(Op.COPY_RANGE)})


def part_bytes_max(op: int, payload_bytes_max: int) -> int | None:
    """The longest part of a request `op`, if one part has at most `payload_bytes_max`; None: `op` cannot be split."""
    if op in _BY_PAYLOAD:
        return payload_bytes_max
    return RANGE_BYTES_MAX if op in _BY_RANGE else None


class Split:
    """The progress of a request `op` of `length` bytes that is sent in parts of at most `part_max` bytes."""

    __slots__ = ("_done", "_op", "asked", "end", "error", "failed_at", "part_max", "parts", "pieces", "written")

    def __init__(self, op: int, length: int, part_max: int) -> None:
        self._op = op
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
        """The error of the foremost part that failed."""
        self.failed_at = 0
        """Bytes known to be done, from the request's beginning on, if all parts before the failed part are done."""
        self.written = 0
        """Bytes known to be done so far, from the request's beginning on."""
        self._done: dict[int, int] = {}  # start to bytes of the parts done behind one that is not

    def all_asked(self) -> bool:
        """Whether no further part needs sending: all are sent, or the file's end or an error was met."""
        return self.error is not None or self.asked >= self.end

    def next_part(self) -> tuple[int, int]:
        """(start, length) of the next part to send."""
        return self.asked, min(self.part_max, self.end - self.asked)

    def complete(
        self,
        buffer: Buffer | None,
        start: int,
        length: int,
        result: int,
        data: bytes | memoryview | None,
        failure: Failure | None,
    ) -> None:
        """Take the completion of the part of `length` bytes from `start` on.

        `buffer` is the request's. `data` has the bytes of a read; None: they are in the buffer already. Raises
        WireError for a result that cannot be.
        """
        if failure is not None:
            written = start + failure.written
            if self.error is None or written < self.failed_at:
                self.error, self.failed_at = failure._replace(written=written).error(), written
        elif result > length:
            raise WireError(f"{result} bytes for a part of {length} bytes")
        elif self._op in _SHORT_MEANS_THE_END:
            if self._op != _READ:
                self._count(start, result)
            if result < length:
                self.end = min(self.end, start + result)
            if self._op == _READ and data is not None:
                self._keep(buffer, start, data)
        else:
            self._count(start, length)

    def _count(self, start: int, count: int) -> None:
        self._done[start] = count
        while more := self._done.pop(self.written, 0):
            self.written += more

    def _keep(self, buffer: Buffer | None, start: int, data: bytes | memoryview) -> None:
        if buffer is None:
            self.pieces[start] = memoryview(data)
        else:
            put(buffer, start, data)

    def joined(self, buffer: Buffer | None, plain_result: int) -> tuple[OSError | None, Any]:
        """(error, result) of the request, all of whose parts have completed. A read ends with its first short part.

        `plain_result` is the result of an operation that returns no byte count.
        """
        result: Any = None
        if self.error is not None:
            pass
        elif self._op == _READ and buffer is None:
            pieces = sorted(self.pieces.items(), key=operator.itemgetter(0))
            result = b"".join(piece for start, piece in pieces if start < self.end)
        else:
            result = plain_result if self._op == Op.WRITE_ZEROES else self.end
        self.pieces.clear()
        return self.error, result
