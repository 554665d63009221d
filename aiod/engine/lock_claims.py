"""The time after an orderly restart in which clients claim the locks that they had (as the grace period of NFSv4).

An engine that stops in order leaves its clients' pids and their numbers of locks in a file. The next engine of that
name makes new lock requests wait until so many locks have been claimed, and at the latest for CLAIM_S: else a client
that comes back early would take a lock that another client has not released. After the death of an engine nothing new
is executed in its grace period (grace_period.py), so locks need none of their own.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiod.util.processes import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

CLAIM_S: Final = 20.0
"""Longest wait for clients that have locks. They come back at once, but for one of another host that has ended."""


class LockClaims:
    """Main loop thread only."""

    def __init__(self, path: str, over: Callable[[], None]) -> None:
        """`path`: the file in which the engine before left the locks. `over()` is called at the end."""
        self._path = Path(path)
        self._over = over
        self._awaited = self._take()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def awaited(self) -> int:
        """Locks that the earlier engine's clients may claim still."""
        return self._awaited

    def start(self) -> None:
        """Start the timer."""
        if self._awaited:
            log.info("new locks wait for up to %g s: clients of before the restart had %d", CLAIM_S, self._awaited)
            self._timer = asyncio.get_running_loop().call_later(CLAIM_S, self._end)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def claimed(self, count: int) -> None:
        """So many locks were claimed, and are regained or lost."""
        if self._awaited:
            self._awaited = max(0, self._awaited - count)
            if not self._awaited:
                self._end()

    def leave(self, held: dict[int, int]) -> None:
        """Leave the number of locks of each client's process to the next engine: the daemon stops in order.

        A pid of 0 or less is not known.
        """
        try:
            if held:
                self._path.write_text(json.dumps([*held.items()]))
        except OSError as error:
            log.warning("%s: %s: after a restart clients may find their locks taken", self._path, error.strerror)

    def _take(self) -> int:
        try:
            held = json.loads(self._path.read_bytes())
            self._path.unlink()
            return sum(int(locks) for pid, locks in held if pid <= 0 or is_alive(pid))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError) as error:
            log.warning("%s: %s", self._path, error)
        return 0

    def _end(self) -> None:
        self.stop()
        if self._awaited:
            log.info("%d locks of before the restart were not claimed", self._awaited)
        self._awaited = 0
        self._over()
