"""Leader and followers: which thread polls the socket of a session, and how the others wait.

The first thread that waits leads: it polls the socket itself, so that a lone blocking read costs no hand-over between
threads. The others park. A leader whose own request is done wakes one parked thread to lead.

- `leader` is the thread that polls; only that thread clears it.
- A thread that has finished a request wakes the thread that waits for it: a parked thread by its lock, the leader by
  its bell.
- The turn to lead goes to the thread that parked last: if that is a signal handler in the midst of a parked thread, the
  handler must be served before the thread that it has interrupted.

The link's lock protects everything here. lead() and park() release it while they wait, and hold it again whatever a
signal's handler raises.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

from aiod_client.connection.polling import AdaptivePoll, Bell

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod_client.blocking.mailbox import Mailbox
    from aiod_client.requests.pending import Pending

T = TypeVar("T")


class Leading:
    """The leader and the parked threads of one session."""

    def __init__(self, lock: threading.RLock, mailbox: Mailbox, fd: int) -> None:
        """`fd` is the socket's; `lock` is the link's."""
        self._lock = lock
        self._is_locked: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001
        self._mailbox = mailbox
        self._left = threading.Condition(lock)
        self._awaited = False  # a thread is in wait_until_left()
        self.leader: threading.Thread | None = None
        self.led_for: Pending | None = None
        """The request that the leader waits for, while it polls."""
        self.parked: dict[threading.Lock, Pending] = {}
        self.last_use_s = 0.0
        """When a thread submitted or led last."""
        self.interruption: BaseException | None = None
        """What a signal's handler has raised in a thread that waited."""
        self.bell = Bell()
        self.poll_socket(fd)

    def poll_socket(self, fd: int) -> None:
        """Poll the socket of `fd` from now on. No thread leads now."""
        self.poll = AdaptivePoll(fd, self.bell.fd)

    def is_leader(self) -> bool:
        """Whether the calling thread leads: then a finalizer or handler has interrupted it."""
        leader = self.leader
        return leader is not None and leader is threading.current_thread()

    def lead(self, pending: Pending, remaining_s: float, *, alone: bool) -> None:
        """Poll once. A thread that leads on calls this again before it releases the lock."""
        try:
            self.leader = threading.current_thread()
            self.led_for = pending
            events = self._without_lock(lambda: self.poll.wait(remaining_s, alone=alone))
        finally:
            self.leader = self.led_for = None
            self.last_use_s = time.monotonic()
            self.notify_left()
        if len(events) > 1 or (events and events[0][0] == self.bell.fd):
            self.bell.silence()

    def park(self, pending: Pending, remaining_s: float) -> None:
        """Wait until `pending` is done, or it is this thread's turn to lead."""
        turn = threading.Lock()
        turn.acquire()
        self.parked[turn] = pending
        try:
            if self.leader is self._mailbox.thread:
                self._mailbox.ring()
            self._without_lock(lambda: turn.acquire(timeout=min(remaining_s, threading.TIMEOUT_MAX)))
        finally:
            self.parked.pop(turn, None)

    def _without_lock(self, wait: Callable[[], T]) -> T:
        """The result of `wait`, with the lock released meanwhile, and held again whatever a signal's handler raises."""
        try:
            self._lock.release()
            return wait()
        except BaseException as error:
            self.interruption = error
            raise
        finally:
            interruption: BaseException | None = None
            while True:
                try:
                    if self._is_locked():
                        break
                    self._lock.acquire()
                except BaseException as error:  # noqa: BLE001 - raised below
                    self.interruption = interruption = error
            if interruption is not None:
                raise interruption

    def wake_one(self) -> bool:
        """Have the thread that parked last lead. False: no thread is parked."""
        if not self.parked:
            return False
        turn, _ = self.parked.popitem()
        turn.release()
        return True

    def wake_done(self) -> None:
        """Wake the threads whose requests are done."""
        for turn in [turn for turn, pending in self.parked.items() if pending.done]:
            del self.parked[turn]
            turn.release()
        if self.led_for is not None and self.led_for.done:
            self.bell.ring()

    def notify_left(self) -> None:
        """Wake the maintenance thread, if it waits for the leader to leave."""
        if self._awaited:
            self._left.notify_all()

    def wait_until_left(self) -> None:
        """Wait until no thread but the maintenance thread, which calls this, polls the socket. The lock is held."""
        self._awaited = True
        self._left.wait_for(lambda: self.leader in (None, self._mailbox.thread))
        self._awaited = False
