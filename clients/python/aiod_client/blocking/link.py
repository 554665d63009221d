"""What threads ask of a session: requests performed, submitted, waited for, cancelled.

The first thread that waits leads (leading.py); what needs the lock, and what interrupts a thread that has it, is in
shared_session.py; what continues while no thread waits is in maintenance.py.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from aiod_client.blocking.maintenance import Maintenance
from aiod_client.blocking.shared_session import SharedSession
from aiod_client.errors import deadline_passed, forked, reentered, timed_out
from aiod_client.requests.pending import GRACE_S, Call, Pending, Request
from aiod_client.requests.timeouts import seconds
from aiod_protocol.operations import OpFlag, changes_file
from aiod_protocol.wire import MessageType

if TYPE_CHECKING:
    from aiod_client._ring import Ring
    from aiod_client.connection.dealer import Dealer
    from aiod_client.connection.reconnect import Reconnect
    from aiod_client.session.handshake import Welcome
    from aiod_client.session.open_files import OpenFile


def runs_event_loop() -> bool:
    """Whether the calling thread runs an asyncio event loop. It does not import asyncio, which costs megabytes."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None  # noqa: SLF001


class Link(SharedSession):
    """A session, its connection, and the threads that wait on it. Any thread may use the methods here."""

    def __init__(
        self, dealer: Dealer, welcome: Welcome, ring: Ring | None = None, reconnect: Reconnect | None = None
    ) -> None:
        """Take over `dealer`, on which the engine has said `welcome`, and the session's `ring`. begin() comes next.

        `reconnect` finds the next engine when this one has gone; None: the session ends with its engine.
        """
        super().__init__(dealer, welcome, ring, resumable=reconnect is not None and reconnect.timeout_s > 0)
        self._pid = os.getpid()
        self.maintenance = Maintenance(self, reconnect)
        self.begin = self.maintenance.start
        """Start the maintenance. Idempotent; only once the link is where close() finds it: it keeps its link alive."""

    def check_process(self) -> None:
        """Raise AiodError in a child of the process that connected. Before the lock: a fork may have copied it held."""
        if os.getpid() != self._pid:
            raise forked("this client")

    # ---- one request ------------------------------------------------------------------------------------------------

    def perform(self, pending: Request | Call, timeout_s: float, what: str) -> Any:
        """Carry out one request or call: its result, or its error raised. Its caller has checked the process.

        Raises TimeoutError (`what` names the file in its message) after `timeout_s`: it is given up then, and cancelled
        if it was sent; AiodError (EDEADLK) in a finalizer or signal handler that has interrupted this thread's use of
        the link, but a CLOSE is left to the maintenance thread.
        """
        if self.is_locked() or (self.leading.leader is not None and self.leading.is_leader()):
            if not isinstance(pending, Call) or pending.kind != MessageType.CLOSE:
                raise reentered(f"{what}: {pending}")
            self.mailbox.orphans.append(self.noted(pending.handle))
            self.mailbox.ring()
            return None
        timeout_s = seconds(timeout_s)
        deadline_s = time.monotonic() + timeout_s
        if isinstance(pending, Request):
            if timeout_s <= 0:
                raise deadline_passed(f"{what}: {pending}", sent=pending.sent)
            pending.deadline_s = deadline_s
            if self.transport is not None and self.transport.carries(pending):
                return self._perform_by_ring(pending, timeout_s, what)
        with self.lock:
            try:
                if isinstance(pending, Request):
                    self.session.add(pending)
                else:
                    self.leave_ended_ring()
                    self.add_call(pending)
                self.wait_locked(pending, deadline_s)
                if not pending.done and isinstance(pending, Request) and pending.sent:
                    self.wait_locked(pending, deadline_s + GRACE_S)
            except BaseException as error:
                self.repair(error)
                self.abandon_locked(pending, error)
                raise
            if not pending.done:
                sent = self.abandon_locked(pending, TimeoutError())
                raise timed_out(f"{what}: {pending}", timeout_s, sent=sent, written=pending.written)
        return pending.outcome()

    def _perform_by_ring(self, request: Request, timeout_s: float, what: str) -> Any:
        try:
            with self.lock:
                try:
                    self.add_all([request])
                except BaseException as error:
                    self.repair(error)
                    raise
            done = self._wait_by_ring(request, request.deadline_s + GRACE_S)
        except BaseException as error:
            self.abandon(request, error)
            raise
        if not done:
            with self.lock:
                sent = self.abandon_locked(request, TimeoutError())
            raise timed_out(f"{what}: {request}", timeout_s, sent=sent, written=request.written)
        return request.outcome()

    def _wait_by_ring(self, request: Request, deadline_s: float) -> bool:
        """Wait until `request`, which the ring transport has, is done. Whoever waits reaps for all."""
        while True:
            ring = self.ring
            seen = ring.done_count if ring is not None else 0  # before the look: what others settle after it is counted
            with self.lock:
                try:
                    self.reap_ring()
                    if request.done:
                        return True
                    if not request.by_ring or ring is None:  # the ring had no room for it, or has gone
                        self.wait_locked(request, deadline_s)
                        return request.done
                except BaseException as error:
                    self.repair(error)
                    raise
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                return False
            ring.wait(seen, remaining_s)

    def continues_without_ring(self, request: Request) -> bool:
        """Whether another engine may be asked for `request`, on which the ring has ended: it will be by perform()."""
        with self.lock:
            try:
                self.leave_ended_ring()
            except BaseException as error:
                self.repair(error)
                raise
            if not self.session.resumable or self.session.ended is not None:
                return False
            if request.sent and changes_file(request.op):
                request.flags |= OpFlag.REPEAT
            return True

    # ---- submitted requests -----------------------------------------------------------------------------------------

    def submit(self, requests: list[Request]) -> None:
        """Queue and send `requests`; their `waiter`s are settled when they are done. As perform(), but never waits."""
        if self.is_locked() and self.session.ended is None:
            self.mailbox.defer(functools.partial(self.submit_late, requests))
            return
        with self.lock:
            try:
                self.add_all(requests)
                self.pump()
                self.leading.last_use_s = time.monotonic()
                if not self.mailbox.watching:
                    self.watch()
            except BaseException as error:
                self.repair(error)
                raise

    def wait(self, pending: Pending, timeout_s: float) -> bool:
        """Wait until `pending` is done; False: it is not after `timeout_s`. Raises AiodError (EDEADLK) as perform()."""
        self.check_process()
        if self.is_locked() or (self.leading.is_leader() and not pending.done):
            raise reentered(f"waiting for {pending}")
        deadline_s = time.monotonic() + timeout_s
        if isinstance(pending, Request) and pending.by_ring:
            return self._wait_by_ring(pending, deadline_s)
        with self.lock:
            try:
                self.wait_locked(pending, deadline_s)
            except BaseException as error:
                self.repair(error)
                raise
            return pending.done

    def cancel(self, request: Request, timeout_s: float) -> bool:
        """Have `request` ended if it has not been started: True, it will never be executed. Its waiter is settled then.

        The daemon is asked about a request that was sent, for at most `timeout_s`. In a finalizer or signal handler
        that has interrupted this thread's use of the link, and in a thread that runs an event loop (asyncio.wrap_future
        cancels there), this does not wait: False, and the daemon is asked nevertheless.
        """
        self.check_process()
        if self.is_locked() or self.leading.is_leader():
            self.mailbox.defer(functools.partial(self.send_cancel, request))
            return False
        with self.lock:
            if request.done or (request.split is not None and request.sent):
                return False
            request.cancelling = True
            if not request.sent or runs_event_loop():
                try:
                    self.send_cancel(request)
                except BaseException as error:
                    self.repair(error)
                    raise
                return request.cancelled
            in_ring = self.in_ring(request)
        if in_ring is not None:
            return in_ring.cancel(timeout_s) == 1 and self.wait(request, timeout_s) and request.cancelled
        call = Call(MessageType.CANCEL, [request.cookie])
        try:
            ended, _ = self.perform(call, timeout_s, f"cancel {request}")
            return bool(ended) and self.wait(request, timeout_s) and request.cancelled
        except OSError:
            return False

    def abandon(self, pending: Request, error: BaseException) -> None:
        """Give `pending` up with `error`, unless it is done; it is cancelled if it was sent."""
        self.check_process()
        if self.is_locked():
            self.mailbox.defer(functools.partial(self.abandon_locked, pending, error))
            return
        with self.lock:
            try:
                self.abandon_locked(pending, error)
            except BaseException as interruption:
                self.repair(interruption)
                raise

    def want_callbacks(self) -> None:
        """A callback is about to be added: the maintenance thread leads as soon as no other thread does."""
        with self.lock:
            self.callbacks.begin()
            self.mailbox.callbacks_wanted = True
            if self.leading.leader is None:
                self.mailbox.ring()

    # ---- the end ----------------------------------------------------------------------------------------------------

    def close_file_later(self, handle: int, opened: OpenFile | None = None) -> None:
        """Have a dropped file's `handle` closed. Takes no lock: a finalizer may call it in the midst of anything."""
        self.mailbox.orphans.append(self.noted(handle, opened))

    def send_later(self, call: Call) -> None:
        """Have an UNLOCK sent whose answer nothing waits for. Takes no lock, as close_file_later()."""
        self.mailbox.unlocks.append(call)

    def close_later(self) -> None:
        """Have the session of a dropped client closed. Takes no lock, as close_file_later()."""
        self.mailbox.dropped = True

    def close(self) -> None:
        """Say goodbye, fail what is not done with AiodError (ESHUTDOWN), close the socket. Not in a forked child.

        In a finalizer or signal handler that has interrupted this thread's use of the link the maintenance thread does
        it, soon.
        """
        if os.getpid() != self._pid:
            return
        if self.is_locked():
            self.mailbox.dropped = True
            self.mailbox.ring()
            return
        with self.lock:
            try:
                self.say_goodbye()
            except BaseException as error:
                self.mailbox.dropped = True  # the maintenance thread says goodbye
                self.repair(error)
                raise
            finally:
                self.mailbox.ring()
        self.maintenance.end()
