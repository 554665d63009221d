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
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiod_client.dealer import LINGER_MS, Dealer
from aiod_client.errors import AiodError, forked, timed_out
from aiod_client.polling import Bell, milliseconds, poll_of
from aiod_client.requests import Call, Pending, Request
from aiod_client.session import Session
from aiod_client.wire import MessageType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiod_client.handshake import Message, Welcome

log = logging.getLogger("aiod_client")

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

    def __init__(self, dealer: Dealer, welcome: Welcome) -> None:
        """Take over `dealer`, on which the engine has said `welcome`."""
        self.lock = threading.RLock()
        self.condition = threading.Condition(self.lock)  # of all futures: see blocking.RequestFuture
        self.orphans: deque[int] = deque()  # handles of files dropped unclosed; __del__ appends without the lock
        self.dropped = False  # the client was dropped unclosed; __del__ sets it without the lock
        self._pid = os.getpid()
        self._session = Session(welcome, time.monotonic())
        self._dealer = dealer
        self._unsent: deque[Message] = deque()  # what the dealer's full queue refused
        self._parked: dict[threading.Lock, Pending] = {}
        self._leader: threading.Thread | None = None
        self._led_for: Pending | None = None  # what the leader waits for, while it polls
        self._quiet_since_s = 0.0  # when a thread submitted or led last
        self._leader_bell, self._keeper_bell = Bell(), Bell()
        self._leader_poll = poll_of(dealer.fd, self._leader_bell.fd)
        self._callbacks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._caller: threading.Thread | None = None  # runs them
        self._callbacks_wanted = False  # somebody counts on the keeper to lead
        self._watching = False
        self._said_goodbye = False
        self._keeper = threading.Thread(target=self._keep, name="aiod-keeper", daemon=True)
        self._keeper.start()

    @property
    def ended(self) -> OSError | None:
        """Why the session ended, or None."""
        return self._session.ended

    def check_process(self) -> None:
        """Raise AiodError in a child of the process that connected. Before the lock: a fork may have copied it held."""
        if os.getpid() != self._pid:
            raise forked("this client")

    # ---- what threads ask for -------------------------------------------------------------------------------------

    def perform(self, pending: Request | Call, timeout_s: float, what: str) -> Any:
        """Carry out one request or call: its result, or its error raised.

        Raises TimeoutError (`what` names it for people) after `timeout_s`: it is given up then, and cancelled if it was
        sent.
        """
        self.check_process()
        deadline_s = time.monotonic() + timeout_s
        with self.lock:
            self._session.add(pending)
            try:
                self._wait(pending, deadline_s)
            except BaseException as error:
                self._abandon(pending, error)
                raise
            if not pending.done:
                sent = self._abandon(pending, TimeoutError())
                raise timed_out(f"{what}: {pending}", timeout_s, sent=sent)
        return pending.outcome()

    def submit(self, requests: Iterable[Request]) -> None:
        """Queue and send `requests`; their `waiter`s are settled when they are done."""
        self.check_process()
        with self.lock:
            for request in requests:
                self._session.add(request)
            self._pump()
            self._quiet_since_s = time.monotonic()
            if not self._watching and self._session.pending:
                self._watching = True
                self._keeper_bell.ring()

    def wait(self, pending: Pending, timeout_s: float) -> bool:
        """Wait until `pending` is done; False: it is not after `timeout_s`."""
        self.check_process()
        deadline_s = time.monotonic() + timeout_s
        with self.lock:
            self._wait(pending, deadline_s)
            return pending.done

    def abandon(self, pending: Request, error: BaseException) -> None:
        """Give `pending` up with `error`, unless it is done; it is cancelled if it was sent."""
        self.check_process()
        with self.lock:
            self._abandon(pending, error)

    def want_callbacks(self) -> None:
        """A callback is about to be added: the keeper leads as soon as nobody else does."""
        with self.lock:
            if self._caller is None:
                self._caller = threading.Thread(target=self._call_back, name="aiod-callbacks", daemon=True)
                self._caller.start()
            self._callbacks_wanted = True
            if self._leader is None:
                self._keeper_bell.ring()

    def close(self) -> None:
        """Say goodbye, fail what is not done with AiodError (ESHUTDOWN), close the socket. Not in a forked child."""
        if os.getpid() != self._pid:
            return
        with self.lock:
            self._say_goodbye()
            self._keeper_bell.ring()
        if threading.current_thread() is not self._keeper:
            self._keeper.join()

    # ---- under the lock -------------------------------------------------------------------------------------------

    def _pump(self, until: Pending = NOTHING) -> None:
        """Send what may be sent and take what has come, until there is neither, or `until` is done.

        The descriptor tells of new events once, and any use of the socket takes the telling: so whoever polls it next
        pumps first.
        """
        session, dealer = self._session, self._dealer
        try:
            while session.ended is None and not until.done:
                self._unsent += session.messages_to_send(time.monotonic())
                while self._unsent and dealer.send(self._unsent[0]):
                    self._unsent.popleft()
                frames = dealer.receive()
                if frames is None:
                    break
                self._finish(session.receive(frames))
        except BaseException as error:
            # Ctrl-C here leaves the books half kept: better a lost session than one that waits for ever.
            self._finish(session.lose(f"interrupted by {error!r}"))
            raise

    def _finish(self, finished: list[Pending]) -> None:
        for pending in finished:
            if pending.waiter is not None and (callbacks := pending.waiter.settle()) is not None:
                self._callbacks.put(callbacks)
        if not finished:
            return
        for turn in [turn for turn, pending in self._parked.items() if pending.done]:
            del self._parked[turn]
            turn.release()
        if self._led_for is not None and self._led_for.done:
            self._leader_bell.ring()
        if self._session.ended is not None:
            self._keeper_bell.ring()

    def _abandon(self, pending: Request | Call, error: BaseException) -> bool:
        sent = self._session.abandon(pending, error)
        self._finish([pending])
        self._pump()
        return sent

    def _say_goodbye(self) -> None:
        if self._session.ended is not None:
            return
        self._said_goodbye = True
        for message in self._session.goodbye(time.monotonic()):
            self._unsent.append(message)
        while self._unsent and self._dealer.send(self._unsent[0]):
            self._unsent.popleft()
        self._finish(self._session.lose("the client was closed", kind=AiodError, code=errno.ESHUTDOWN))

    def _wait(self, pending: Pending, deadline_s: float) -> None:
        try:
            self._pump(pending)
            while not pending.done and (remaining_s := deadline_s - time.monotonic()) > 0:
                if self._leader is None:
                    self._lead(pending, remaining_s)
                else:
                    self._park(pending, remaining_s)
                self._pump(pending)
        finally:
            self._hand_over()

    def _lead(self, pending: Pending, remaining_s: float) -> None:
        """Poll once. Leading on means to call this again before the lock is let go."""
        self._leader = threading.current_thread()
        self._led_for = pending
        self.lock.release()
        try:
            events = self._leader_poll.poll(milliseconds(remaining_s))
        finally:
            self.lock.acquire()
            self._leader = self._led_for = None
            self._quiet_since_s = time.monotonic()
        if len(events) > 1 or (events and events[0][0] == self._leader_bell.fd):
            self._leader_bell.silence()

    def _park(self, pending: Pending, remaining_s: float) -> None:
        turn = threading.Lock()
        turn.acquire()
        self._parked[turn] = pending
        if self._leader is self._keeper:
            self._keeper_bell.ring()
        self.lock.release()
        try:
            turn.acquire(timeout=min(remaining_s, threading.TIMEOUT_MAX))
        finally:
            self.lock.acquire()
            self._parked.pop(turn, None)

    def _hand_over(self) -> bool:
        """Have a parked thread lead, if nobody does; returns whether one will."""
        if self._leader is not None:
            return False
        if self._parked:
            turn = next(iter(self._parked))
            del self._parked[turn]
            turn.release()
            return True
        if self._session.ended is not None:
            self.condition.notify_all()  # _dispose() waits for the leader to go
        elif self._callbacks_wanted and self._session.pending:
            self._keeper_bell.ring()
        return False

    # ---- the keeper -----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        try:
            self._keep_until_ended()
        except BaseException as error:
            log.exception("the keeper of the session with %s failed", self._dealer.endpoint)
            with self.lock:
                self._finish(self._session.lose(f"the client failed: {error!r}"))
        self._dispose()

    def _keep_until_ended(self) -> None:
        watch = poll_of(self._keeper_bell.fd, self._dealer.monitor_fd)
        lead = poll_of(self._keeper_bell.fd, self._dealer.monitor_fd, self._dealer.fd)
        leads = handed_over = False
        idle_turns = 0
        while True:
            with self.lock:
                self._keeper_bell.silence()
                self._chores()
                if self._session.ended is not None:
                    return
                idle_turns = 0 if self._session.pending else idle_turns + 1
                self._watching = self._watching and idle_turns < WATCH_TURNS
                leads = not handed_over and self._may_keeper_lead(leads=leads)
                if leads:
                    self._pump()
                    self._leader = self._keeper
                timeout_s = self._keeper_sleep_s(leads=leads)
            (lead if leads else watch).poll(milliseconds(timeout_s))
            with self.lock:
                handed_over = leads and self._keeper_led()

    def _call_back(self) -> None:
        while (run := self._callbacks.get()) is not None:
            try:
                run()
            except BaseException:  # SystemExit, say; the rest is logged by concurrent.futures
                log.exception("a callback of the session with %s failed", self._dealer.endpoint)

    def _may_keeper_lead(self, *, leads: bool) -> bool:
        if self._leader is not None or self._parked or self._session.ended is not None:
            return False
        if not self._session.pending:
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
        if self._session.ended is not None:
            return
        now_s = time.monotonic()
        ended = self._dealer.has_ended()
        if ended or now_s >= self._session.next_tick_s():
            self._pump()
            self._finish(self._session.tick(now_s))
            self._pump()
        while self.orphans and self._session.ended is None:
            handle = self.orphans.popleft()
            self._session.add(Call(MessageType.CLOSE, handle, handle=handle))
            self._pump()
        if ended:
            self._finish(self._session.lose(f"the connection to {self._dealer.endpoint} has ended"))
        elif self.dropped:
            self._say_goodbye()

    def _dispose(self) -> None:
        with self.condition:
            self._leader_bell.ring()
            self.condition.wait_for(lambda: self._leader in (None, self._keeper))
        # Nobody else touches the socket any more: the session has ended and nobody polls.
        if not self._said_goodbye:
            log.warning("session with %s: %s", self._dealer.endpoint, self._session.ended)
        self._callbacks.put(None)
        self._dealer.close(LINGER_MS)
        with self.lock:
            self._leader_bell.close()
            self._keeper_bell.close()
