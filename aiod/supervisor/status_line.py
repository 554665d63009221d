"""The status line of `systemctl status`: live figures."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

from aiod.supervisor.errors import EngineUnavailableError
from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiod.supervisor.engine import Engine
    from aiod.supervisor.systemd import Notifier

log = logging.getLogger(__name__)

_PERIOD_S: Final = 2.0
_TIMEOUT_S: Final = 1.0


class StatusLine:
    """Number of engines and clients, and their request rate. Main loop thread only."""

    def __init__(self, engines: Mapping[str, Engine], notifier: Notifier) -> None:
        self._engines = engines
        self._notifier = notifier
        self._counted: dict[tuple[str, int], int] = {}  # requests by engine and incarnation
        self._counted_s = time.monotonic()

    async def run(self) -> None:
        """Update it until cancelled; return at once when systemd does not listen."""
        while self._notifier.active:
            await self._update()
            await asyncio.sleep(_PERIOD_S)

    async def _update(self) -> None:
        engines = [engine for engine in self._engines.values() if engine.state == "serving"]
        answers = await asyncio.gather(*(_stats(engine) for engine in engines))
        rate = self._rate(
            {(e.name, e.incarnation): answer for e, answer in zip(engines, answers, strict=True) if answer}
        )
        self._notifier.status("; ".join([self._figures(answers, rate), *self._unavailable()]))

    def _figures(self, answers: Iterable[Any], rate: float) -> str:
        known = [answer for answer in answers if answer]
        clients = sum(answer["sessions"] for answer in known)
        total = len(self._engines)
        serving = f"{len(known)} of {total} engines serve" if len(known) < total else _count(total, "engine")
        return f"{serving}, {_count(clients, 'client')}, {rate:,.0f} requests/s"

    def _rate(self, answers: dict[tuple[str, int], Any]) -> float:
        """Requests per second since the last call."""
        now_s = time.monotonic()
        counted = {key: sum(op["count"] for op in answer["ops"].values()) for key, answer in answers.items()}
        new = sum(count - self._counted.get(key, 0) for key, count in counted.items())
        elapsed_s = now_s - self._counted_s
        self._counted, self._counted_s = counted, now_s
        return new / elapsed_s if elapsed_s > 0 else 0.0

    def _unavailable(self) -> list[str]:
        return [engine.why_unavailable() for engine in self._engines.values() if engine.state != "serving"]


async def _stats(engine: Engine) -> Any:
    try:
        return await engine.ask("stats", _TIMEOUT_S)
    except EngineUnavailableError as error:
        log.debug("%s", error, extra=logs.about(engine=engine.name))
        return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
