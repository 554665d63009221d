"""A session shared by threads: who polls its socket, and who keeps it alive when nobody does.

Leader and followers: the first thread that waits leads, that is, it polls the socket itself, so that a lone blocking
read costs no hand-over between threads; the others park. A leader whose own request is done wakes one parked
thread to lead on. Every use of the socket and the session is under `lock`; only the poll() itself is not.

The keeper is the session's own daemon thread. It sends heartbeats, notices the end of the connection, and leads when
requests are in flight and nobody waits: at once where a callback waits for them, else after WATCH_S without a submit()
or a leading thread. Once leading it goes on until a thread comes to wait. Callbacks run in a thread of their own, begun
with the first of them: they may take their time, and use the client, without a heartbeat being late.

Rules:
- `_leader` is who polls; only that thread clears it. Whoever leaves wait() hands over, whatever the reason.
- A thread that has finished something which others wait for wakes them: parked ones by their lock, the leader by its
  bell.
- When the session has ended nobody uses the socket any more; the keeper closes it when the leader has gone.

Finalizers and signal handlers: the garbage collector may run anybody's __del__ in the midst of a method here, in the
same thread, and that may use this very client. `lock` does not keep it out: it has to be reentrant, because
concurrent.futures takes the conditions of many futures at once, and they are one. So:
- A public method that uses session or socket asks first whether its thread has the lock already (`_interrupts`). If it
  has, the books may be half kept and the socket in mid-message: nothing is touched, but an errand is left for the
  keeper (submit(), abandon(), the CLOSE of a file, close()); what would have to wait (perform(), wait()) raises
  EDEADLK. want_callbacks() touches neither.
- A thread that leads has let go of the lock, and what interrupts its poll() may do everything but wait: EDEADLK again,
  as nobody else would lead meanwhile. One that is parked may be interrupted by anything. That is why the turn to lead
  goes to who was parked last: the interrupter, not what it has interrupted.
- Handlers that raise: what is raised while a thread waits without the lock ends its own request. What is raised under
  the lock may have been so in mid-message, and with the books half kept: _repair() gives the connection up, and the
  session goes on over another, as after the engine's death, but that nothing acknowledged is in doubt. Everything under
  the lock is done within a `try` that leads there, but for the keeper, in whose thread no handler runs.
- Not caught: concurrent.futures.wait() and as_completed() in such a place wait without asking the link.
"""

from __future__ import annotations

import errno
import functools
import logging
import math
import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from aiod_client.connection.dealer import LINGER_MS, Dealer
from aiod_client.connection.polling import AdaptivePoll, Bell, milliseconds, poll_of
from aiod_client.connection.reconnect import RETRY_S, last_words, telling
from aiod_client.errors import AiodError, cancelled, closed, forked, reentered, timed_out
from aiod_client.requests.pending import Call, Pending, Request
from aiod_client.ring.transport import LOST, Lane, memory_of
from aiod_client.session.handshake import LastWord, goodbye
from aiod_client.session.session import GRACE_S, Session
from aiod_client.wire import MessageType, OpFlag
from aiod_protocol.operations import changes_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client._ring import Ring
    from aiod_client.connection.reconnect import Connection, Redial
    from aiod_client.session.handshake import Message, Welcome
    from aiod_client.session.open_files import OpenFile

log = logging.getLogger("aiod_client")

T = TypeVar("T")

WATCH_S: Final = 0.005
"""The keeper leads when requests are in flight and no thread has submitted or led for so long."""

WATCH_TURNS: Final = 200
"""After so many looks with nothing in flight the keeper sleeps; the next submit() has to wake it."""


NOTHING: Final = Pending()
"""Never done."""


class Settled(Protocol):
    """A Pending's `waiter`: settle() is called under the link's lock once it is done."""

    def settle(self) -> Callable[[], None] | None:
        """Returns what is to be run without the lock: callbacks, if there are any."""


class Link:
    """A session, its connection, and the threads that wait on it."""

    def __init__(
        self, dealer: Dealer, welcome: Welcome, ring: Ring | None = None, redial: Redial | None = None
    ) -> None:
        """Take over `dealer`, on which the engine has said `welcome`, and the session's `ring`. begin() comes next.

        `redial` finds the engine that comes for it; None: the session ends with its engine.
        """
        self.ring = ring
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)  # of all futures: see blocking.RequestFuture
        self._interrupts: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self.orphans: deque[int] = deque()  # handles of files dropped unclosed; appended to without the lock
        self.dropped = False  # the client was dropped unclosed; set without the lock
        self._errands: deque[Callable[[], object]] = deque()  # for the keeper, from those who interrupt
        self._pid = os.getpid()
        self._session = Session(welcome, time.monotonic())
        self._redial = redial
        self._session.resumable = redial is not None and redial.timeout_s > 0
        self._lane = None if ring is None else Lane(ring, self._session)
        self._next_ring: Ring | None = None  # of the new engine, until that does what is new
        self._is_down = False  # the session is suspended, and nobody uses the socket
        self._dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._parked: dict[threading.Lock, Pending] = {}
        self._leader: threading.Thread | None = None
        self._led_for: Pending | None = None  # what the leader waits for, while it polls
        self._quiet_since_s = 0.0  # when a thread submitted or led last
        self._leader_bell, self._keeper_bell = Bell(), Bell()
        self._leader_poll = AdaptivePoll(dealer.fd, self._leader_bell.fd)
        self._callbacks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._caller: threading.Thread | None = None  # runs them
        self._callbacks_wanted = False  # somebody counts on the keeper to lead
        self._unpumped = False  # the lane has given something to the session
        self._watching = False
        self._keeper_sleeps_until_s = 0.0  # it looks again then, or when its bell rings
        self._said_goodbye = False
        self._interruption: BaseException | None = None  # what a signal's handler has raised in a thread that waited
        self._broken_off = False  # the connection was given up in mid-message, maybe
        self._keeper = threading.Thread(target=self._keep, name="aiod-keeper", daemon=True)
        self._beginning, self._begun = threading.RLock(), False
        self._owned = threading.Lock()  # taken once, by who will dispose: the keeper, or close() if that has not begun

    def begin(self) -> None:
        """Start the keeper. Idempotent; only once the link is where close() finds it: a keeper keeps its link alive."""
        if self._begun:
            return
        with self._beginning:
            if not self._begun:
                try:
                    self._keeper.start()
                except RuntimeError:
                    if self._keeper.ident is None:
                        raise  # else a signal's handler has raised when it had been started
                self._begun = True

    @property
    def ended(self) -> OSError | None:
        """Why the session ended, or None."""
        return self._session.ended

    def why_lost(self, request: Request) -> OSError | None:
        """Why a file of `request` could not be opened again at this engine; None: it could."""
        return self._session.files.why_lost(request)

    @property
    def endpoint(self) -> str:
        """Of the engine."""
        return self._dealer.endpoint

    @property
    def request_bytes_max(self) -> int:
        """The most bytes of a request that cannot be split."""
        return self._session.request_bytes_max

    def name_handle(self, handle: int, name: str) -> None:
        """What sentences call the file of `handle`."""
        if self._lane is not None:
            self._lane.names[handle] = name

    def opened(self, handle: int) -> OpenFile:
        """What is known of an open file."""
        return self._session.files[handle]

    def goes_on_without_ring(self, request: Request) -> bool:
        """Whether another engine may be asked for `request`, on which the ring has ended: it will be by perform()."""
        with self.lock:
            try:
                if self._session.ended is None and self._lane is not None and self._lane.ring.ended:
                    self._reap_ring()
            except BaseException as error:
                self._repair(error)
                raise
            if not self._session.resumable or self._session.ended is not None:
                return False
            if request.sent and changes_file(request.op):
                request.flags |= OpFlag.REPEAT
            return True

    def buffer(self, nbytes: int) -> memoryview:
        """See Client.buffer()."""
        return memory_of(self.ring, nbytes)

    def check_process(self) -> None:
        """Raise AiodError in a child of the process that connected. Before the lock: a fork may have copied it held."""
        if os.getpid() != self._pid:
            raise forked("this client")

    # ---- what threads ask for -------------------------------------------------------------------------------------

    def perform(self, pending: Request | Call, timeout_s: float, what: str) -> Any:
        """Carry out one request or call: its result, or its error raised. Its caller has checked the process.

        Raises TimeoutError (`what` names it for people) after `timeout_s`: it is given up then, and cancelled if it was
        sent; AiodError (EDEADLK) for one who interrupts, but a CLOSE is left to the keeper.
        """
        if self._interrupts() or (self._leader is not None and self._is_leader()):
            if not isinstance(pending, Call) or pending.kind != MessageType.CLOSE:
                raise reentered(f"{what}: {pending}")
            self.orphans.append(pending.handle)
            self._keeper_bell.ring()
            return None
        deadline_s = time.monotonic() + timeout_s
        if isinstance(pending, Request):
            pending.deadline_s = deadline_s
            if self._lane is not None and self._lane.carries(pending):
                return self._perform_by_ring(pending, timeout_s, what)
        with self.lock:
            try:
                if not self._wait_for_ring(pending):
                    self._session.add(pending)
                self._wait(pending, deadline_s)
                if not pending.done and isinstance(pending, Request) and pending.sent:
                    self._wait(pending, deadline_s + GRACE_S)
            except BaseException as error:
                self._repair(error)
                self._abandon(pending, error)
                raise
            if not pending.done:
                sent = self._abandon(pending, TimeoutError())
                raise timed_out(f"{what}: {pending}", timeout_s, sent=sent, written=pending.written)
        return pending.outcome()

    def _perform_by_ring(self, request: Request, timeout_s: float, what: str) -> Any:
        try:
            with self.lock:
                try:
                    self._add_all([request])
                except BaseException as error:
                    self._repair(error)
                    raise
            done = self._wait_by_ring(request, request.deadline_s + GRACE_S)
        except BaseException as error:
            self.abandon(request, error)
            raise
        if not done:
            with self.lock:
                sent = self._abandon(request, TimeoutError())
            raise timed_out(f"{what}: {request}", timeout_s, sent=sent, written=request.written)
        return request.outcome()

    def _wait_by_ring(self, request: Request, deadline_s: float) -> bool:
        """Wait until `request`, which the lane has, is done. Whoever waits reaps for all."""
        while True:
            ring = self.ring
            seen = ring.done_count if ring is not None else 0  # before the look: what others settle after it is counted
            with self.lock:
                try:
                    self._reap_ring()
                    if request.done:
                        return True
                    if not request.by_ring or ring is None:  # the ring had no room for it, or has gone
                        self._wait(request, deadline_s)
                        return request.done
                except BaseException as error:
                    self._repair(error)
                    raise
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return False
            ring.wait(seen, remaining_s)

    def submit(self, requests: list[Request]) -> None:
        """Queue and send `requests`; their `waiter`s are settled when they are done. As perform(), but never waits."""
        if self._interrupts() and self._session.ended is None:
            self._leave_errand(functools.partial(self._submit_late, requests))
            return
        with self.lock:
            try:
                self._add_all(requests)
                self._pump()
                self._quiet_since_s = time.monotonic()
                if not self._watching:
                    self._watch()
            except BaseException as error:
                self._repair(error)
                raise

    def _add_all(self, requests: list[Request]) -> None:
        now_s = time.monotonic()
        for request in requests:
            if self._lane is not None and self._lane.carries(request):
                self._lane.add(request, now_s)
                continue
            self._session.add(request)
            if request.deadline_s != math.inf:
                self._session.watch_deadline(request)
        self._send_overflow()

    def _send_overflow(self) -> None:
        """What the ring has no room for goes by message."""
        for request in self._lane.take_overflow() if self._lane is not None else ():
            self._session.add(request)
            self._unpumped = True
            if request.deadline_s != math.inf:
                self._session.watch_deadline(request)

    def _wait_for_ring(self, pending: Request | Call) -> bool:
        """Have a CLOSE wait for what the ring has in flight on its handle; False: it need not."""
        lane = self._lane
        if lane is None or not isinstance(pending, Call) or pending.kind != MessageType.CLOSE:
            return False
        self._reap_ring()
        if self._lane is not lane:  # the engine has gone
            return False
        lane.names.pop(pending.handle, None)
        waits = lane.after(pending.handle, functools.partial(self._add_late_close, pending))
        if waits:
            self._watch()
        return waits

    def _add_late_close(self, call: Call) -> None:
        if call.done:
            return
        try:
            self._session.add(call)
            self._unpumped = True
        except OSError as error:  # the session has ended
            call.fail(error)
            self._finish([call])

    def _reap_ring(self) -> None:
        """Take what the ring has done. Lock held."""
        if self._lane is None:
            return
        lane = self._lane
        self._finish(lane.reap(time.monotonic()))
        self._send_overflow()
        if (lane.ended is not None or lane.ring.ended) and self._session.ended is None:
            self._session.hear(lane.last_word)
            self._finish(self._session.interrupt(str(LOST.strerror)))
            self._go_down()
        if self._unpumped:
            self._unpumped = False
            self._pump()

    def wait(self, pending: Pending, timeout_s: float) -> bool:
        """Wait until `pending` is done; False: it is not after `timeout_s`. Raises AiodError (EDEADLK) as perform()."""
        self.check_process()
        if self._interrupts() or (self._leader is not None and self._is_leader() and not pending.done):
            raise reentered(f"waiting for {pending}")
        deadline_s = time.monotonic() + timeout_s
        if isinstance(pending, Request) and pending.by_ring:
            return self._wait_by_ring(pending, deadline_s)
        with self.lock:
            try:
                self._wait(pending, deadline_s)
            except BaseException as error:
                self._repair(error)
                raise
            return pending.done

    def cancel(self, request: Request, timeout_s: float) -> bool:
        """Have `request` ended if it has not been started: True, it will never be executed. Its waiter is settled then.

        What was sent the daemon is asked about, for at most `timeout_s`. False for one who interrupts: the daemon is
        told nevertheless, soon.
        """
        self.check_process()
        if self._interrupts() or self._is_leader():
            self._leave_errand(functools.partial(self._tell_to_cancel, request))
            return False
        with self.lock:
            if request.done or (request.split is not None and request.sent):
                return False
            request.cancelling = True
            if not request.sent:
                try:
                    self._abandon(request, cancelled(str(request)))
                except BaseException as error:
                    self._repair(error)
                    raise
                return True
            at_work = self._lane.pending_of(request) if self._lane is not None and request.by_ring else None
        if at_work is not None:
            return at_work.cancel(timeout_s) == 1 and self.wait(request, timeout_s) and request.cancelled
        call = Call(MessageType.CANCEL, [request.cookie])
        try:
            ended, _ = self.perform(call, timeout_s, f"cancel {request}")
            return bool(ended) and self.wait(request, timeout_s) and request.cancelled
        except OSError:
            return False

    def abandon(self, pending: Request, error: BaseException) -> None:
        """Give `pending` up with `error`, unless it is done; it is cancelled if it was sent."""
        self.check_process()
        if self._interrupts():
            self._leave_errand(functools.partial(self._abandon, pending, error))
            return
        with self.lock:
            try:
                self._abandon(pending, error)
            except BaseException as interruption:
                self._repair(interruption)
                raise

    def want_callbacks(self) -> None:
        """A callback is about to be added: the keeper leads as soon as nobody else does."""
        with self.lock:
            if self._caller is None:
                caller = threading.Thread(target=self._call_back, name="aiod-callbacks", daemon=True)
                if self._caller is None:  # else one who interrupted was quicker
                    self._caller = caller
                    caller.start()
            self._callbacks_wanted = True
            if self._leader is None:
                self._keeper_bell.ring()

    def close(self) -> None:
        """Say goodbye, fail what is not done with AiodError (ESHUTDOWN), close the socket. Not in a forked child.

        For one who interrupts the keeper does it, soon.
        """
        if os.getpid() != self._pid:
            return
        if self._interrupts():
            self.dropped = True
            self._keeper_bell.ring()
            return
        with self.lock:
            try:
                self._say_goodbye()
            except BaseException as error:
                self.dropped = True  # the keeper says goodbye
                self._repair(error)
                raise
            finally:
                self._keeper_bell.ring()
        if self._owned.acquire(blocking=False):
            self._dispose()
        elif threading.current_thread() is not self._keeper and not self._is_leader() and self._keeper.ident:
            self._keeper.join()

    # ---- for those who interrupt ------------------------------------------------------------------------------------

    def _is_leader(self) -> bool:
        return self._leader is threading.current_thread()

    def _leave_errand(self, errand: Callable[[], object]) -> None:
        self._errands.append(errand)
        self._keeper_bell.ring()

    def _run_errands(self) -> None:
        while self._errands:
            self._errands.popleft()()

    def _tell_to_cancel(self, request: Request) -> None:
        if request.done:
            return
        request.cancelling = True
        at_work = self._lane.pending_of(request) if self._lane is not None and request.by_ring else None
        if at_work is not None:
            at_work.cancel(0)
        elif request.sent:
            self._session.cancel(request)
            self._pump()
        else:
            self._abandon(request, cancelled(str(request)))

    def _submit_late(self, requests: list[Request]) -> None:
        for request in requests:
            if request.done:  # cancelled meanwhile
                continue
            try:
                self._add_all([request])
            except OSError as error:
                request.fail(error)
                self._finish([request])
        self._pump()
        self._watch()

    # ---- under the lock -------------------------------------------------------------------------------------------

    def _pump(self, until: Pending = NOTHING) -> None:
        """Send what may be sent and take what has come, until there is neither, or `until` is done.

        The descriptor tells of new events once, and any use of the socket takes the telling: so whoever polls it next
        pumps first.
        """
        session, dealer = self._session, self._dealer
        while session.ended is None and session.suspended is None and not until.done:
            self._unsent += session.messages_to_send(time.monotonic())
            self._finish(session.take_failed())
            while self._unsent and dealer.send(self._unsent[0]):
                self._unsent.popleft()
            frames = dealer.receive()
            if frames is None:
                break
            self._finish(session.receive(frames))
        if session.suspended is not None:
            self._go_down()
        elif self._next_ring is not None and session.goes_on:
            self._use_ring()
        if session.held_until_s + WATCH_S < self._keeper_sleeps_until_s:
            self._watch()

    def _repair(self, error: BaseException) -> None:
        """`error` has left a method that has the lock: a signal's handler has raised it, and anything may be half done.

        Then the connection is given up (it may be in mid-message), and the session goes on over another, of the same
        engine, with what its tables say was asked and not answered. Not so where the session said no itself, nor where
        the handler ran while its thread waited without the lock, as it mostly does.
        """
        interruption, self._interruption = self._interruption, None
        if error is interruption or getattr(error, "not_sent", False):
            return
        session = self._session
        self._broken_off = True
        finished = [*session.finished, *session.take_failed(), *session.interrupt(f"interrupted by {error!r}")]
        self._finish(finished)
        self._go_down()
        self._keeper_bell.ring()

    def _go_down(self) -> None:
        """The session is suspended: nothing is sent any more, and what the ring had waits with the rest."""
        if self._session.suspended is None or self._is_down:
            return
        self._is_down = True
        self._unsent.clear()
        lane, self._lane, self.ring, self._next_ring = self._lane, None, None, None
        if lane is not None:
            finished, requests = lane.give_back()
            self._finish(finished + self._session.take_back(requests))
        self._leader_bell.ring()
        self._keeper_bell.ring()

    def _use_ring(self) -> None:
        """The new engine does what is new."""
        ring, self._next_ring = self._next_ring, None
        if ring is not None:
            self._lane = Lane(ring, self._session)
            self._lane.names = {handle: f"{file.export}/{file.path}" for handle, file in self._session.files.items()}
            self.ring = ring

    def _finish(self, finished: list[Pending]) -> None:
        for pending in finished:
            if pending.waiter is not None and (callbacks := pending.waiter.settle()) is not None:
                self._callbacks.put(callbacks)
        if self._lane is not None and self._lane.ended is None and self._session.ended is not None:
            finished = finished + self._settle_lane(self._session.ended)
        if not finished:
            return
        for turn in [turn for turn, pending in self._parked.items() if pending.done]:
            del self._parked[turn]
            turn.release()
        if self._led_for is not None and self._led_for.done:
            self._leader_bell.ring()
        if self._session.ended is not None:
            self._keeper_bell.ring()

    def _settle_lane(self, why: OSError) -> list[Pending]:
        """The session has ended, and so the ring's requests."""
        assert self._lane is not None  # noqa: S101 - a mistake of ours
        finished = self._lane.lose(why)
        for pending in finished:
            if pending.waiter is not None and (callbacks := pending.waiter.settle()) is not None:
                self._callbacks.put(callbacks)
        return finished

    @property
    def _pending(self) -> int:
        """Requests and calls not done, by whichever way."""
        return self._session.pending + (0 if self._lane is None else self._lane.pending)

    def _abandon(self, pending: Request | Call, error: BaseException) -> bool:
        if self._lane is not None and isinstance(pending, Request) and pending.by_ring:
            sent = self._lane.abandon(pending, error)
            self._finish([pending])
            return sent
        sent = self._session.abandon(pending, error)
        self._finish([pending])
        self._pump()
        if isinstance(pending, Call):  # a CLOSE may still be to be sent, and nobody waits for it
            self._watch()
        return sent

    def _watch(self) -> None:
        """Have the keeper look after what nobody may be waiting for, if there is anything."""
        if self._pending:
            self._watching = True
            self._keeper_sleeps_until_s = 0.0  # so that it is rung for once
            self._keeper_bell.ring()

    def _say_goodbye(self) -> None:
        if self._session.ended is not None:
            return
        self._said_goodbye = True
        if self._session.suspended is None:
            for message in self._session.goodbye(time.monotonic()):
                self._unsent.append(message)
            while self._unsent and self._dealer.send(self._unsent[0]):
                self._unsent.popleft()
        self._finish(self._session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN))

    def _wait(self, pending: Pending, deadline_s: float) -> None:
        try:
            self._pump(pending)
            while not pending.done and (remaining_s := deadline_s - time.monotonic()) > 0:
                if self._leader is None and self._session.suspended is None:
                    self._lead(pending, remaining_s)
                else:
                    self._park(pending, remaining_s)
                self._pump(pending)
        finally:
            self._hand_over()

    def _lead(self, pending: Pending, remaining_s: float) -> None:
        """Poll once. Leading on means to call this again before the lock is let go."""
        try:
            self._leader = threading.current_thread()
            self._led_for = pending
            alone = self._session.pending == 1
            events = self._without_lock(lambda: self._leader_poll.wait(remaining_s, alone=alone))
        finally:
            self._leader = self._led_for = None
            self._quiet_since_s = time.monotonic()
            if self._session.suspended is not None:
                self.condition.notify_all()  # the keeper waits for the leader to go
        if len(events) > 1 or (events and events[0][0] == self._leader_bell.fd):
            self._leader_bell.silence()

    def _park(self, pending: Pending, remaining_s: float) -> None:
        turn = threading.Lock()
        turn.acquire()
        self._parked[turn] = pending
        try:
            if self._leader is self._keeper:
                self._keeper_bell.ring()
            self._without_lock(lambda: turn.acquire(timeout=min(remaining_s, threading.TIMEOUT_MAX)))
        finally:
            self._parked.pop(turn, None)

    def _without_lock(self, wait: Callable[[], T]) -> T:
        """What `wait` returns. The lock is let go of meanwhile, and held again whatever a signal's handler raises."""
        try:
            self.lock.release()
            return wait()
        except BaseException as error:
            self._interruption = error
            raise
        finally:
            interruption: BaseException | None = None
            while True:
                try:
                    if self._interrupts():
                        break
                    self.lock.acquire()
                except BaseException as error:  # noqa: BLE001 - raised below
                    self._interruption = interruption = error
            if interruption is not None:
                raise interruption

    def _hand_over(self) -> bool:
        """Have a parked thread lead, if nobody does; returns whether one will."""
        if self._leader is not None:
            return False
        if self._parked:
            turn, _ = self._parked.popitem()  # the last
            turn.release()
            return True
        if self._session.ended is not None:
            self.condition.notify_all()  # _dispose() waits for the leader to go
        elif self._callbacks_wanted and self._pending:
            self._keeper_bell.ring()
        return False

    # ---- the keeper -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        if not self._owned.acquire(blocking=False):
            return
        try:
            self._keep_until_ended()
        except BaseException as error:
            log.exception("the keeper of the session with %s failed", self._dealer.endpoint)
            with self.lock:
                self._finish(self._session.lose(f"the client failed: {error!r}"))
        self._dispose()

    def _keep_until_ended(self) -> None:
        while self._session.ended is None:
            self._keep_until_down()
            if self._session.ended is None:
                self._connect_again()

    def _keep_until_down(self) -> None:
        """Look after the session until it has ended, or is suspended."""
        watch = poll_of(self._keeper_bell.fd, self._dealer.monitor_fd)
        lead = poll_of(self._keeper_bell.fd, self._dealer.monitor_fd, self._dealer.fd)
        leads = handed_over = False
        idle_turns = 0
        while True:
            with self.lock:
                self._keeper_bell.silence()
                self._run_errands()
                self._chores()
                self._ring_chores()
                if self._session.ended is not None or self._is_down:
                    return
                idle_turns = 0 if self._pending else idle_turns + 1
                self._watching = self._watching and idle_turns < WATCH_TURNS
                leads = not handed_over and self._may_keeper_lead(leads=leads)
                if leads:
                    self._pump()
                    self._leader = self._keeper
                timeout_s = self._keeper_sleep_s(leads=leads)
                self._keeper_sleeps_until_s = time.monotonic() + timeout_s
            (lead if leads else watch).poll(milliseconds(timeout_s))
            with self.lock:
                handed_over = leads and self._keeper_led()

    def _connect_again(self) -> None:
        """Find another engine for the session, for as long as it may take; else the session ends."""
        assert self._redial is not None, "it is resumable"  # noqa: S101 - a mistake of ours
        why = self._session.suspended
        log.warning("session with %s: %s: looking for another engine", self._dealer.endpoint, why)
        with self.condition:
            self.condition.wait_for(lambda: self._leader in (None, self._keeper))
        # Nobody polls the socket any more, and nobody uses it while the session is suspended.
        left = self._dealer.endpoint if self._broken_off else None
        final, word = (None, LastWord()) if self._broken_off else last_words(self._dealer)
        self._broken_off = False
        self._dealer.close(LINGER_MS)
        with self.lock:
            self._session.hear(word)
            if final is not None:
                self._finish(self._session.lose(f"the daemon ended the session: {final.strerror}"))
        deadline_s = time.monotonic() + self._redial.timeout_s
        bell = poll_of(self._keeper_bell.fd)
        failure: OSError | None = None
        while self._may_go_on():
            try:
                session = self._session
                connection = self._redial(
                    session.welcome.token, dict(session.files), deadline_s, self._check_going_on, left
                )
            except OSError as error:
                failure = telling(failure, error)
                if time.monotonic() < deadline_s:
                    bell.poll(milliseconds(RETRY_S))
                    continue
                with self.lock:
                    self._finish(
                        self._session.lose(f"{why}; no other engine for {self._redial.timeout_s:g} s: {failure}")
                    )
            else:
                self._go_on(connection)
            return

    def _may_go_on(self) -> bool:
        """Whether the session is still wanted; does meanwhile what cannot wait."""
        with self.lock:
            self._keeper_bell.silence()
            self._run_errands()
            if self.dropped:
                self._say_goodbye()
            self._finish(self._session.tick(time.monotonic()))
            return self._session.ended is None

    def _check_going_on(self) -> None:
        if not self._may_go_on():
            raise closed("the client")

    def _go_on(self, connection: Connection) -> None:
        with self.lock:
            if self._session.ended is not None:
                connection.dealer.send(goodbye(connection.welcome))
                connection.dealer.close(LINGER_MS)
                return
            self._dealer = connection.dealer
            self._leader_poll = AdaptivePoll(connection.dealer.fd, self._leader_bell.fd)
            self._next_ring = connection.ring
            self._is_down = False
            self._finish(self._session.resume(connection.welcome, time.monotonic(), connection.lost))
            log.warning("session with %s: goes on, %d files lost", self._dealer.endpoint, len(connection.lost))
            self._pump()
            self._watch()
            self._hand_over()

    def _call_back(self) -> None:
        while (run := self._callbacks.get()) is not None:
            try:
                run()
            except BaseException:  # SystemExit, say; the rest is logged by concurrent.futures
                log.exception("a callback of the session with %s failed", self._dealer.endpoint)

    def _may_keeper_lead(self, *, leads: bool) -> bool:
        if self._leader is not None or self._parked or self._session.ended is not None:
            return False
        if not self._pending:
            self._callbacks_wanted = False
            return leads
        return leads or self._callbacks_wanted or time.monotonic() - self._quiet_since_s >= WATCH_S

    def _keeper_led(self) -> bool:
        self._leader = None
        self._pump()
        return self._hand_over()

    def _keeper_sleep_s(self, *, leads: bool) -> float:
        until_tick_s = max(0.0, self._session.next_tick_s() - time.monotonic())
        return min(until_tick_s, WATCH_S) if self._watching and not leads else until_tick_s

    def _chores(self) -> None:
        """Drop what was dropped, notice the end of the connection, send a heartbeat if one is due."""
        if self._session.ended is not None or self._session.suspended is not None:
            self._go_down()
            return
        now_s = time.monotonic()
        ended = self._dealer.has_ended()
        if ended or now_s >= self._session.next_tick_s():
            self._pump()
            self._finish(self._session.tick(now_s))
            self._pump()
        while self.orphans and self._session.ended is None:
            handle = self.orphans.popleft()
            close = Call(MessageType.CLOSE, handle, handle=handle)
            if not self._wait_for_ring(close):
                self._session.add(close)
            self._pump()
        if ended:
            self._finish(self._session.interrupt(f"the connection to {self._dealer.endpoint} has ended"))
            self._go_down()
        elif self.dropped:
            self._say_goodbye()

    def _ring_chores(self) -> None:
        """Reap for those who wait by other means than wait(), and give up what is late."""
        lane = self._lane
        if lane is None or not lane.pending:
            return
        self._reap_ring()
        if self._lane is lane:  # else the engine has gone
            self._finish(lane.give_up_late(time.monotonic()))

    def _dispose(self) -> None:
        with self.condition:
            self._leader_bell.ring()
            self.condition.wait_for(lambda: self._leader in (None, self._keeper))
            self._run_errands()  # which fail, as every use from now on does
        # Nobody else touches the socket any more: the session has ended and nobody polls.
        if not self._said_goodbye:
            log.warning("session with %s: %s", self._dealer.endpoint, self._session.ended)
        self._callbacks.put(None)
        self._dealer.close(LINGER_MS)
        with self.lock:
            self._leader_bell.close()
            self._keeper_bell.close()
