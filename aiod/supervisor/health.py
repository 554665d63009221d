"""Whether the engines answer: a main loop that is stuck has its engine killed, so that it is replaced.

The rounds of this watch are also what the watchdog of systemd hears: a supervisor whose loop does not run, or that
looks after its engines no more, is restarted. An engine that cannot die inside the kernel has been dealt with: the
others go on.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

from aiod.supervisor.engines import START_TIMEOUT_S, EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiod.supervisor.engines import Engine
    from aiod.supervisor.systemd import Notifier

_PERIOD_MAX_S: Final = 1.0
_PERIOD_MIN_S: Final = 0.05
_ASKED_MIN: Final = 3
"""Questions in a row that are not answered, at least: one alone may be our own fault, who had been stopped."""


class Health:
    """The watch over the engines. Main loop thread only."""

    def __init__(self, engines: Mapping[str, Engine], watchdog_s: Callable[[], float], notifier: Notifier) -> None:
        """`watchdog_s()`: how long an engine may be silent (seconds); 0: for ever."""
        self._engines = engines
        self._watchdog_s = watchdog_s
        self._notifier = notifier
        self._unanswered: dict[str, int] = {}

    async def run(self) -> None:
        """Look after the engines until cancelled."""
        while True:
            began_s = time.monotonic()
            period_s = self._period_s()
            await asyncio.gather(*(self._look(engine, period_s) for engine in list(self._engines.values())))
            self._notifier.alive()
            await asyncio.sleep(max(0.0, began_s + period_s - time.monotonic()))

    def _period_s(self) -> float:
        limits = [_PERIOD_MAX_S, *(limit_s / _ASKED_MIN for limit_s in (self._watchdog_s(), self._notifier.watchdog_s))]
        return max(_PERIOD_MIN_S, min(limit_s for limit_s in limits if limit_s > 0))

    async def _look(self, engine: Engine, period_s: float) -> None:
        """Ask it whether it is there; end it when it has not answered for too long."""
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
            return  # it ended meanwhile, and is seen to already
        self._unanswered[engine.name] = unanswered
        if unanswered >= max(_ASKED_MIN, math.ceil(limit_s / period_s)):
            self._unanswered.pop(engine.name)
            engine.end_stuck(limit_s)
