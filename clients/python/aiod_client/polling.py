"""Waiting for descriptors: bells to be woken by, poll objects, milliseconds."""

from __future__ import annotations

import contextlib
import math
import os
import select
from typing import Final

POLL_MS_MAX: Final = (1 << 31) - 1


class Bell:
    """An eventfd that a poll() can wait for. Protected by the link's lock but for being polled."""

    def __init__(self) -> None:
        """Make it."""
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        """Wake who polls it; nothing after close()."""
        if self.fd >= 0:
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Take the ringing back."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        fd, self.fd = self.fd, -1
        os.close(fd)


def poll_of(*fds: int) -> select.poll:
    """A poll object for `fds` to become readable. For one thread at a time."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return poll


def milliseconds(seconds: float) -> float | None:
    """For poll(): never less than `seconds`; None, which is for ever, for infinity."""
    return None if seconds == math.inf else min(max(0, math.ceil(seconds * 1000)), POLL_MS_MAX)
