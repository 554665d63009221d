"""One engine session, without sockets, threads or clocks.

Rules, whatever drives it:

- `add()` queues; `messages_to_send()` says what may be sent now; `receive()` takes a message and returns what is done.
  Call messages_to_send() after every add() and receive(): credit that came back lets the backlog move. Call tick(), and
  messages_to_send() after it, at next_tick_s(). Call take_failed() after messages_to_send().
- What is in flight never exceeds the daemon's credit; everything else waits in the backlog, first come, first served,
  except that a request sent in parts goes to the end of it after each part, so that it does not starve the others.
- Everything added is done exactly once: by its completion, by abandon(), or when the session ends.
- A session that has ended stays ended; `ended` says why.
- One whose engine has gone may go on with another: suspend(), and resume() with what that one grants. What has not been
  answered is sent again where that does no harm, before anything new; the rest fails: nobody knows whether it was done.
  What is added meanwhile waits. `resumable` says whether a link does so.

A signal's handler may raise in the midst of a method here, in the blocking client: then suspend() or lose() comes
next. So what is asked is always in one of the tables that these go through, in two of them rather than in none, and
`finished` has what was done before a return that never came.

Nothing here is thread-safe or reentrant. One lock (blocking) or one event loop (aio) protects a session and its
requests, and the link keeps out the finalizers that the garbage collector runs in the midst of a method here.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
import struct
from collections import deque
from typing import Any, Final

from aiod_client import wire
from aiod_client.errors import (
    NOT_EXECUTED,
    NOT_SENT,
    UNKNOWN,
    AiodError,
    Failure,
    ProtocolError,
    SessionLostError,
    deadline_passed,
    tell_reason,
    told_not_sent,
    too_long,
)
from aiod_client.requests.payload import FRAMES_LEFT, Payload, Pieces
from aiod_client.requests.pending import HAVE_PAYLOAD, Call, Pending, Request
from aiod_client.requests.split import Split
from aiod_client.session.handshake import (
    Frames,
    LastWord,
    Message,
    Reply,
    Welcome,
    final_refusal,
    last_word,
    parse_reply,
    refusal,
)
from aiod_client.session.open_files import OpenFiles
from aiod_client.wire import COMPLETION, RANGE_BYTES_MAX, SUBMISSION, MessageType, Op, OpFlag
from aiod_protocol.operations import OpProperty, changes_file, operations_with
from aiod_protocol.reasons import Reason, parse_reason

PART_BYTES_MAX: Final = 64 * 1024 * 1024
"""No part of a request is longer, whatever the daemon accepts: a frame must fit what the socket lets in."""

_RECORD_BYTES: Final = SUBMISSION.size
_COOKIE_BYTES_MAX: Final = 9  # in msgpack
# Of requests with a frame each, a message may have no more than payload.py leaves frames for.
_BATCH_MAX: Final = min((wire.HEADER_BYTES_MAX - 256) // _RECORD_BYTES, FRAMES_LEFT)
_CANCEL_MAX: Final = (wire.HEADER_BYTES_MAX - 256) // _COOKIE_BYTES_MAX

# Refilling waits until this part of the depth is free (or the whole backlog fits), so that a long backlog travels in
# batches even if completions come one by one. But not for long: the requests in flight may be such as never complete.
_REFILL_PART: Final = 8

GRACE_S: Final = 0.1
"""How long after its deadline a request that was sent is waited for: the daemon knows whether it was executed."""

_DEADLINES_KEPT: Final = 64
"""Deadlines of requests that are done are dropped when there are more, and more than those of others."""

_DEADLINE_MS_MAX: Final = (1 << 32) - 1

HOLD_S: Final = 0.002
"""How long free credit may be held back for a larger batch."""

# What every request meets, looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)
_FLUSH: Final = int(Op.FLUSH)
_REPEAT: Final = int(OpFlag.REPEAT)
_WRITE: Final = int(Op.WRITE)
_COPY_RANGE: Final = int(Op.COPY_RANGE)
_SPLIT_BY_RANGE: Final = operations_with(OpProperty.BOUNDED)
_SUBMIT: Final = int(MessageType.SUBMIT)
_COMPLETE: Final = int(MessageType.COMPLETE)


_NOTHING: Final[deque[Request | Call]] = deque(maxlen=0)


class Session:
    """What has been asked of an engine and not been answered, and the credit for it."""

    def __init__(self, welcome: Welcome, now_s: float) -> None:
        self.welcome = welcome
        self.ended: AiodError | None = None
        self.resumable = False
        """Whether the loss of the connection suspends the session instead of ending it."""
        self.suspended: OSError | None = None
        """Why it is, or None."""
        self._drained = False  # what the engine has not answered, it has not executed
        self.files = OpenFiles()
        self.held_until_s = math.inf
        """When to send what messages_to_send() holds back for a larger batch: part of next_tick_s()."""
        self._set_limits(welcome)
        self._backlog: deque[Request | Call] = deque()
        self._repeats: deque[Request | Call] = deque()  # what is sent again before anything new
        self._put_off: list[Request | Call] = []  # what a daemon that is stopping has refused
        self._queue = self._backlog  # what is sent from: _backlog, _repeats, or _NOTHING until the engine says GO
        self._splits: set[Request] = set()  # those of the backlog that have parts still to be sent
        self._inflight: dict[int, Request] = {}
        self._calls: dict[int, Call] = {}
        self._outbox: list[Message] = []
        self._failed: list[Pending] = []  # see take_failed()
        self.finished: list[Pending] = []
        """What receive() or take_failed() has returned last."""
        self._deadlines: list[tuple[float, int, Request]] = []  # heap of those that nobody waits for
        self._bytes_inflight = 0
        self._cookie = 0
        self._received = 0
        self._last_sent_s = now_s
        self._silent_since_s: float | None = None  # when the oldest message after which nothing has come was sent
        self._asked_s = -math.inf  # when the last HEARTBEAT was sent

    def _set_limits(self, welcome: Welcome) -> None:
        self._depth_max = welcome.depth_max
        self._bytes_max = welcome.bytes_max
        self.request_bytes_max = min(welcome.request_bytes_max, welcome.bytes_max)
        """What cannot be split must not be longer."""
        self._part_max = min(self.request_bytes_max, PART_BYTES_MAX)
        self._batch_max = min(welcome.batch_max, _BATCH_MAX)
        self._refill = max(1, welcome.depth_max // _REFILL_PART)

    @property
    def depth(self) -> int:
        """Requests in flight."""
        return len(self._inflight)

    @property
    def bytes_inflight(self) -> int:
        """Bytes of the reads and writes in flight."""
        return self._bytes_inflight

    @property
    def pending(self) -> int:
        """Requests and calls not done: in flight (parts count) and in the backlog."""
        waiting = len(self._backlog) + len(self._repeats) + len(self._put_off)
        return len(self._inflight) + len(self._calls) + waiting

    def add(self, pending: Request | Call) -> None:
        """Queue a request or a call. Raises the like of what ended the session, if it has ended."""
        why: OSError | None = self.ended
        if why is None and self.files.lost and self.suspended is None:
            why = self.files.why_lost(pending)
        if why is not None:
            raise told_not_sent(type(why)(why.errno, f"{pending}: {NOT_SENT}: {why.strerror}"))
        if isinstance(pending, Call):
            # Only a CLOSE has to wait for what stands before it.
            (self._backlog.append if pending.kind == MessageType.CLOSE else self._backlog.appendleft)(pending)
            return
        if pending.sent and self.suspended is not None:
            self._failed += self.take_back([pending])
            return
        if pending.op == _FLUSH:
            self.files.begin_flush(pending)
        if pending.length <= self._part_max or self._add_long(pending):
            self._backlog.append(pending)

    def watch_deadline(self, request: Request) -> None:
        """Have tick() fail `request` when its deadline has passed and no answer came: nobody may be waiting for it."""
        if len(self._deadlines) > 2 * self.pending + _DEADLINES_KEPT:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
        heapq.heappush(self._deadlines, (request.deadline_s, id(request), request))

    def _add_long(self, request: Request) -> bool:
        """What is longer than a part: in parts, if it can be. False: it cannot, and has failed (EMSGSIZE)."""
        if request.op in _SPLIT_BY_RANGE:
            if request.length <= RANGE_BYTES_MAX:
                return True
            request.split = Split(request.length, RANGE_BYTES_MAX)
        elif request.op in (_READ, _WRITE):
            request.split = Split(request.length, self._part_max)
            if type(request.buffer) is bytes:
                request.buffer = memoryview(request.buffer)  # its parts are slices, not copies
        elif request.charge > self.request_bytes_max:
            request.fail(too_long(str(request), self.request_bytes_max))
            self._failed.append(request)
            return False
        else:
            return True
        self._splits.add(request)
        return True

    def take_failed(self) -> list[Pending]:
        """What add() and messages_to_send() have found too long, or too late, since the last call."""
        self.finished = failed = self._failed
        self._failed = []
        return failed

    # ---- sending ----------------------------------------------------------------------------------------------------

    def messages_to_send(self, now_s: float) -> list[Message]:
        """The messages that may be sent now, in order. They count as sent."""
        if self.suspended is not None:
            return []
        messages, self._outbox = self._outbox, []
        held_until_s, self.held_until_s = self.held_until_s, math.inf
        backlog = self._queue
        while backlog:
            head = backlog[0]
            if isinstance(head, Call):
                self._send_call(head, messages)
                continue
            free = self._depth_max - len(self._inflight)
            if free <= 0:
                break
            if free < self._refill and free < len(backlog):
                held_until_s = min(held_until_s, now_s + HOLD_S)
                if now_s < held_until_s:
                    self.held_until_s = held_until_s
                    break
            message = self._submission(min(free, self._batch_max), now_s)
            if message is not None:
                messages.append(message)
            elif not backlog or not isinstance(backlog[0], Call):
                break  # else what stood before the call was late
        if backlog is self._repeats and not backlog and not self._inflight:
            messages.append([wire.pack(MessageType.REPEATED, self.welcome.token)])
            self._queue = _NOTHING
        self._note_sending(messages, now_s)
        return messages

    def _note_sending(self, messages: list[Message], now_s: float) -> None:
        if messages:
            self._last_sent_s = now_s
            if self._silent_since_s is None:
                self._silent_since_s = now_s

    def _send_call(self, call: Call, messages: list[Message]) -> None:
        # A CLOSE must not overtake its handle's parts, which may stand behind it. A handle is never 0.
        if call.kind == MessageType.CLOSE and any(call.handle in (part.handle, part.source) for part in self._splits):
            self._queue.rotate(-1)
            return
        call.cookie = self._cookie = self._cookie + 1
        call.sent = True
        self._calls[call.cookie] = call
        self._queue.popleft()
        messages.append([wire.pack(call.kind, self.welcome.token, call.cookie, *call.arguments)])

    def _submission(self, count_max: int, now_s: float) -> Message | None:
        """A SUBMIT of up to `count_max` records from the head of the backlog; None if credit allows none."""
        backlog, inflight = self._queue, self._inflight
        first = cookie = self._cookie
        bytes_free = self._bytes_max - self._bytes_inflight
        records = bytearray(min(count_max, max(len(backlog), self._refill)) * _RECORD_BYTES)
        room = len(records)
        position = 0
        payload = Payload()
        deadline_s, deadline_ms = math.inf, 0  # of the requests of a batch it is mostly the same
        while position < room:
            request = self._next_request(now_s)
            if request is None:
                break
            start, length, charge = 0, request.length, request.charge
            split = request.split
            if split is not None:
                start, length = split.asked, min(split.part_max, split.end - split.asked)
                charge = length if charge else 0
            if charge > bytes_free:
                break
            if request.deadline_s != deadline_s:
                deadline_s = request.deadline_s
                deadline_ms = (
                    0 if deadline_s == math.inf else min(math.ceil((deadline_s - now_s) * 1000), _DEADLINE_MS_MAX)
                )
            bytes_free -= charge
            cookie += 1
            inflight[cookie] = request
            request.sent = True
            if split is None:
                request.cookie = cookie
                backlog.popleft()
            else:
                self._part_sent(request, split, cookie, start, length)
            frame = frame_offset = high = 0
            if request.op == _COPY_RANGE:
                frame, frame_offset, high = _source_of(request, start)
            elif charge and request.op != _READ:  # a payload of nothing names no frame
                frame, frame_offset = _place(payload, request, start, length)
            SUBMISSION.pack_into(
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
        self._cookie = cookie
        self._bytes_inflight = self._bytes_max - bytes_free
        del records[position:]
        return [wire.pack(_SUBMIT, self.welcome.token, self._received, records), *payload.frames()]

    def _next_request(self, now_s: float) -> Request | None:
        """The head of the backlog, if it is a request. One whose deadline has passed is never sent."""
        backlog = self._queue
        while backlog:
            head = backlog[0]
            if isinstance(head, Call):
                break
            if head.deadline_s > now_s:
                return head
            self.abandon(head, deadline_passed(str(head), sent=head.sent))
            self._failed.append(head)
        return None

    def _part_sent(self, request: Request, split: Split, cookie: int, start: int, length: int) -> None:
        split.parts[cookie] = (start, length)
        split.asked += length
        if split.all_asked():
            self._splits.discard(request)
            self._queue.popleft()
        else:
            self._queue.rotate(-1)

    # ---- receiving --------------------------------------------------------------------------------------------------

    def receive(self, frames: Frames) -> list[Pending]:
        """Take a message of the engine; returns the requests and calls that are done by it, in order.

        Payload frames must stay as they are while a request in parts is not done. A message that breaks the protocol
        ends the session, and so does a REFUSAL.
        """
        self._silent_since_s = None
        finished: list[Pending] = []
        self.finished = finished
        if self.ended is not None:
            return finished
        try:
            header = wire.unpack(frames[0])
            kind = header[0]
            if kind == _COMPLETE:
                self._complete(header[1], header[2], frames, finished)
            elif kind == MessageType.REPLY:
                self._reply(header, finished)
            elif kind == MessageType.REFUSAL:
                reason = f"the daemon ended the session: {refusal(header).strerror}"
                self.hear(last_word(frames))
                finished += self.interrupt(reason) if final_refusal(frames) is None else self.lose(reason)
            elif kind == MessageType.GO:
                self._queue = self._backlog
            elif kind != MessageType.HEARTBEAT:
                finished += self._broken(f"message type {kind} from an engine")
        except (wire.WireError, ProtocolError, struct.error, LookupError, TypeError, ValueError) as error:
            finished += self._broken(repr(error))
        return finished

    def _broken(self, what: str) -> list[Pending]:
        return self.lose(f"the daemon broke the protocol: {what}", kind=ProtocolError, code=errno.EPROTO)

    def _complete(self, records: bytes, sentences: dict[int, str], frames: Frames, finished: list[Pending]) -> None:
        if type(records) is not bytes or type(sentences) is not dict:
            raise wire.WireError("COMPLETE of other things than records and sentences")
        inflight = self._inflight
        for index, (cookie, result, frame, start, written, reason) in enumerate(COMPLETION.iter_unpack(records)):
            request = inflight[cookie]  # KeyError: nothing with this cookie is in flight
            self._received += 1
            data = _bytes_at(frames, frame, start, result) if request.op in HAVE_PAYLOAD and result > 0 else b""
            failure = None
            if result < 0:
                failure = Failure(-result, sentences.get(index), written, parse_reason(reason))
            if failure is None or not self._puts_off(request, cookie, failure):
                self._completed(request, cookie, result, data, failure, finished)
            del inflight[cookie]

    def _completed(
        self,
        request: Request,
        cookie: int,
        result: int,
        data: bytes | memoryview,
        failure: Failure | None,
        finished: list[Pending],
    ) -> None:
        if request.split is not None:
            self._part_done(request, request.split, cookie, result, data, failure)
            if request.split.parts or request in self._splits or request.done:
                return
            request.split.join(request, result)
        else:
            self._bytes_inflight -= request.charge
            request.complete(result, data, failure)
        if request.op != _READ:
            self.files.completed(request)
        if not request.done:  # else abandoned
            request.buffer = None
            finished.append(request)
            request.done = True

    def put_off(self, request: Request) -> None:
        """Have `request`, which a daemon that is stopping has not executed, wait for the next one."""
        request.sent = request.split is not None  # other parts may have been done
        if self.suspended is None:
            self._put_off.append(request)
        else:
            self._failed += self.take_back([request])

    def _puts_off(self, request: Request, cookie: int, failure: Failure) -> bool:
        if failure.reason != Reason.STOPPING or not self.resumable or request.done:
            return False
        charge = request.charge
        if request.split is not None:
            _, length = request.split.parts.pop(cookie)
            charge = length if charge else 0
        self._bytes_inflight -= charge
        self.put_off(request)
        return True

    def _part_done(
        self,
        request: Request,
        split: Split,
        cookie: int,
        result: int,
        data: bytes | memoryview,
        failure: Failure | None,
    ) -> None:
        start, length = split.parts.pop(cookie)
        self._bytes_inflight -= length if request.charge else 0
        if not request.done:
            split.complete(request, start, length, result, data, failure)
            if split.all_asked():
                self._drop_from_backlog(request)

    def _drop_from_backlog(self, request: Request) -> None:
        if request in self._splits:
            self._splits.discard(request)
            self._drop(request)

    def _reply(self, header: list[Any], finished: list[Pending]) -> None:
        self._take_reply(self._calls[header[1]], parse_reply(header), finished)
        del self._calls[header[1]]

    def _take_reply(self, call: Call, reply: Reply, finished: list[Pending]) -> None:
        result, failure, body = reply
        if call.kind == MessageType.CLOSE and self.files.closed(call.handle) and result == -errno.EBADF:
            result, failure = 0, None
        if call.done:
            if call.kind == MessageType.OPEN and result >= 0:
                self._backlog.append(Call(MessageType.CLOSE, result, handle=result))  # nobody is there to close it
            return
        if failure is not None and failure.reason == Reason.STOPPING and self.resumable:
            self._put_off.append(call)
            return
        if failure is not None:
            call.error = failure.error(call.filename)
        else:
            call.result = (result, body)
            if call.kind == MessageType.OPEN:
                self.files.opened(result, call.arguments, body)
        finished.append(call)
        call.done = True

    # ---- giving up --------------------------------------------------------------------------------------------------

    def abandon(self, pending: Request | Call, error: BaseException) -> bool:
        """Fail `pending` with `error`, unless it is done. What was sent is cancelled; what was not never will be.

        But a CLOSE is, or nobody could ever close its handle. Returns whether (a part of) it had been sent, or will be.
        The credit of a request stays taken until its completion has come.
        """
        sent = pending.sent
        if pending.done:
            return sent
        pending.fail(error)
        if isinstance(pending, Call):
            if pending.kind == MessageType.CLOSE:
                return True
            if not sent:
                self._drop(pending)
            return sent
        if pending.split is not None:
            self._drop_from_backlog(pending)
            self._cancel(list(pending.split.parts))
            pending.split.pieces.clear()
        elif pending.cookie in self._inflight:
            self._cancel([pending.cookie])
        else:
            self._drop(pending)
        pending.buffer = None
        return sent

    def _drop(self, pending: Request | Call) -> None:
        for queue in (self._backlog, self._repeats):
            with contextlib.suppress(ValueError):  # its link may not have added it yet
                queue.remove(pending)

    def _drop_all(self, pendings: set[Request | Call]) -> None:
        for queue in (self._backlog, self._repeats):
            kept = [pending for pending in queue if pending not in pendings]
            queue.clear()
            queue.extend(kept)

    def cancel(self, request: Request) -> None:
        """Tell the daemon to end `request` if it is still queued there. It is in flight until its completion comes."""
        if request.sent and request.split is None:
            self._cancel([request.cookie])

    def _cancel(self, cookies: list[int]) -> None:
        if self.ended is None and self.suspended is None:
            for start in range(0, len(cookies), _CANCEL_MAX):
                some = cookies[start : start + _CANCEL_MAX]
                self._outbox.append([wire.pack(MessageType.CANCEL, self.welcome.token, None, some)])

    def lose(
        self, reason: str, *, kind: type[AiodError] = SessionLostError, code: int = errno.ECONNRESET
    ) -> list[Pending]:
        """End the session for `reason`. Returns what is done by that: everything that was not; none the second time."""
        # Not at once back where it has ended: a signal's handler may have raised before all of it was told.
        self.ended = self.ended or kind(code, reason)
        kind, code, reason = type(self.ended), self.ended.errno or code, self.ended.strerror or reason
        unfinished = [*self.take_failed(), *self._inflight.values(), *self._calls.values(), *self._backlog]
        unfinished += [*self._repeats, *self._put_off]
        for pending in unfinished:
            state = NOT_SENT
            if pending.sent:
                state = NOT_EXECUTED if self._drained and not getattr(pending, "split", None) else UNKNOWN
            if not pending.done:
                pending.fail(kind(code, f"{pending}: {state}: {reason}"))
        self._inflight.clear()
        self._calls.clear()
        self._backlog.clear()
        self._repeats.clear()
        self._put_off.clear()
        self._splits.clear()
        self._outbox.clear()
        return list(dict.fromkeys(unfinished))

    def hear(self, word: LastWord) -> None:
        """The engine's last word, by message or by the ring: before interrupt()."""
        self._drained = self._drained or word.drained
        self.files.settle(self.files if word.flushed is None else word.flushed)

    def interrupt(self, reason: str) -> list[Pending]:
        """The connection is of no use any more: suspend the session if it is resumable, else end it."""
        return self.suspend(reason) if self.resumable else self.lose(reason)

    @property
    def goes_on(self) -> bool:
        """Whether what is new is sent: not while it is suspended, nor while the engine has not said GO."""
        return self.suspended is None and self._queue is self._backlog

    # ---- another engine ---------------------------------------------------------------------------------------------

    def suspend(self, reason: str) -> list[Pending]:
        """The engine has gone; what is added from now on waits for resume(). Returns what has failed by it."""
        if self.ended is not None or self.suspended is not None:
            return []
        self.suspended = SessionLostError(errno.EIO, reason)
        unanswered = list(dict.fromkeys(self._inflight.values()))
        calls = list(self._calls.values())
        self._drop_all({*unanswered, *calls})
        self._inflight.clear()
        self._calls.clear()
        self._outbox.clear()
        self._bytes_inflight = self._received = 0
        self._silent_since_s = None
        # What was to be sent again and has not been is the first of what is unanswered.
        waiting = [each for each in (*self._repeats, *self._put_off) if isinstance(each, Request)]
        calls += [each for each in self._put_off if isinstance(each, Call)]
        for call in calls:
            call.sent = call not in self._put_off and not self._drained
        self._repeats.clear()
        self._put_off.clear()
        finished = self.take_back(list(dict.fromkeys([*unanswered, *waiting])))
        for call in reversed(calls):
            finished += self._take_back_call(call)
        return finished

    def take_back(self, requests: list[Request]) -> list[Pending]:
        """Requests that the engine has not answered: to be sent again, if they may be. Returns those that fail."""
        assert self.suspended is not None, "suspend() comes first"  # noqa: S101 - a mistake of ours
        failed: list[Pending] = []
        first: list[Request | Call] = []
        for request in requests:
            if request.done:
                continue
            self._drop_from_backlog(request)
            # Of one in parts others may have been done; that is no harm if it may be done twice.
            request.sent &= not self._drained or (request.split is not None and not self.files.may_repeat(request))
            request.split, request.by_ring = None, False
            if request.sent and not self.files.may_repeat(request):
                request.fail(self._unknown(request))
                failed.append(request)
            elif request.length <= self._part_max or self._add_long(request):
                if request.sent and changes_file(request.op):
                    request.flags |= _REPEAT
                    self._repeats.append(request)
                else:
                    first.append(request)
        self._backlog.extendleft(reversed(first))
        return failed

    def _take_back_call(self, call: Call) -> list[Pending]:
        """A call that was sent and not answered; what may be is sent again, before all others."""
        if call.kind == MessageType.CANCEL:  # what it was about is sent again, or has failed
            call.result, call.done = (0, None), True
            return [call]
        if call.sent and not call.may_repeat:
            if call.done:
                return []
            call.fail(self._unknown(call))
            return [call]
        if not call.done or call.kind == MessageType.CLOSE:
            self._backlog.appendleft(call)
        return []

    def _unknown(self, pending: Pending) -> OSError:
        assert self.suspended is not None  # noqa: S101 - of its caller's
        error = SessionLostError(errno.EIO, f"{pending}: {UNKNOWN}: {self.suspended.strerror}")
        tell_reason(error, Reason.UNKNOWN)
        return error

    def resume(self, welcome: Welcome, now_s: float, lost: dict[int, OSError]) -> list[Pending]:
        """Go on with an engine that has said `welcome`; `lost`: handles that it does not have, and why.

        Returns what has failed by it.
        """
        self.welcome = welcome
        self._set_limits(welcome)
        self.suspended, self._drained = None, False
        self.files.lost = lost
        self.files.resumed()
        self._last_sent_s, self._asked_s = now_s, -math.inf
        if welcome.grace:
            self._queue = self._repeats
        else:
            self._backlog.extendleft(reversed(self._repeats))
            self._repeats.clear()
            self._queue = self._backlog
        return self._fail_lost() if lost else []

    def _fail_lost(self) -> list[Pending]:
        failed: list[Pending] = []
        for pending in [*self._repeats, *self._backlog]:
            error = self.files.why_lost(pending)
            if error is not None:
                state = UNKNOWN if pending.sent else NOT_SENT
                self._splits.discard(pending)
                self._drop(pending)
                pending.fail(type(error)(error.errno, f"{pending}: {state}: {error.strerror}"))
                failed.append(pending)
        return failed

    def goodbye(self, now_s: float) -> list[Message]:
        """What to send last. The session is not ended by it: see lose()."""
        self._last_sent_s = now_s
        return (
            [] if self.ended is not None else [[wire.pack(MessageType.GOODBYE, self.welcome.token, self._cookie + 1)]]
        )

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_tick_s(self) -> float:
        """When tick() is due next, and messages_to_send() after it."""
        due_s = min(self._heartbeat_due_s(), self.held_until_s) if self.suspended is None else math.inf
        return min(due_s, self._deadlines[0][0]) if self._deadlines else due_s

    def _heartbeat_due_s(self) -> float:
        # Others may be sent all the time and never answered (a CANCEL, a read of a disk that hangs), and still the
        # daemon lives: a HEARTBEAT is what is sure to be answered.
        since_s = self._last_sent_s
        if self._silent_since_s is not None:
            since_s = min(since_s, max(self._silent_since_s, self._asked_s))
        return since_s + self.welcome.heartbeat_s

    def tick(self, now_s: float) -> list[Pending]:
        """Queue a HEARTBEAT if one is due, and give up what is past its deadline.

        Call it after everything that had arrived has been received. The session ends when nothing has come for
        `session_timeout_s` since the oldest message sent, and a HEARTBEAT was among these. Returns what is done by all
        that.
        """
        return self._give_up_late(now_s) + self._beat(now_s)

    def _give_up_late(self, now_s: float) -> list[Pending]:
        finished: list[Pending] = []
        while self._deadlines and self._deadlines[0][0] <= now_s:
            due_s, number, request = heapq.heappop(self._deadlines)
            if request.done:
                continue
            if request.sent and due_s < request.deadline_s + GRACE_S:
                heapq.heappush(self._deadlines, (request.deadline_s + GRACE_S, number, request))
                continue
            self.abandon(request, deadline_passed(str(request), sent=request.sent))
            finished.append(request)
        return finished

    def _beat(self, now_s: float) -> list[Pending]:
        if self.ended is not None or self.suspended is not None or now_s < self._heartbeat_due_s():
            return []
        since_s = self._silent_since_s
        if since_s is None:
            self._silent_since_s = now_s
        elif self._asked_s >= since_s and now_s - since_s > self.welcome.session_timeout_s:
            return self.interrupt(f"the daemon has been silent for {now_s - since_s:.0f} s")
        self._asked_s = now_s
        self._outbox.append([wire.pack(MessageType.HEARTBEAT, self.welcome.token)])
        return []


def _source_of(request: Request, start: int) -> tuple[int, int, int]:
    """COPY_RANGE's last three fields: the source's handle, and the halves of its offset."""
    offset = request.source_offset + start
    return request.source, offset & 0xFFFFFFFF, offset >> 32


def _place(payload: Payload, request: Request, start: int, length: int) -> tuple[int, int]:
    """Put the bytes of (a part of) `request` into `payload`: (frame, frame_offset)."""
    data: Any = request.buffer
    if type(data) is Pieces:
        return payload.place_pieces(data, start, length)
    return payload.place(data if request.split is None else data[start : start + length])


def _bytes_at(frames: Frames, frame: int, start: int, count: int) -> bytes | memoryview:
    """`count` bytes of payload frame `frame`. Raises WireError where they are not there."""
    if count <= 0:
        return b""
    data = frames[frame + 1][start : start + count]
    if len(data) != count:
        raise wire.WireError(f"payload frame {frame} ends before {count} bytes from {start}")
    return data
