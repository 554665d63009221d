"""A session and its connection, shared by threads: everything that needs the lock.

A thread uses the socket and the session under `lock` only; the poll() of the leader itself needs no lock (leading.py).

Finalizers and signal handlers may run during any method here, in the same thread, and may use this very client. `lock`
does not exclude them: it has to be reentrant, because concurrent.futures takes the conditions of many futures at once,
and all futures of a link share one. So:

- A public method that uses the session or the socket first asks whether its thread has the lock already (`is_locked`).
  If so, the session's tables may be half updated and the socket in mid-message, and the method touches neither.
  submit(), abandon(), close() and the CLOSE of a file leave a deferred call for the maintenance thread; perform() and
  wait(), which would have to wait, raise EDEADLK. want_callbacks() uses neither session nor socket.
- A leading thread has released the lock. A finalizer or handler that interrupts its poll() may do anything but wait:
  EDEADLK again, as no other thread would lead meanwhile. One that interrupts a parked thread may wait, too.
- An exception that a handler raises while its thread waits without the lock ends that thread's own request only. One
  that it raises under the lock may come in mid-message, with the tables half updated. Then repair() gives the
  connection up, and the session continues over another one, as after the engine's death; but the engine has lost
  nothing that it had acknowledged. So everything under the lock runs in a `try` that leads to repair(); not so in the
  maintenance thread, as no handler runs there.
- concurrent.futures.wait() and as_completed() wait without asking the link: nothing catches them in such a place.
"""

from __future__ import annotations

import errno
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from aiod_client.blocking.callbacks import Callbacks
from aiod_client.blocking.leading import Leading
from aiod_client.blocking.mailbox import Mailbox
from aiod_client.errors import AiodError, cancelled
from aiod_client.requests.batch_steps import settle_futures
from aiod_client.requests.pending import Call, Pending, Request
from aiod_client.ring.routed_session import RoutedSession
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client._ring import Ring
    from aiod_client.connection.dealer import Dealer
    from aiod_client.connection.reconnect import EngineConnection
    from aiod_client.session.handshake import Message, Welcome

WATCH_S: Final = 0.005
"""The maintenance thread leads when requests are in flight and no thread has submitted or led for so long."""

NOTHING: Final = Call(MessageType.HEARTBEAT)
"""Never done."""


class SharedSession(RoutedSession):
    """A session and its connection under one lock. Methods without a word about the lock are called with it held."""

    def __init__(self, dealer: Dealer, welcome: Welcome, ring: Ring | None, *, resumable: bool) -> None:
        """Take over `dealer`, on which the engine has said `welcome`, and the session's `ring`."""
        super().__init__(welcome, time.monotonic(), ring, resumable=resumable, watches_deadlines=True)
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)
        """The condition of all futures: see RequestFuture."""
        self.is_locked: Callable[[], bool] = self.lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        """Whether the calling thread has the lock: then a finalizer or handler has interrupted it."""
        self.mailbox = Mailbox()
        self.leading = Leading(self.lock, self.mailbox, dealer.fd)
        self.callbacks = Callbacks(dealer.endpoint)
        self.dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._unpumped = False  # the ring transport has given something to the session
        self.is_down = False
        """The session is suspended, and no thread uses the socket."""
        self.broken_off = False
        """The connection was given up in mid-message, maybe."""
        self.said_goodbye = False

    @property
    def endpoint(self) -> str:
        """The endpoint of the engine."""
        return self.dealer.endpoint

    # ---- requests ---------------------------------------------------------------------------------------------------

    def add_all(self, requests: list[Request]) -> None:
        """Queue `requests`, each by the transport that carries it. What goes by the ring is submitted at once."""
        by_message = requests
        if self.transport is not None:
            now_s = time.monotonic()
            by_message = []
            for request in requests:
                if self.transport.carries(request):
                    self.transport.add(request, now_s)
                else:
                    by_message.append(request)
        self.session.add_requests(by_message)
        for request in by_message:
            if request.deadline_s != math.inf:
                self.session.watch_deadline(request)
        if self.move_overflow():
            self._unpumped = True

    def add_call(self, call: Call) -> None:
        """Queue `call`; a CLOSE or UNLOCK only when the ring has nothing in flight on its handle."""

        def add_late() -> None:
            if call.done and call.kind != MessageType.UNLOCK:
                return
            try:
                self.session.add(call)
                self._unpumped = True
            except OSError as error:  # the session has ended
                call.fail(error)
                self.finish([call])

        if call.kind in (MessageType.CLOSE, MessageType.UNLOCK):
            self.reap_ring()
            if self.waits_for_ring(call, add_late):
                self.watch()
                return
        self.session.add(call)

    def submit_late(self, requests: list[Request]) -> None:
        """Submit what a finalizer or handler has left. The maintenance thread only."""
        for request in requests:
            if request.done:  # cancelled meanwhile
                continue
            try:
                self.add_all([request])
            except OSError as error:
                request.fail(error)
                self.finish([request])
        self.pump()
        self.watch()

    def abandon_locked(self, pending: Request | Call, error: BaseException) -> bool:
        """Give `pending` up with `error`, unless it is done; returns whether it had been sent."""
        by_ring = isinstance(pending, Request) and pending.by_ring and self.transport is not None
        sent = self.give_up(pending, error)
        self.finish([pending])
        if not by_ring:
            self.pump()
            if isinstance(pending, Call):  # a CLOSE may still be to be sent, and no thread waits for it
                self.watch()
        return sent

    def send_cancel(self, request: Request) -> None:
        """Have `request` ended, without waiting for the daemon's answer."""
        if request.done:
            return
        request.cancelling = True
        in_ring = self.in_ring(request)
        if in_ring is not None:
            in_ring.cancel(0)
        elif request.sent:
            self.session.cancel(request)
            self.pump()
        else:
            self.abandon_locked(request, cancelled(str(request)))

    # ---- the socket and the ring ------------------------------------------------------------------------------------

    def pump(self, until: Pending = NOTHING) -> None:
        """Send what may be sent and take what has come, until there is neither, or `until` is done.

        ZMQ_FD is edge-triggered: any call on the socket may consume the edge. So a thread pumps before it polls.
        """
        session, dealer = self.session, self.dealer
        while session.ended is None and session.suspended is None and not until.done:
            self._unsent += session.messages_to_send(time.monotonic())
            self.finish(session.take_failed())
            while self._unsent and dealer.send(self._unsent[0]):
                self._unsent.popleft()
            frames = dealer.receive()
            if frames is None:
                break
            self.finish(session.receive(frames))
        if session.suspended is not None:
            self.go_down()
        elif self._next_ring is not None:
            self.use_next_ring()
        if session.held_until_s + WATCH_S < self.mailbox.sleeps_until_s:
            self.watch()

    def reap_ring(self) -> None:
        """Take what the ring has done."""
        transport = self.transport
        if transport is None:
            return
        self.finish(transport.reap(time.monotonic()))
        if self.move_overflow():
            self._unpumped = True
        if (transport.ended is not None or transport.ring.ended) and self.session.ended is None:
            self.finish(self.lose_ring())
            self.go_down()
        if self._unpumped:
            self._unpumped = False
            self.pump()

    def leave_ended_ring(self) -> None:
        """Suspend or end the session if its ring has ended: the engine has gone, and a message would be lost."""
        if self.session.ended is None and self.transport is not None and self.transport.ring.ended:
            self.reap_ring()

    def finish(self, finished: list[Pending]) -> None:
        """Settle the futures of `finished`, and wake the threads that wait for them."""
        if self.transport is not None and self.transport.ended is None and self.session.ended is not None:
            finished = finished + self.transport.lose(self.session.ended)
        if not finished:
            return
        for pending in finished[settle_futures(finished) :]:
            if pending.waiter is not None and (callbacks := pending.waiter.settle()) is not None:
                self.callbacks.run(callbacks)
        self.leading.wake_done()
        if self.session.ended is not None:
            self.mailbox.ring()

    def watch(self) -> None:
        """Have the maintenance thread look after what no thread may be waiting for, if there is anything."""
        if self.pending:
            self.mailbox.watch()

    # ---- waiting ----------------------------------------------------------------------------------------------------

    def wait_locked(self, pending: Pending, deadline_s: float) -> None:
        """Wait until `pending` is done, or until `deadline_s` (monotonic). Releases the lock meanwhile."""
        leading = self.leading
        try:
            self.pump(pending)
            while not pending.done and (remaining_s := deadline_s - time.monotonic()) > 0:
                if leading.leader is None and self.session.suspended is None:
                    leading.lead(pending, remaining_s, alone=self.session.pending == 1)
                else:
                    leading.park(pending, remaining_s)
                self.pump(pending)
        finally:
            self.hand_over()

    def hand_over(self) -> bool:
        """Have a parked thread lead, if no thread does; returns whether one will."""
        if self.leading.leader is not None:
            return False
        if self.leading.wake_one():
            return True
        self.leading.notify_left()
        if self.session.ended is None and self.mailbox.callbacks_wanted and self.pending:
            self.mailbox.ring()
        return False

    # ---- the end of a connection ------------------------------------------------------------------------------------

    def repair(self, error: BaseException) -> None:
        """Give the connection up if a signal's handler has raised `error` under the lock: anything may be half done.

        The connection may be in mid-message. The session continues over another, of the same engine, with what its
        tables say was asked and not answered. Nothing is done where the session itself said no, nor where the handler
        ran while its thread waited without the lock, as it mostly does.
        """
        interruption, self.leading.interruption = self.leading.interruption, None
        if error is interruption or getattr(error, "not_sent", False):
            return
        session = self.session
        self.broken_off = True
        by_ring = [] if self.transport is None else self.transport.finished
        self.finish([*session.finished, *by_ring, *session.take_failed()])
        self.finish(session.interrupt(f"interrupted by {error!r}"))
        self.go_down()
        self.mailbox.ring()

    def go_down(self) -> None:
        """If the session is suspended: send nothing any more, and have what the ring had wait with the rest."""
        if self.session.suspended is None or self.is_down:
            return
        self.is_down = True
        self._unsent.clear()
        self.finish(self.take_back_from_ring())
        self.leading.bell.ring()
        self.mailbox.ring()

    def go_up(self, connection: EngineConnection) -> None:
        """Continue with the engine of `connection`."""
        self.dealer = connection.dealer
        self.leading.poll_socket(connection.dealer.fd)
        self.is_down = False
        moved = connection.moved is not None
        self.finish(self.resume(connection.welcome, connection.ring, connection.lost, time.monotonic(), moved=moved))

    def say_goodbye(self) -> None:
        """End the session, if it has not ended: the engine is told, and what is not done fails (ESHUTDOWN)."""
        if self.session.ended is not None:
            return
        self.said_goodbye = True
        if self.session.suspended is None:
            self._unsent.extend(self.session.goodbye(time.monotonic()))
            while self._unsent and self.dealer.send(self._unsent[0]):
                self._unsent.popleft()
        self.finish(self.session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN))
