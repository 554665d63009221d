"""Waiting for descriptors: eventfds that wake a poll(), poll objects, adaptive polling."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from typing import Final

POLL_MS_MAX: Final = (1 << 31) - 1

SPIN_MIN_S: Final = 20e-6
SPIN_MAX_S: Final = 200e-6
KNOWN_S: Final = 0.5
"""How long a thread's CPUs and scheduling policy are cached."""


class Bell:
    """An eventfd that a poll() waits for. The link's lock protects it, but for ring() and the poll()."""

    def __init__(self) -> None:
        """Create the eventfd."""
        self.fd = -1  # for __del__(), should there be no descriptor
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Wake the thread that polls it; does nothing after close()."""
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Make it unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        """Close the descriptor of a link that was never used."""
        self.close()


class PollThrottle:
    """Decides which polls to skip after four in a row found nothing: one, then two, up to 1024 (as polling.c).

    Polling itself can keep other threads from answering; without this the window would only grow. For one thread at a
    time.
    """

    _FAILURES_MAX: Final = 4
    _SHIFT_MAX: Final = 10

    def __init__(self) -> None:
        self._failures = 0
        self._skips = 0

    def begin(self) -> bool:
        """Whether to poll this time."""
        if self._skips:
            self._skips -= 1
            return False
        return True

    def end(self, *, found: bool) -> None:
        """Note the result of a poll."""
        self._failures = 0 if found else min(self._failures + 1, self._FAILURES_MAX + self._SHIFT_MAX)
        if self._failures >= self._FAILURES_MAX:
            self._skips = 1 << (self._failures - self._FAILURES_MAX)


class _Known(threading.local):
    """Per thread: the cached result of may_poll(), and until when it is valid."""

    until_s = 0.0
    may_poll = True


_known = _Known()


def may_poll(now_s: float) -> bool:
    """Whether the calling thread may poll: it is no real-time thread, and has several CPUs.

    With one CPU it would keep libzmq's receiving thread from running, wherever the daemon is.
    """
    if now_s >= _known.until_s:
        _known.until_s = now_s + KNOWN_S
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        _known.may_poll = policy not in {os.SCHED_FIFO, os.SCHED_RR} and len(os.sched_getaffinity(0)) > 1
    return _known.may_poll


class AdaptivePoll:
    """Waits for descriptors: polls repeatedly for as long as that pays, and sleeps only then.

    A wake-up costs a lone request more than all of the daemon's work on it: tens of microseconds on another CPU. So a
    thread polls first, for a window that grows while answers come within SPIN_MAX_S, and closes when one does not
    (after KVM's halt polling). Each poll releases the GIL. For one thread at a time.
    """

    def __init__(self, *fds: int) -> None:
        """For `fds` to become readable."""
        self._poll = poll_of(*fds)
        self._throttle = PollThrottle()
        self.window_s = 0.0
        """How long to poll before sleeping (seconds)."""

    def wait(self, timeout_s: float, *, alone: bool) -> list[tuple[int, int]]:
        """The events, as poll() returns them; [] after `timeout_s`. Polls first only if one request is in flight.

        `alone` says that. With more requests latency matters less, and the CPU is better left to the threads that work
        on them.
        """
        if not alone:
            return self._poll.poll(milliseconds(timeout_s))
        poll = self._poll.poll
        began_s = time.monotonic()
        polls = self.window_s > 0 and may_poll(began_s) and self._throttle.begin()
        until_s = began_s + min(self.window_s, timeout_s) if polls else began_s
        while not (events := poll(0)) and time.monotonic() < until_s:
            pass
        if polls:
            self._throttle.end(found=bool(events))
        if not events:
            events = poll(milliseconds(timeout_s))
            self.window_s = next_window_s(self.window_s, time.monotonic() - began_s)
        return events


def next_window_s(window_s: float, waited_s: float) -> float:
    """The next window, after polling for `window_s` found nothing and the answer took `waited_s`."""
    return min(max(2 * window_s, SPIN_MIN_S), SPIN_MAX_S) if waited_s < SPIN_MAX_S else 0.0


def poll_of(*fds: int) -> select.poll:
    """A poll object for `fds` to become readable. For one thread at a time."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return poll


def milliseconds(seconds: float) -> float | None:
    """For poll(): never less than `seconds`; None, which is for ever, for infinity."""
    return None if seconds == math.inf else min(max(0, math.ceil(seconds * 1000)), POLL_MS_MAX)
