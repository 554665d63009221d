"""The requests that an engine has not answered, the credit that they take, and the SUBMIT messages that carry them.

Protected by whatever protects the session. What every request meets is written for speed: local variables, no calls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from aiod_client.requests.batch_steps import fill_records
from aiod_client.requests.payload import FRAMES_LEFT, Payload, Pieces
from aiod_client.requests.pending import Request
from aiod_protocol import wire
from aiod_protocol.operations import Op
from aiod_protocol.wire import SUBMISSION, MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.session.backlog import Backlog
    from aiod_client.session.handshake import Message, Welcome

PART_BYTES_MAX: Final = 64 * 1024 * 1024
"""No part of a request is longer, whatever the daemon accepts: a frame must fit what the socket lets in."""

_RECORD_BYTES: Final = SUBMISSION.size
# Of requests with a frame each, a message may have no more than payload.py leaves frames for.
_BATCH_MAX: Final = min((wire.HEADER_BYTES_MAX - 256) // _RECORD_BYTES, FRAMES_LEFT)

# Refilling waits until this part of the depth is free (or the whole backlog fits), so that a long backlog travels in
# batches even if completions come one by one. But not for long: the requests in flight may be such as never complete.
_REFILL_PART: Final = 8

_DEADLINE_MS_MAX: Final = (1 << 32) - 1

# Looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)
_COPY_RANGE: Final = int(Op.COPY_RANGE)
_SUBMIT: Final = int(MessageType.SUBMIT)


class InFlight:
    """Requests in flight (by cookie, parts count) and the credit of one session."""

    def __init__(self, welcome: Welcome) -> None:
        self.requests: dict[int, Request] = {}
        self.bytes = 0
        """Bytes of the reads and writes in flight."""
        self.received = 0
        """Completions received; SUBMIT tells the engine, which gives their credit back."""
        self.cookie = 0
        """The last cookie used, of requests and calls."""
        self.grant(welcome)

    def grant(self, welcome: Welcome) -> None:
        """Take over the limits of an engine."""
        self._depth_max = welcome.depth_max
        self._bytes_max = welcome.bytes_max
        self.request_bytes_max = min(welcome.request_bytes_max, welcome.bytes_max)
        """The most bytes of a request that cannot be split."""
        self.part_max = min(self.request_bytes_max, PART_BYTES_MAX)
        self._batch_max = min(welcome.batch_max, _BATCH_MAX)
        self._refill = max(1, welcome.depth_max // _REFILL_PART)

    def clear(self) -> None:
        """Forget all: the engine has gone, and its credit with it."""
        self.requests.clear()
        self.bytes = self.received = 0

    def next_cookie(self) -> int:
        """A new cookie."""
        self.cookie = self.cookie + 1
        return self.cookie

    def free(self) -> int:
        """How many more requests the credit allows, if their bytes do."""
        return self._depth_max - len(self.requests)

    def is_worth_a_batch(self, free: int, waiting: int) -> bool:
        """Whether enough of the credit is `free` for a SUBMIT, of `waiting` requests."""
        return free >= self._refill or free >= waiting

    def submission(
        self, backlog: Backlog, free: int, now_s: float, next_request: Callable[[float], Request | None], token: bytes
    ) -> Message | None:
        """A SUBMIT of up to `free` records from the head of the backlog; None if credit allows none.

        `next_request` returns the request at the head, if there is one, and drops those that are too late.
        """
        queue, inflight = backlog.queue, self.requests
        first = cookie = self.cookie
        bytes_free = self._bytes_max - self.bytes
        records = bytearray(min(free, self._batch_max, max(len(queue), self._refill)) * _RECORD_BYTES)
        room = len(records)
        payload = Payload()
        # The requests at the head that are plain: mostly all.
        count, charge = fill_records(records, queue, inflight, cookie, bytes_free, now_s, payload)
        position, cookie, bytes_free = count * _RECORD_BYTES, cookie + count, bytes_free - charge
        deadline_s, deadline_ms = math.inf, 0  # of the requests of a batch it is mostly the same
        pack_into = SUBMISSION.pack_into
        while position < room:
            head = queue[0] if queue else None
            request = head if type(head) is Request and head.deadline_s > now_s else next_request(now_s)
            if request is None:
                break
            start, length, charge = 0, request.length, request.charge
            split = request.split
            if split is not None:
                start, length = split.next_part()
                charge = length if charge else 0
            if charge > bytes_free:
                break
            if request.deadline_s != deadline_s:
                deadline_s = request.deadline_s
                deadline_ms = _deadline_ms(deadline_s, now_s)
            bytes_free -= charge
            cookie += 1
            inflight[cookie] = request
            request.sent = True
            if split is None:
                request.cookie = cookie
                queue.popleft()
            else:
                split.parts[cookie] = (start, length)
                split.asked += length
                backlog.part_sent(request, last=split.all_asked())
            frame = frame_offset = high = 0
            if request.op == _COPY_RANGE:
                frame, frame_offset, high = _source_of(request, start)
            elif charge and request.op != _READ:  # a payload of nothing names no frame
                data: Any = request.buffer
                frame, frame_offset = payload.place(data if split is None else _part_of(data, start, length))
            pack_into(
                records,
                position,
                cookie,
                request.op,
                request.flags,
                request.handle,
                request.offset + start,
                length,
                deadline_ms,
                frame,
                frame_offset,
                high,
            )
            position += _RECORD_BYTES
        if cookie == first:
            return None
        self.cookie = cookie
        self.bytes = self._bytes_max - bytes_free
        del records[position:]
        return [wire.pack(_SUBMIT, token, self.received, records), *payload.frames()]


def _deadline_ms(deadline_s: float, now_s: float) -> int:
    """The deadline of a record: milliseconds from now; 0: none."""
    return 0 if deadline_s == math.inf else min(math.ceil((deadline_s - now_s) * 1000), _DEADLINE_MS_MAX)


def _source_of(request: Request, start: int) -> tuple[int, int, int]:
    """COPY_RANGE's last three fields: the source's handle, and the halves of its offset."""
    offset = request.source_offset + start
    return request.source, offset & 0xFFFFFFFF, offset >> 32


def _part_of(data: Any, start: int, length: int) -> Any:
    """`length` bytes of a request's `data`, from `start` on."""
    return Pieces(list(data.cut(start, length))) if type(data) is Pieces else data[start : start + length]
