"""The time after an engine has died in which its successor serves only those who were there (as NFSv4's grace period).

Requests without an answer are sent again then, and nothing new is done: so none is repeated over what another client
has had acknowledged since. It ends when all who are known to have been there say that their repeats are done, at the
latest after GRACE_S.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod._core import Core

log = logging.getLogger(__name__)

GRACE_S: Final = 2.0


class Grace:
    """Main loop thread only."""

    def __init__(self, core: Core, clients: dict[bytes, int], over: Callable[[], None], *, unclean: bool) -> None:
        """`clients`: tokens of those who were there, and their pids; `unclean`: there may be more of them.

        `over()` is called at the end, before what was held.
        """
        self._core = core
        self._awaited = {token for token, pid in clients.items() if pid <= 0 or _lives(pid)}
        self._over = over
        self._unclean = unclean
        self._held: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.active = bool(self._awaited) or unclean
        core.takes_repeats = self.active

    def start(self) -> None:
        """Begin to count the time."""
        if self.active:
            log.info("for %g s at most only those who were there are served: %d known", GRACE_S, len(self._awaited))
            self._timer = asyncio.get_running_loop().call_later(GRACE_S, self._end)

    def hold(self, work: Callable[[], None]) -> None:
        """Do `work` when it is over."""
        self._held.append(work)

    def done(self, token: bytes) -> None:
        """That session's repeats are done, or it has ended."""
        self._awaited.discard(token)
        if self.active and not self._awaited and not self._unclean:
            self._end()

    def stop(self) -> None:
        """No more timers."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        if not self.active:
            return
        self.stop()
        self.active = self._core.takes_repeats = False
        if self._awaited:
            log.info("%d of those who were there have not come back", len(self._awaited))
        self._over()
        held, self._held = self._held, []
        for work in held:
            work()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
