"""Snapshots of the engines' counters. Questions at the same time share one, so that no number of them costs more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiod.supervisor.errors import EngineUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiod.supervisor.engine import Engine

log = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S: Final = 2.0


class Snapshots:
    """Main loop thread only."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines
        self._asking: asyncio.Task[dict[str, Any]] | None = None

    async def stats(self) -> dict[str, Any]:
        """Statistics of each engine by its name; None for an engine that does not answer."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(self._answered)
        # One caller may be cancelled while others wait.
        return await asyncio.shield(self._asking)

    def _answered(self, _: asyncio.Task[dict[str, Any]]) -> None:
        self._asking = None

    async def _ask_all(self) -> dict[str, Any]:
        engines = dict(self._engines)  # a reload may change them meanwhile
        answers = await asyncio.gather(*(_ask(engine) for engine in engines.values()))
        return dict(zip(engines, answers, strict=True))


async def _ask(engine: Engine) -> Any:
    try:
        return await engine.ask("stats", _ANSWER_TIMEOUT_S)
    except EngineUnavailableError as error:
        log.warning("%s", error)
        return None
