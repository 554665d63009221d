"""Health check: an engine whose main loop is stuck is killed, and so replaced.

Each round also notifies systemd's watchdog, so systemd restarts a supervisor whose loop does not run, or that no longer
checks its engines. An engine stuck in uninterruptible sleep does not trip the watchdog; the other engines continue.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from aiod.supervisor.engine import START_TIMEOUT_S
from aiod.supervisor.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiod.supervisor.engine import Engine
    from aiod.supervisor.systemd import Notifier

_PERIOD_MAX_S: Final = 1.0
_PERIOD_MIN_S: Final = 0.05
_ASKED_MIN: Final = 3
"""At least so many pings in a row stay unanswered: a single one may be late because the supervisor was stopped."""


class Health:
    """Main loop thread only."""

    def __init__(self, engines: Mapping[str, Engine], watchdog_s: Callable[[], float], notifier: Notifier) -> None:
        """`watchdog_s()`: longest silence of an engine (seconds); 0: no limit."""
        self._engines = engines
        self._watchdog_s = watchdog_s
        self._notifier = notifier
        self._unanswered: dict[str, int] = {}

    async def run(self) -> None:
        """Check the engines until cancelled."""
        while True:
            began_s = time.monotonic()
            period_s = self._period_s()
            await asyncio.gather(*(self._check(engine, period_s) for engine in list(self._engines.values())))
            self._notifier.alive()
            await asyncio.sleep(max(0.0, began_s + period_s - time.monotonic()))

    def _period_s(self) -> float:
        limits = [_PERIOD_MAX_S, *(limit_s / _ASKED_MIN for limit_s in (self._watchdog_s(), self._notifier.watchdog_s))]
        return max(_PERIOD_MIN_S, min(limit_s for limit_s in limits if limit_s > 0))

    async def _check(self, engine: Engine, period_s: float) -> None:
        """Ping the engine; kill it when it has not answered for too long."""
        limit_s = self._watchdog_s()
        if engine.state != "serving" or limit_s == 0:
            self._unanswered.pop(engine.name, None)
            if engine.state == "starting" and limit_s > 0 and engine.age_s > max(limit_s, START_TIMEOUT_S):
                engine.end_stuck(engine.age_s)
            return
        incarnation = engine.incarnation
        try:
            await engine.ask("ping", period_s)
        except EngineUnavailableError:
            unanswered = self._unanswered.get(engine.name, 0) + 1
        else:
            unanswered = 0
        if engine.incarnation != incarnation or engine.state != "serving":
            return  # it ended meanwhile, and is being restarted
        self._unanswered[engine.name] = unanswered
        if unanswered >= max(_ASKED_MIN, math.ceil(limit_s / period_s)):
            self._unanswered.pop(engine.name)
            engine.end_stuck(limit_s)
