"""The main loop's part of the worker pool: thread creation, the pool's timer, and the workers' affinity.

This is the only place where a chain of thread creation starts. So every worker descends from the main thread and
inherits its affinity, not that of the thread which submitted the request.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_FOLLOW_PERIOD_S: Final = 0.5


class PoolMaintenance:
    """Serves the spawner's doorbell, the pool's timer, and affinity. Main loop thread only."""

    def __init__(self, settings: EngineSettings, core: Core) -> None:
        """Pin the calling thread, which is the main loop's, when the settings name CPUs."""
        self._core = core
        self._follow = settings.affinity == "follow"
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0  # by the loop's clock: when the timer fires
        self._follow_timer: asyncio.TimerHandle | None = None
        if settings.cpus:
            os.sched_setaffinity(0, settings.cpus)

    def start(self) -> None:
        """Begin to watch the doorbell."""
        asyncio.get_running_loop().add_reader(self._core.doorbell_fd, self._doorbell)
        self._doorbell()
        if self._follow:
            self._follow_mask()

    def stop(self) -> None:
        """Stop watching, and cancel the timers."""
        asyncio.get_running_loop().remove_reader(self._core.doorbell_fd)
        for timer in (self._timer, self._follow_timer):
            if timer is not None:
                timer.cancel()

    def pool_changed(self) -> None:
        """Requests were queued or reaped: arm the timer for when the pool wants it, if not earlier."""
        self._arm(self._core.tick_wanted())

    def _doorbell(self) -> None:
        self._core.spawn()
        self.pool_changed()

    def _tick(self) -> None:
        self._timer = None
        self._arm(self._core.tick())

    def _arm(self, wanted_ms: int) -> None:
        if wanted_ms < 0:
            return
        loop = asyncio.get_running_loop()
        due_s = loop.time() + wanted_ms / 1000
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        self._due_s = due_s
        self._timer = loop.call_at(due_s, self._tick)

    def _follow_mask(self) -> None:
        """Give living workers the main thread's affinity when it has changed (affinity = "follow")."""
        try:
            moved = self._core.follow()
        except OSError as error:
            log.warning("cannot set a worker's affinity: %s", error.strerror)
        else:
            if moved:
                log.info("affinity is %s now: moved %d workers", sorted(os.sched_getaffinity(0)), moved)
        self._follow_timer = asyncio.get_running_loop().call_later(_FOLLOW_PERIOD_S, self._follow_mask)
