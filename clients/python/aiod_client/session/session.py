"""One engine session, without sockets, threads or clocks.

Rules for whatever drives it:

- `add()` queues; `messages_to_send()` returns what may be sent now; `receive()` takes a message and returns what is
  done. Call messages_to_send() after every add() and receive(): credit that came back lets the backlog move. Call
  tick(), and messages_to_send() after it, at next_tick_s(). Call take_failed() after messages_to_send().
- What is in flight never exceeds the daemon's credit; everything else waits in the backlog.
- Everything added is done exactly once: by its completion, by abandon(), or when the session ends.
- A session that has ended stays ended; `ended` says why.
- A session whose engine has gone may continue with another one, if it is `resumable` (reconnection.py has its states):
  suspend(), and resume() with what the new engine grants. What was not answered is sent again where that does no harm,
  before anything new; the rest fails, since its outcome is unknown. What is added meanwhile waits.

In the blocking client a signal's handler may raise in the midst of a method here; then suspend() or lose() comes next.
So each request is always in one of the tables that these go through, in two of them rather than in none, and `finished`
has what was done before a return that never came.

Nothing here is thread-safe or reentrant. One lock (blocking) or one event loop (aio) protects a session and its
requests, and the link keeps out the finalizers that the garbage collector runs in the midst of a method here.
"""

from __future__ import annotations

import errno
import math
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aiod_client.errors import (
    NOT_EXECUTED,
    NOT_SENT,
    UNKNOWN,
    AiodError,
    Failure,
    ProtocolError,
    SessionLostError,
    deadline_passed,
    mark_not_sent,
    too_long,
)
from aiod_client.requests.batch_steps import complete_records
from aiod_client.requests.pending import HAVE_PAYLOAD, Call, Pending, Request
from aiod_client.requests.split import Split, part_bytes_max
from aiod_client.session.backlog import Backlog
from aiod_client.session.deadlines import Deadlines
from aiod_client.session.handshake import (
    Frames,
    Message,
    Reply,
    ShutdownNotice,
    Welcome,
    final_refusal,
    parse_reply,
    refusal,
    shutdown_notice,
)
from aiod_client.session.heartbeat import Heartbeat
from aiod_client.session.in_flight import InFlight
from aiod_client.session.limited_calls import LimitedCalls
from aiod_client.session.open_files import OpenFiles
from aiod_client.session.replay import Replay, unknown
from aiod_protocol import wire
from aiod_protocol.messages import failure_message
from aiod_protocol.operations import Op, OpFlag, changes_file
from aiod_protocol.reasons import Reason, parse_reason
from aiod_protocol.wire import COMPLETION, MessageType

if TYPE_CHECKING:
    from collections import deque

    from aiod_client.session.open_files import OpenFile

_COOKIE_BYTES_MAX: Final = 9  # in msgpack
_CANCEL_MAX: Final = (wire.HEADER_BYTES_MAX - 256) // _COOKIE_BYTES_MAX

_SEARCHED_MAX: Final = 64
"""The most requests among which those of one file are searched for."""
HOLD_S: Final = 0.002
"""How long free credit may be held back for a larger batch."""

# What every request meets, looked up once: in Python 3.11 a look at an IntEnum's member costs as much as a call.
_READ: Final = int(Op.READ)
_WRITE: Final = int(Op.WRITE)
_FLUSH: Final = int(Op.FLUSH)
_FUA: Final = int(OpFlag.FUA)
_TRANSFERS: Final = frozenset({_READ, _WRITE})
_REPEAT: Final = int(OpFlag.REPEAT)
_COMPLETE: Final = int(MessageType.COMPLETE)


class Session:
    """The requests of one session that are not done, and the credit for them."""

    def __init__(self, welcome: Welcome, now_s: float) -> None:
        self.welcome = welcome
        self.ended: AiodError | None = None
        self.resumable = False
        """Whether the loss of the connection suspends the session instead of ending it."""
        self.suspended: OSError | None = None
        """Why the session is suspended; None: it is not."""
        self.hung = False
        """Whether it is suspended because the engine has been silent: another daemon is asked first."""
        self.pauses = self.retries = self.failovers = 0  # Counters of records.py
        self._moved_for: OSError | None = None  # why it has left the daemon before; None: it continues with that one
        self._drained = False  # the engine has executed none of the requests that it has not answered
        self.files = OpenFiles()
        self.held_until_s = math.inf
        """When to send what messages_to_send() holds back for a larger batch: part of next_tick_s()."""
        self.backlog = Backlog()
        self.in_flight = InFlight(welcome)
        self.request_bytes_max = self.in_flight.request_bytes_max
        """The most bytes of a request that cannot be split."""
        self._replay = Replay(self.backlog, self.files)
        self._calls: dict[int, Call] = {}
        self._limited = LimitedCalls()
        self._outbox: list[Message] = []
        self._failed: list[Pending] = []  # see take_failed()
        self.finished: list[Pending] = []
        """What receive() or take_failed() has returned last."""
        self._deadlines = Deadlines()
        self._heartbeat = Heartbeat(welcome, now_s)

    @property
    def drained(self) -> bool:
        """Whether the engine that has gone has executed none of the requests that it has not answered."""
        return self._drained

    @property
    def depth(self) -> int:
        """Requests in flight."""
        return len(self.in_flight.requests)

    @property
    def bytes_inflight(self) -> int:
        """Bytes of the reads and writes in flight."""
        return self.in_flight.bytes

    @property
    def pending(self) -> int:
        """Requests and calls not done: in flight (parts count) and in the backlog."""
        backlog = self.backlog
        waiting = len(backlog.new) + len(backlog.replays) + len(backlog.postponed) + len(self._limited)
        return len(self.in_flight.requests) + len(self._calls) + waiting

    def uses(self, handle: int) -> bool:
        """Whether a request or call on `handle` is not done. Many are not searched: then one may be."""
        pending = self.pending
        if pending == 0 or pending > _SEARCHED_MAX:
            return pending != 0
        waiting = (*self.backlog.new, *self.backlog.replays, *self.backlog.postponed)
        unfinished = (*self.in_flight.requests.values(), *self._calls.values(), *waiting)
        return any(handle == each.handle or handle == getattr(each, "source", 0) for each in unfinished)

    @property
    def sends_new(self) -> bool:
        """Whether new requests are sent: not while the session is suspended, nor before the engine has said GO."""
        return self.suspended is None and self.backlog.queue is self.backlog.new

    def add(self, pending: Request | Call) -> None:
        """Queue a request or a call. Raises the like of what ended the session, if it has ended."""
        why: OSError | None = self.ended
        if why is None and self.files.lost and self.suspended is None:
            why = self.files.why_lost(pending)
        if why is not None:
            state = UNKNOWN if pending.sent else NOT_SENT
            raise mark_not_sent(type(why)(why.errno, f"{pending}: {state}: {why.strerror}"))
        if isinstance(pending, Call):
            self.backlog.add_call(pending)
            if self.suspended is not None:
                self._failed += self._replay.drop_closes()
            return
        if pending.sent and self.suspended is not None:
            self._failed += self.take_back([pending])
            return
        if pending.sent and self._moved_for is not None and changes_file(pending.op):
            # Its thread has heard of the end of the ring only now.
            if not self.files.is_guarded(pending):
                self.files.doubt(pending.handle)
                pending.fail(unknown(pending, self._moved_for))
                self._failed.append(pending)
                return
            pending.flags |= _REPEAT
        if pending.op == _FLUSH:
            self.files.begin_flush(pending)
        if self._fits(pending):
            self.backlog.new.append(pending)

    def add_requests(self, requests: list[Request]) -> None:
        """Queue `requests`, as add() each of them."""
        if self.ended is not None or self.suspended is not None or self._moved_for is not None or self.files.lost:
            for request in requests:
                self.add(request)
            return
        append, part_max = self.backlog.new.append, self.in_flight.part_max
        for request in requests:
            if request.op == _FLUSH:
                self.files.begin_flush(request)
            if request.length <= part_max or self._fits(request):
                append(request)

    def watch_deadline(self, request: Request) -> None:
        """Have tick() fail `request` when its deadline has passed without an answer: no thread may wait for it."""
        self._deadlines.watch(request, self.pending)

    def _fits(self, request: Request) -> bool:
        """Split a request that is too long for one record. False: it cannot be split, and has failed (EMSGSIZE)."""
        if request.length <= self.in_flight.part_max:
            return True
        part_max = part_bytes_max(request.op, self.in_flight.part_max)
        if part_max is None:
            if request.charge <= self.request_bytes_max:
                return True
            request.fail(too_long(str(request), self.request_bytes_max))
            self._failed.append(request)
            return False
        if request.length > part_max:
            request.begin_parts(Split(request.op, request.length, part_max))
            self.backlog.splits.add(request)
        return True

    def take_failed(self) -> list[Pending]:
        """The requests that add() and messages_to_send() have failed since the last call: too long, or too late."""
        self.finished = failed = self._failed
        self._failed = []
        return failed

    # ---- sending ----------------------------------------------------------------------------------------------------

    def messages_to_send(self, now_s: float) -> list[Message]:
        """The messages that may be sent now, in order. They count as sent."""
        if self.suspended is not None:
            return []
        messages, self._outbox = self._outbox, []
        backlog = self.backlog
        queue = backlog.queue
        self._send_queue(queue, messages, now_s)
        if queue is backlog.replays and not queue and not self.in_flight.requests:
            messages.append([wire.pack(MessageType.REPEATED, self.welcome.token)])
            backlog.hold()
        if messages:
            self._heartbeat.sent(now_s)
        return messages

    def _send_queue(self, queue: deque[Request | Call], messages: list[Message], now_s: float) -> None:
        """Append to `messages` what `queue` may have sent now."""
        held_until_s, self.held_until_s = self.held_until_s, math.inf
        backlog, in_flight = self.backlog, self.in_flight
        while queue:
            head = queue[0]
            if isinstance(head, Call):
                self._send_call(head, messages)
                continue
            free = in_flight.free()
            if free <= 0:
                break
            if not in_flight.is_worth_a_batch(free, len(queue)):
                held_until_s = min(held_until_s, now_s + HOLD_S)
                if now_s < held_until_s:
                    self.held_until_s = held_until_s
                    break
            message = in_flight.submission(backlog, free, now_s, self._next_request, self.welcome.token)
            if message is not None:
                messages.append(message)
            elif not queue or not isinstance(queue[0], Call):
                break  # else what stood before the call was late

    def _send_call(self, call: Call, messages: list[Message]) -> None:
        if self.backlog.must_wait(call):
            self.backlog.queue.rotate(-1)
            return
        if self._limited.holds(call, self.welcome.depth_max):
            self.backlog.queue.popleft()
            return
        if call.kind == MessageType.UNLOCK:
            self.files.unlocking(call)
        call.cookie = self.in_flight.next_cookie()
        call.sent = True
        self._calls[call.cookie] = call
        self._limited.sent(call)
        self.backlog.queue.popleft()
        messages.append([wire.pack(call.kind, self.welcome.token, call.cookie, *call.arguments)])

    def _next_request(self, now_s: float) -> Request | None:
        """The head of the backlog, if it is a request. One whose deadline has passed is never sent."""
        queue = self.backlog.queue
        while queue:
            head = queue[0]
            if isinstance(head, Call):
                break
            if head.deadline_s > now_s:
                return head
            self.abandon(head, deadline_passed(str(head), sent=head.sent))
            self._failed.append(head)
        return None

    # ---- receiving --------------------------------------------------------------------------------------------------

    def receive(self, frames: Frames) -> list[Pending]:
        """Take a message of the engine; returns the requests and calls that are done by it, in order.

        Payload frames must stay as they are while a request in parts is not done. A message that breaks the protocol
        ends the session, and so does a REFUSAL.
        """
        self._heartbeat.silent_since_s = None
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
                self.take_notice(shutdown_notice(frames))
                finished += self.interrupt(reason) if final_refusal(frames) is None else self.lose(reason)
            elif kind == MessageType.GO:
                self.backlog.go()
            elif kind != MessageType.HEARTBEAT:
                finished += self._broken(f"message type {kind} from an engine")
        except (wire.WireError, ProtocolError, struct.error, LookupError, TypeError, ValueError) as error:
            finished += self._broken(repr(error))
        return finished

    def _broken(self, what: str) -> list[Pending]:
        return self.lose(f"the daemon broke the protocol: {what}", kind=ProtocolError, code=errno.EPROTO)

    def _complete(self, records: bytes, messages: dict[int, str], frames: Frames, finished: list[Pending]) -> None:
        if type(records) is not bytes or type(messages) is not dict:
            raise wire.WireError("COMPLETE of other things than records and messages")
        in_flight, files = self.in_flight, self.files
        requests = in_flight.requests
        # The first ones that are plain: mostly all.
        first, charge = complete_records(records, requests, files, frames, finished, Request)
        in_flight.received += first
        in_flight.bytes -= charge
        records = records[first * COMPLETION.size :]
        for index, (cookie, result, frame, start, written, reason) in enumerate(COMPLETION.iter_unpack(records), first):
            request = requests[cookie]  # KeyError: nothing with this cookie is in flight
            in_flight.received += 1
            if result < 0 or request.op not in _TRANSFERS or request.split is not None or request.done:
                failure = self._failure(request, index, result, written, reason, messages) if result < 0 else None
                if failure is None or not self._puts_off(request, cookie, failure):
                    data = _bytes_at(frames, frame, start, result) if request.op in HAVE_PAYLOAD else b""
                    self._completed(request, cookie, result, data, failure, finished)
                del requests[cookie]
                continue
            # As _completed() does it, with fewer calls.
            if request.op == _READ:
                request.complete(result, _bytes_at(frames, frame, start, result), None)
            else:
                request.complete(result, b"", None)
                file = files.get(request.handle)
                if file is not None and not request.flags & _FUA:
                    file.dirty.add(file.epoch)
            in_flight.bytes -= request.charge
            finished.append(request)
            request.done = True
            request.buffer = None
            del requests[cookie]

    def _failure(
        self, request: Request, index: int, result: int, written: int, reason: int, messages: dict[int, str]
    ) -> Failure:
        message = messages.get(index) or self._sentence(request, -result, reason)
        return Failure(-result, message, written, parse_reason(reason))

    def _sentence(self, request: Request, number: int, reason: int) -> str:
        """What an engine leaves out where very many requests of one message fail: as of a ring, it is made here."""
        file = self.files.get(request.handle)
        name = f"handle {request.handle}" if file is None else f"{file.export}/{file.path}"
        return failure_message(request.op, name, request.offset, request.length, number, reason)

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
            if request.split.parts or request in self.backlog.splits or request.done:
                return
            request.join_parts(result)
        else:
            self.in_flight.bytes -= request.charge
            request.complete(result, data, failure)
        if request.op != _READ:
            self.files.completed(request)
        if not request.done:  # else abandoned
            finished.append(request)
            # A signal's handler may raise before this line: the request is sent again then, with its buffer.
            request.done = True
            request.buffer = None

    def put_off(self, request: Request) -> None:
        """Postpone `request`, which a stopping daemon has refused, until the next engine."""
        request.sent = request.split is not None  # other parts may have been done
        if self.suspended is None:
            self.backlog.postponed.append(request)
        else:
            self._failed += self.take_back([request])

    def _puts_off(self, request: Request, cookie: int, failure: Failure) -> bool:
        if failure.reason != Reason.STOPPING or not self.resumable or request.done:
            return False
        charge = request.charge
        if request.split is not None:
            _, length = request.split.parts.pop(cookie)
            charge = length if charge else 0
        self.in_flight.bytes -= charge
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
        self.in_flight.bytes -= length if request.charge else 0
        if not request.done:
            split.complete(request.buffer, start, length, result, data, failure)
            if split.all_asked():
                self.backlog.drop_parts(request)

    def _reply(self, header: list[Any], finished: list[Pending]) -> None:
        call = self._calls[header[1]]
        self._take_reply(call, parse_reply(header), finished)
        del self._calls[header[1]]
        if (following := self._limited.answered(call)) is not None:
            self.backlog.new.appendleft(following)

    def _take_reply(self, call: Call, reply: Reply, finished: list[Pending]) -> None:
        result, failure, body = reply
        if call.kind == MessageType.CLOSE and self.files.closed(call.handle) and result == -errno.EBADF:
            result, failure = 0, None
        if call.kind == MessageType.UNLOCK and result == -errno.EBADF and call.handle in self.files.lost:
            result, failure = 0, None  # the file could not be opened again, so nothing is locked
        call.note_locks(result)
        if call.done:
            if call.kind == MessageType.OPEN and result >= 0:  # no caller waits that could close it
                self.backlog.add_call(Call(MessageType.CLOSE, result, handle=result))
            return
        if failure is not None and failure.reason == Reason.STOPPING and self.resumable:
            self.backlog.postponed.append(call)
            return
        if failure is not None:
            call.error = failure.error(call.filename)
        else:
            call.result = (result, body)
            if call.kind == MessageType.OPEN:
                self.files.opened(result, call.arguments, body)
            elif call.kind == MessageType.LOCK:
                self.files.locked(call, result)
        call.done = True
        finished.append(call)  # at once: a signal's handler may raise after this line, not before

    # ---- giving up --------------------------------------------------------------------------------------------------

    def abandon(self, pending: Request | Call, error: BaseException) -> bool:
        """Fail `pending` with `error`, unless it is done. What was sent is cancelled; what was not never will be sent.

        But a CLOSE or UNLOCK will be sent, or its handle would never be closed. Returns whether (a part of) it had been
        sent, or will be. The credit of a request stays taken until its completion has come.
        """
        sent = pending.sent
        if pending.done:
            return sent
        pending.fail(error)
        if isinstance(pending, Call):
            if pending.kind in (MessageType.CLOSE, MessageType.UNLOCK):
                return True
            if pending.kind == MessageType.LOCK and pending.cookie in self._calls:
                handle, _, offset, length, _ = pending.arguments
                self.backlog.add_call(Call(MessageType.UNLOCK, handle, offset, length, handle=handle))
            if not sent:
                self.backlog.drop(pending)
                self._limited.drop(pending)
            return sent
        if pending.split is not None:
            self.backlog.drop_parts(pending)
            self._cancel(list(pending.split.parts))
            pending.split.pieces.clear()
        elif pending.cookie in self.in_flight.requests:
            self._cancel([pending.cookie])
        else:
            self.backlog.drop(pending)
        pending.buffer = None
        return sent

    def cancel(self, request: Request) -> None:
        """Ask the daemon to cancel `request` if it is queued there. It is in flight until its completion comes."""
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
        # Also if the session has ended: a signal handler may have raised before everything was settled.
        self.ended = self.ended or kind(code, reason)
        kind, code, reason = type(self.ended), self.ended.errno or code, self.ended.strerror or reason
        unfinished = [*self.take_failed(), *self.in_flight.requests.values(), *self._calls.values()]
        unfinished += [*self.backlog.unsent(), *self._limited.waiting()]
        for pending in unfinished:
            state = NOT_SENT
            if pending.sent:
                state = NOT_EXECUTED if self._drained and not getattr(pending, "split", None) else UNKNOWN
            if not pending.done:
                pending.fail(kind(code, f"{pending}: {state}: {reason}"))
        self.finished = list(dict.fromkeys(unfinished))
        self.in_flight.requests.clear()
        self._calls.clear()
        self._limited.clear()
        self.backlog.clear()
        self._outbox.clear()
        return self.finished

    def goodbye(self, now_s: float) -> list[Message]:
        """The messages to send last. They do not end the session: see lose()."""
        self._heartbeat.last_sent_s = now_s
        if self.ended is not None:
            return []
        return [[wire.pack(MessageType.GOODBYE, self.welcome.token, self.in_flight.cookie + 1)]]

    # ---- another engine ---------------------------------------------------------------------------------------------

    def take_notice(self, notice: ShutdownNotice) -> None:
        """Take what the engine has said as it stopped, by message or by the ring. Before interrupt()."""
        self._drained = self._drained or notice.drained
        self.files.settle(self.files if notice.flushed is None else notice.flushed)

    def interrupt(self, reason: str) -> list[Pending]:
        """The connection is lost: suspend the session if it is resumable, else end it. Returns what is done by that."""
        return self.suspend(reason) if self.resumable else self.lose(reason)

    def suspend(self, reason: str) -> list[Pending]:
        """The engine has gone: what is added from now on waits for resume(). Returns what has failed by that."""
        if self.ended is not None or self.suspended is not None:
            return []
        self.suspended = SessionLostError(errno.EIO, reason)
        self.pauses += 1
        backlog = self.backlog
        unanswered = list(dict.fromkeys(self.in_flight.requests.values()))
        calls = list(self._calls.values())
        backlog.drop_all({*unanswered, *calls})
        self.in_flight.clear()
        self._calls.clear()
        backlog.put_first(self._limited.clear())
        self._outbox.clear()
        # What was to be sent again and has not been is the first of what is unanswered.
        waiting = [each for each in (*backlog.replays, *backlog.postponed) if isinstance(each, Request)]
        calls += [each for each in backlog.postponed if isinstance(each, Call)]
        for call in calls:
            call.sent = call not in backlog.postponed and not self._drained
        backlog.replays.clear()
        backlog.postponed.clear()
        finished = self.take_back(list(dict.fromkeys([*unanswered, *waiting])))
        requests = [each for each in backlog.unsent() if isinstance(each, Request)]
        used = {handle for each in requests for handle in (each.handle, each.source)}
        for call in reversed(calls):
            finished += self._replay.take_back_call(call, self.suspended, used)
        return finished + self._replay.drop_closes()

    def take_back(self, requests: list[Request]) -> list[Pending]:
        """Requests that the engine has not answered: to be sent again, if they may be. Returns those that fail."""
        assert self.suspended is not None, "suspend() comes first"  # noqa: S101 - a mistake of ours
        self.retries += sum(request.sent and not request.done for request in requests)
        return self._replay.take_back(requests, self.suspended, self._fits, drained=self._drained)

    def files_in_doubt(self) -> dict[int, OpenFile]:
        """The open files as another daemon has to take them: changed, if a change has no answer."""
        # A thread of its own looks for the daemon: the copies are made in one step each.
        doubtful = {request.handle for request in list(self.backlog.replays) if isinstance(request, Request)}
        return {
            handle: replace(file, dirty=file.dirty | {file.epoch}) if handle in doubtful else file
            for handle, file in dict(self.files).items()
        }

    def resume(self, welcome: Welcome, now_s: float, lost: dict[int, OSError], *, moved: bool = False) -> list[Pending]:
        """Continue with an engine that has said `welcome`; `lost`: handles of the files that it could not open again.

        `moved`: it is another daemon's. Returns what has failed by that.
        """
        failed: list[Pending] = []
        self._moved_for = self.suspended if moved else None
        self.files.lost = lost
        self.files.lose_locks()
        if moved and self.suspended is not None:
            self.failovers += 1
            failed = self._replay.fail_replays(self.suspended)
        self.welcome = welcome
        self.in_flight.grant(welcome)
        self.request_bytes_max = self.in_flight.request_bytes_max
        self.suspended, self._drained, self.hung = None, False, False
        self.files.resumed()
        self._heartbeat.restart(welcome, now_s)
        if welcome.grace:
            self.backlog.send_replays_first()
        else:
            self.backlog.send_all()
        return failed + (self._replay.fail_lost() if lost else [])

    # ---- time -------------------------------------------------------------------------------------------------------

    def next_tick_s(self) -> float:
        """When tick() is due next, and messages_to_send() after it."""
        due_s = min(self._heartbeat.due_s(), self.held_until_s) if self.suspended is None else math.inf
        return min(due_s, self._deadlines.next_s())

    def tick(self, now_s: float) -> list[Pending]:
        """Queue a HEARTBEAT if one is due, and give up what is past its deadline.

        Call it after everything that had arrived has been received. The session ends when nothing has come for
        `session_timeout_s` since the oldest message sent, and a HEARTBEAT was among these. Returns what is done by all
        that.
        """
        return self._give_up_late(now_s) + self._beat(now_s)

    def _give_up_late(self, now_s: float) -> list[Pending]:
        finished: list[Pending] = []
        self.finished = finished
        while (request := self._deadlines.take_late(now_s)) is not None:
            self.abandon(request, deadline_passed(str(request), sent=request.sent))
            finished.append(request)
        return finished

    def _beat(self, now_s: float) -> list[Pending]:
        heartbeat = self._heartbeat
        if self.ended is not None or self.suspended is not None or now_s < heartbeat.due_s():
            return []
        if (silence_s := heartbeat.silence_s(now_s)) > 0:
            self.hung = True
            return self.interrupt(f"the daemon has been silent for {silence_s:.0f} s")
        heartbeat.ask(now_s)
        self._outbox.append([wire.pack(MessageType.HEARTBEAT, self.welcome.token)])
        return []


def _bytes_at(frames: Frames, frame: int, start: int, count: int) -> bytes | memoryview:
    """`count` bytes of payload frame `frame`. Raises WireError where they are not there."""
    if count <= 0:
        return b""
    data = frames[frame + 1][start : start + count]
    if len(data) != count:
        raise wire.WireError(f"payload frame {frame} ends before {count} bytes from {start}")
    return data
