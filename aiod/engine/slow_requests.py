"""Logs each slow request once, has its worker replaced, and times out opens that hang.

Once a second it asks the core, which keeps the list of active requests (core/pool/active_requests.c).
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiod.engine.active_requests import describe_request
from aiod.util import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiod._core import Core
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_LISTED_MAX: Final = 1000
_LOGGED_MAX: Final = 100
"""Most slow requests logged in one round; the next round logs the others."""
_PERIOD_S: Final = 1.0
_TIMEOUT_MARGIN_S: Final = 1.5 * _PERIOD_S
"""A hanging open is timed out so much later than a queued one, which the core ends itself."""
_STACK_FRAMES_MAX: Final = 24


class SlowRequestWatch:
    """Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        core: Core,
        describe: Mapping[str, Callable[[int], tuple[str, str]]],
        time_out: Callable[[float], None],
    ) -> None:
        """`describe`: for open, close and name the function that tells client and file of a tag.

        `time_out(since_s)` answers the opens and directory operations that have hung since then.
        """
        self._core = core
        self._describe = describe
        self._time_out = time_out
        self._timer: asyncio.TimerHandle | None = None
        self.count = 0
        """Number of slow requests since the start."""
        self.apply(settings)

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits from now on."""
        self._settings = settings
        self._core.watch(slow_request_ms=settings.slow_request_ms, stuck_threads_max=settings.stuck_threads_max)

    def start(self) -> None:
        """Start the timer."""
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._check)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def requests(self) -> dict[str, Any]:
        """The active requests, oldest first, at most _LISTED_MAX, and the number of queued ones."""
        pool = self._core.pool_stats()
        return {
            "queued": pool["queued"] + self._core.open_as_client_waiting,
            "stuck_threads": pool["stuck_threads"],
            "requests": [self._show(request) for request in self._core.active_requests(_LISTED_MAX)],
        }

    def _show(self, request: dict[str, Any]) -> dict[str, Any]:
        tag = request.pop("tag")
        describe = self._describe.get(request["op"])
        if describe is not None and tag:  # a request by ring has none: its handle tells client and export
            request["client"], request["file"] = describe(tag)
        request["state"] = _state(request["tid"], started=request.pop("started"))
        return request

    def _check(self) -> None:
        for request in self._core.find_slow(_LOGGED_MAX):
            self.count += 1
            self._log(self._show(request))
        timeout_s = self._settings.open_timeout_ms / 1000
        if timeout_s:
            self._time_out(time.monotonic() - timeout_s - _TIMEOUT_MARGIN_S)
        self.start()

    def _log(self, request: dict[str, Any]) -> None:
        log.warning(
            "slow: %s; %s",
            describe_request(request),
            _where(request),
            extra=logs.about(client=request["client"] or None, export=request["file"].partition("/")[0] or None),
        )


_BY_URING: Final = "in io_uring"


def _state(tid: int, *, started: bool) -> str:
    if started:
        return _BY_URING
    return "in service" if tid else "waits for another's flush"


def _where(request: Mapping[str, Any]) -> str:
    """Where the request's worker waits in the kernel, as far as this process may read it."""
    tid = request["tid"]
    if request["state"] == _BY_URING:
        return "it was started by io_uring: no thread waits for it"
    if tid == 0:
        return "it waits for another request's flush of the file"
    stack = _read(tid, "stack")
    frames = [line.split()[-1].partition("+")[0] for line in stack.splitlines() if line.strip()]
    call = _read(tid, "syscall").split(" ", 1)[0].strip()
    return (
        f"worker {tid} waits in {_read(tid, 'wchan') or 'an unknown place'} (system call {call or 'not readable'}), "
        f"stack: {' < '.join(frames[:_STACK_FRAMES_MAX]) or 'not readable'}"
    )


def _read(tid: int, name: str) -> str:
    """A file of /proc about a thread of this process; "": it is not readable, or the thread has exited."""
    try:
        return Path(f"/proc/self/task/{tid}/{name}").read_text()
    except OSError:
        return ""
