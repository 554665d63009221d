"""The ring transport of a session: which requests go by the ring, and what becomes of them.

Waiting and settling are the links' business, as for session.py; and like it, this is neither thread-safe nor reentrant:
the link's lock (blocking) or its event loop (aio) protects a transport and its requests. Only the native ring itself
may be used by any thread at any moment, and File does so for the requests that one thread waits for.

- `add()` queues; what there is room for is submitted at once, the rest when completions have made room, first come,
  first served. What is longer than the ring takes goes in parts.
- Everything added is done exactly once: by its completion, by abandon(), or by lose().
- A request that finds no room though nothing is in flight (the caller has the whole buffer pool for itself) is returned
  by take_overflow(): it has to go by message.
"""

from __future__ import annotations

import errno
import math
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from aiod_client.errors import NOT_EXECUTED, NOT_SENT, UNKNOWN, Failure, deadline_passed
from aiod_client.operations import read_into_request, read_request, whole_request, write_request
from aiod_client.requests.payload import Pieces
from aiod_client.requests.pending import GRACE_S, Pending, Request
from aiod_client.requests.split import Split, part_bytes_max
from aiod_client.ring.direct import LOST
from aiod_client.ring.paths import lost_on_path
from aiod_client.session.handshake import ShutdownNotice
from aiod_protocol.messages import failure_message
from aiod_protocol.operations import Op, OpFlag, OpProperty, operations_with
from aiod_protocol.reasons import Reason, parse_reason
from aiod_protocol.ring_wire import RingShutdownNotice

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

    from aiod_client._ring import Awaited, Ring
    from aiod_client._ring import Pending as RingPending
    from aiod_client.session.session import Session

_READ: Final = int(Op.READ)
_APPEND: Final = int(Op.APPEND)
_FLUSH: Final = int(Op.FLUSH)
_WRITE: Final = int(Op.WRITE)
_FUA: Final = int(OpFlag.FUA)
_REPEAT: Final = int(OpFlag.REPEAT)
_ON_PATH: Final = operations_with(OpProperty.PATH)
"""Submitted by their callers (follow()), and never sent by message: they end with their ring."""
_CARRIED: Final = operations_with(OpProperty.RING) - _ON_PATH - {Op.STAT, Op.EXTENTS}
"""The results of STAT and EXTENTS are records in the buffer area, which only C programs read there."""

_Part = tuple[Request, int, int]
"""A request, and (start, length) of one of its parts."""
_PART_FIELDS: Final = 3


class RingTransport:
    """The requests of one session that go by its ring."""

    def __init__(self, ring: Ring, session: Session) -> None:
        self.ring = ring
        self._session = session
        self._files = session.files
        self._resumable = session.resumable
        self.adopted: Callable[[Request, float, str], None] = lambda _request, _timeout_s, _name: None
        """Called with each request that the transport adopts, its timeout, and the name of its file."""
        self.names: dict[int, str] = {}
        """Handle to "EXPORT/PATH", the file's name in error messages."""
        self.ended: OSError | None = None
        self._part_max = min(session.request_bytes_max, ring.request_bytes_max)
        self._backlog: deque[Request] = deque()
        self._inflight: dict[Request, list[RingPending]] = {}
        self._of_handle: dict[int, int] = {}  # requests not done
        self._afterwards: dict[int, list[Callable[[], None]]] = {}
        self._overflow: list[Request] = []
        self.finished: list[Pending] = []
        """What the last reap has done: a signal's handler may raise before that is settled."""

    @property
    def pending(self) -> int:
        """Requests not done."""
        return len(self._inflight) + len(self._backlog) + self.ring.awaited

    @property
    def shutdown_notice(self) -> ShutdownNotice:
        """The engine's notice of an orderly stop; empty once the transport has ended."""
        said = self.ring.shutdown_notice
        return ShutdownNotice(
            bool(said & RingShutdownNotice.DRAINED), None if said & RingShutdownNotice.FLUSHED else ()
        )

    def uses(self, handle: int) -> bool:
        """Whether requests on `handle` are not done, but for those that futures wait for: the ring has all of these."""
        return handle in self._of_handle

    def carries(self, request: Request) -> bool:
        """Whether `request` may go by the ring."""
        return (
            self.ended is None
            and request.op in _CARRIED
            and not request.flags & _REPEAT
            and (request.op != _APPEND or request.length <= self._part_max)
        )

    def add(self, request: Request, now_s: float) -> None:
        """Queue a request that carries() has accepted, and submit what there is room for."""
        request.by_ring = True
        if request.op == _FLUSH:
            self._files.begin_flush(request)
        if request.length > self._part_max:
            part_max = part_bytes_max(request.op, self._part_max)
            if part_max is not None and request.length > part_max:
                request.begin_parts(Split(request.op, request.length, part_max))
        self._of_handle[request.handle] = self._of_handle.get(request.handle, 0) + 1
        self._backlog.append(request)
        self._submit(now_s)

    def follow(self, pending: RingPending, request: Request) -> None:
        """Take over `request`, which was submitted as `pending`."""
        request.by_ring = request.sent = True
        pending.owner = (request, 0, request.length)
        self._of_handle[request.handle] = self._of_handle.get(request.handle, 0) + 1
        self._inflight[request] = [pending]

    def adopt(self, future: Future[Any]) -> Request | None:
        """The request of the native ring that `future` waits for, from now on one as by add(); None: it is done."""
        found = self.ring.adopt(future)
        if found is None:
            return None
        request = self._take_over(*found)
        if not request.sent:
            self._submit(time.monotonic())
        return request

    def adopt_all(self, handle: int | None = None) -> None:
        """Adopt all requests of the native ring that futures wait for, or those of `handle`."""
        for in_ring, awaited in self.ring.adopt_all(handle):
            self._take_over(in_ring, awaited)

    def _take_over(self, in_ring: RingPending | None, awaited: Awaited) -> Request:
        future, op, flags, handle, offset, length, data, sent, deadline_s, timeout_s = awaited
        request = _request_of(op, flags, handle, offset, length, data)
        request.waiter = future
        request.deadline_s = deadline_s
        request.by_ring, request.sent = True, sent
        self._of_handle[handle] = self._of_handle.get(handle, 0) + 1
        if not sent:
            self._backlog.append(request)
        elif in_ring is None:
            self._inflight[request] = []
        else:
            in_ring.owner = (request, 0, request.length)
            self._inflight[request] = [in_ring]
        name = self.names.get(handle, "a closed file")
        self.adopted(request, timeout_s, f"{name}/{data}" if op in _ON_PATH else name)
        return request

    def take_overflow(self) -> list[Request]:
        """The requests that have to go by message; the transport forgets them."""
        overflow, self._overflow = self._overflow, []
        return overflow

    def after(self, handle: int, call: Callable[[], None]) -> bool:
        """Call `call` once all requests of `handle` are done; False: there are none."""
        self.adopt_all(handle)
        if handle not in self._of_handle:
            return False
        self._afterwards.setdefault(handle, []).append(call)
        return True

    # ---- submitting -------------------------------------------------------------------------------------------------

    def _submit(self, now_s: float) -> None:
        backlog = self._backlog
        while backlog:
            request = backlog[0]
            if request.done or (request.split is not None and request.split.all_asked()):
                backlog.popleft()
            elif not self._submit_one(request, now_s):
                break
        self.ring.held = bool(backlog)

    def _submit_one(self, request: Request, now_s: float) -> bool:
        """Submit the request, or its next part. False: the ring has no room."""
        split = request.split
        start, length = 0, request.length
        if split is not None:
            start, length = split.next_part()
        before, request.sent = request.sent, True  # before start(): a signal's handler may raise in between
        pending = self.ring.start(
            request.op,
            request.flags,
            request.handle,
            request.offset + start,
            length,
            request.source,
            request.source_offset + start if request.source else 0,
            request.deadline_s - now_s if request.deadline_s != math.inf else math.inf,
            _data_of(request, start, length),
            (request, start, length),
        )
        if pending is None:
            request.sent = before
            if not self._inflight and not self.ring.awaited and not self.ring.ended:
                self._overflow.append(self._backlog.popleft())
                request.by_ring, request.split = False, None
                self._forget(request)
            return False
        self._inflight.setdefault(request, []).append(pending)
        if split is None:
            self._backlog.popleft()
        else:
            split.asked += length
            split.parts[start] = (start, length)
            self._backlog.rotate(-1)  # so that it does not starve the others
        return True

    # ---- completing -------------------------------------------------------------------------------------------------

    def reap(self, now_s: float) -> list[Pending]:
        """Take what is done, and submit what there is room for then. Returns the requests that are done, in order."""
        finished = self._take_done(look=True)
        if self._backlog:
            self._submit(now_s)
        if self.ring.ended and self.ended is None and not self._resumable:
            finished += self.lose(LOST)
        return finished

    def _take_done(self, *, look: bool = False) -> list[Pending]:
        finished: list[Pending] = []
        self.finished = finished
        for owner, result, written, reason, data in self.ring.reap(look):
            part = owner
            if len(owner) != _PART_FIELDS:  # a failed request that a future waits for
                request = self._take_over(None, owner)
                part = request, 0, request.length
            if part[0] in self._inflight:  # else it was abandoned
                self._complete(part, result, written, reason, data, finished)
        return finished

    def _complete(
        self, part: _Part, result: int, written: int, reason: int, data: bytes | None, finished: list[Pending]
    ) -> None:
        request, start, length = part
        on_path = request.op in _ON_PATH
        if self.ring.ended and _ends_with_ring(result, reason) and not (on_path and reason == Reason.NOT_TAKEN):
            return  # lose() gives the reason, or give_back() returns it
        if reason == Reason.STOPPING and self._resumable and not on_path:
            self._put_off(request, start)
            return
        failure = self._failure(part, result, written, reason) if result < 0 else None
        split = request.split
        if split is None:
            if data is None and request.op == _READ and result >= 0:
                request.result = result  # it is in the caller's buffer
            else:
                request.complete(result, data or b"", failure)
        else:
            split.parts.pop(start)
            split.complete(request.buffer, start, length, result, data, failure)
            if split.parts or not split.all_asked():
                return
            request.join_parts(0)
        request.done = True
        finished.append(request)  # at once: a signal's handler may raise after this line, not before
        if request.op != _READ:
            self._files.completed(request)
        self._drop(request)

    def _put_off(self, request: Request, start: int) -> None:
        """Leave it to the session, which sends it to the next engine: the daemon is stopping."""
        if request.split is not None:
            request.split.parts.pop(start)
        if request in self._inflight:
            del self._inflight[request]
            request.by_ring = False
            self._forget(request)
            self._session.put_off(request)

    def _failure(self, part: _Part, result: int, written: int, reason: int) -> Failure:
        request, start, length = part
        if request.op in _ON_PATH:
            return Failure(-result, None, written, parse_reason(reason))  # its caller knows the path
        if result == -errno.EBADF and (lost := self._files.why_lost(request)) is not None:
            message = f"{request}: {NOT_EXECUTED}: {lost.strerror}"
            return Failure(lost.errno or errno.EBADF, message, written, Reason.NOT_REOPENED)
        name = self.names.get(request.handle, f"handle {request.handle}")
        message = failure_message(request.op, name, request.offset + start, length, -result, reason)
        return Failure(-result, message, written, parse_reason(reason))

    def _drop(self, request: Request) -> None:
        """Forget it: it is done. Its parts in flight keep the buffer, and their completions are ignored."""
        self._inflight.pop(request, None)
        request.buffer = None
        self._forget(request)

    def _forget(self, request: Request) -> None:
        handle = request.handle
        if handle not in self._of_handle:  # a signal's handler has raised before it was counted
            return
        self._of_handle[handle] -= 1
        if self._of_handle[handle] == 0:
            del self._of_handle[handle]
            for call in self._afterwards.pop(handle, ()):
                call()

    # ---- ending -----------------------------------------------------------------------------------------------------

    def abandon(self, request: Request, error: BaseException) -> bool:
        """Fail `request` with `error`, unless it is done, and cancel it. Returns whether it was submitted."""
        if not request.done:
            for pending in self._inflight.get(request, ()):
                pending.cancel(0)
                pending.owner = None
            request.fail(error)
            self._drop(request)
        return request.sent

    def pending_of(self, request: Request) -> RingPending | None:
        """The native request in flight of a request without parts."""
        pendings = self._inflight.get(request, ())
        return pendings[0] if pendings else None

    def give_up_late(self, now_s: float) -> list[Pending]:
        """Abandon the requests past their deadlines that the engine has not answered. Returns them."""
        late = [r for r in [*self._inflight, *self._backlog] if r.deadline_s + GRACE_S <= now_s and not r.done]
        for request in late:
            self.abandon(request, deadline_passed(str(request), sent=request.sent))
        return list(late)

    def give_back(self) -> tuple[list[Pending], list[Request]]:
        """End the transport: (requests done by now, requests not done). What waits by after() is called."""
        if self.ended is not None:
            return [], []
        self.ring.close()  # what the engine has not taken ends as not executed
        finished = self._take_done()
        self.adopt_all()
        self.ended = LOST
        unfinished = list(dict.fromkeys([*self._inflight, *self._backlog, *self._overflow]))
        drained = self.shutdown_notice.drained
        self._clear()
        for request in unfinished:
            if request.op in _ON_PATH and not request.done:
                finished.append(request)
                request.fail(lost_on_path(may_be_done=not drained))
        return finished, [request for request in unfinished if not request.done]

    def lose(self, why: OSError) -> list[Pending]:
        """End the transport, with the like of `why`. Returns what is done by that; none the second time.

        What waits by after() is called: there will be no other occasion.
        """
        if self.ended is not None:
            return []
        self.ring.close()
        finished = self._take_done()  # the engine may have done much before it ended the session
        self.adopt_all()
        self.ended = why
        unfinished = list(dict.fromkeys([*self._inflight, *self._backlog, *self._overflow]))
        drained = self.shutdown_notice.drained
        for request in unfinished:
            if not request.done:
                state = (NOT_EXECUTED if drained and request.split is None else UNKNOWN) if request.sent else NOT_SENT
                request.fail(type(why)(why.errno, f"{request}: {state}: {why.strerror}"))
        self.finished = [*finished, *unfinished]
        self._clear()
        return self.finished

    def _clear(self) -> None:
        self._inflight.clear()
        self._backlog.clear()
        self._overflow.clear()
        self._of_handle.clear()
        waiting, self._afterwards = self._afterwards, {}
        for calls in waiting.values():
            for call in calls:
                call()


def _ends_with_ring(result: int, reason: int) -> bool:
    """Whether libaiod has ended a request because the ring has ended."""
    return result in {-errno.ECONNRESET, -errno.ESHUTDOWN} and reason in {Reason.BY_KERNEL, Reason.NOT_TAKEN}


def _request_of(op: int, flags: int, handle: int, offset: int, length: int, data: Any) -> Request:
    """The request of an Awaited."""
    if op == _READ:
        return read_request(handle, length, offset) if data is None else read_into_request(handle, data, offset)
    if op == _WRITE:
        return write_request(handle, data, offset, bool(flags & _FUA))
    if op in _ON_PATH:
        return Request(op, handle, 0, length, None, 0, flags)
    request = whole_request(Op.FLUSH, handle)
    request.covers = data
    return request


def _data_of(request: Request, start: int, length: int) -> Any:
    """The bytes of a write, or the destination of a read; None: new bytes, or the request has no payload."""
    buffer = request.buffer
    if buffer is None or length == 0:
        return None
    if type(buffer) is Pieces:
        return None if request.op == _READ else b"".join(buffer.cut(start, length))
    return buffer if request.split is None else buffer[start : start + length]  # type: ignore[index]
