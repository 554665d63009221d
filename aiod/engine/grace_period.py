"""The grace period after the start of an engine that replaces a dead one (as in NFSv4).

During the grace period the sessions of the previous engine resume, and send again their requests that had no answer.
Nothing new is executed: so no repeated request overwrites what another client has written and had acknowledged since.
The period ends when every known session has finished its replay, and at the latest after GRACE_S.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiod.util.processes import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core

log = logging.getLogger(__name__)

GRACE_S: Final = 2.0


class GracePeriod:
    """Main loop thread only."""

    def __init__(self, core: Core, clients: dict[bytes, int], over: Callable[[], None], *, unclean: bool) -> None:
        """`clients`: tokens of the previous engine's sessions, and their clients' pids.

        `unclean`: there may be sessions that are not known, since the previous daemon did not stop in order. `over()`
        is called at the end, before the work that was held.
        """
        self._core = core
        self._awaited = {token for token, pid in clients.items() if pid <= 0 or is_alive(pid)}
        self._over = over
        self.unclean = unclean
        self._held: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.active = bool(self._awaited) or unclean
        core.takes_repeats = self.active

    def start(self) -> None:
        """Start the timer."""
        if self.active:
            log.info(
                "grace period: for up to %g s only resumed sessions are accepted (%d known)",
                GRACE_S,
                len(self._awaited),
            )
            self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._end)

    def hold(self, work: Callable[[], None]) -> None:
        """Do `work` when the period is over."""
        self._held.append(work)

    def done(self, token: bytes) -> None:
        """The session has finished its replay, or has ended."""
        self._awaited.discard(token)
        if self.active and not self._awaited and not self.unclean:
            self._end()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        if not self.active:
            return
        self.stop()
        self.active = self._core.takes_repeats = False
        if self._awaited:
            log.info("%d sessions did not reconnect", len(self._awaited))
        self._over()
        held, self._held = self._held, []
        for work in held:
            work()
