"""What hangs: it is told of once, its workers are replaced, and who waits for an open is answered.

Once a second the core is asked; it keeps who is stuck with what (core/pool/active_requests.c).
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiod.engine.active_requests import in_words
from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_LISTED_MAX: Final = 1000
_TOLD_MAX: Final = 100
"""Slow requests told of in one look; the others come with the next one."""
_PERIOD_S: Final = 1.0
_LATE_S: Final = 1.5 * _PERIOD_S
"""How much later than the core ends what is still queued a hanging open is given up."""
_STACK_FRAMES_MAX: Final = 24


class Watch:
    """The look at what is in service. Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        describe: Mapping[str, Callable[[int], tuple[str, str]]],
        give_up: Callable[[float], None],
    ) -> None:
        """`describe`: for open, close and name, client and file of a tag; `give_up(since_s)` answers older opens."""
        self._core = core
        self._describe = describe
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self.slow_requests = 0
        """Since the start."""
        self.apply(settings)

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits from now on."""
        self._settings = settings
        self._core.watch(slow_request_ms=settings.slow_request_ms, stuck_threads_max=settings.stuck_threads_max)

    def start(self) -> None:
        """Begin to look."""
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def requests(self) -> dict[str, Any]:
        """What is in service, the oldest first, at most _LISTED_MAX; and how much waits for a worker."""
        pool = self._core.pool_stats()
        return {
            "queued": pool["queued"] + self._core.open_as_client_waiting,
            "stuck_threads": pool["stuck_threads"],
            "requests": [self._show(request) for request in self._core.active_requests(_LISTED_MAX)],
        }

    def _show(self, request: dict[str, Any]) -> dict[str, Any]:
        tag = request.pop("tag")
        describe = self._describe.get(request["op"])
        if describe is not None:
            request["client"], request["file"] = describe(tag)
        request["state"] = "in service" if request["tid"] else "waits for another's flush"
        return request

    def _look(self) -> None:
        for request in self._core.find_slow(_TOLD_MAX):
            self.slow_requests += 1
            self._tell(self._show(request))
        timeout_s = self._settings.open_timeout_ms / 1000
        if timeout_s:
            self._give_up(time.monotonic() - timeout_s - _LATE_S)
        self.start()

    def _tell(self, request: dict[str, Any]) -> None:
        log.warning(
            "slow: %s; %s",
            in_words(request),
            _where(request["tid"]),
            extra=logs.about(client=request["client"] or None, export=request["file"].partition("/")[0] or None),
        )


def _where(tid: int) -> str:
    """What the kernel does for the worker `tid`, as far as this process may know."""
    if tid == 0:
        return "it waits for another's flush of the file"
    stack = _read(tid, "stack")
    frames = [line.split()[-1].partition("+")[0] for line in stack.splitlines() if line.strip()]
    call = _read(tid, "syscall").split(" ", 1)[0].strip()
    return (
        f"worker {tid} waits in {_read(tid, 'wchan') or 'an unknown place'} (system call {call or 'not readable'}), "
        f"stack: {' < '.join(frames[:_STACK_FRAMES_MAX]) or 'not readable'}"
    )


def _read(tid: int, name: str) -> str:
    """A file of /proc about a thread of this process; "": it may not be read, or the thread has gone."""
    try:
        return Path(f"/proc/self/task/{tid}/{name}").read_text()
    except OSError:
        return ""
