"""The main loop takes completions that no worker has announced, because the write behind them hangs."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiod.engine.completion import Completion
from tests.patience import scaled


class FakeCore:
    """A core with one request in flight, whose completion comes without an announcement."""

    def __init__(self) -> None:
        self.completion_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.inflight = 1
        self.reaps = 0

    def reap(self) -> tuple[list[Any], ...]:
        """Take nothing; the third time the request has completed."""
        self.reaps += 1
        self.inflight = 0 if self.reaps == 3 else 1
        return [], [], [], [], [], []


async def look(core: FakeCore) -> None:
    def nothing(*_: object) -> None: ...

    over = asyncio.Event()
    completion = Completion(
        core,  # type: ignore[arg-type]
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        nothing,
        lambda: over.set() if core.inflight == 0 else None,
    )
    completion.start()
    completion.look_soon()
    await asyncio.wait_for(over.wait(), scaled(30))
    completion.look_soon()
    completion.stop()


def test_completions_without_an_announcement_are_reaped() -> None:
    core = FakeCore()
    asyncio.run(look(core))
    assert core.reaps == 3
    os.close(core.completion_fd)
