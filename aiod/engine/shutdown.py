"""The end of an engine: drain, last messages to the clients, and a log of the requests that did not finish."""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, Final

from aiod.engine.active_requests import describe_request
from aiod.util import logs
from aiod_protocol import wire
from aiod_protocol.reasons import Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod.engine.session import Session
    from aiod.engine.stages import Stages

log = logging.getLogger(__name__)

_IDLE_TIMEOUT_S: Final = 1.0
_FLUSHED_MAX: Final = wire.HEADER_BYTES_MAX // 8
"""Most handles that a shutdown notice lists as flushed."""
_LOGGED_MAX: Final = 20
"""Most unfinished requests that are logged one by one; the others are only counted."""
_STOPPING: Final = "the daemon is stopping"


class Shutdown:
    """Drains and stops the stages. Main loop thread only."""

    def __init__(self, stages: Stages, close: Callable[[], None]) -> None:
        """`close()` stops everything; it is called last."""
        self._stages = stages
        self._close = close
        self._drained = False  # all accepted requests are done
        self.done = asyncio.Event()

    async def drain(self) -> None:
        """Refuse new requests, wait for those in flight, and flush all open files.

        So a client that resumes with the next daemon knows that its acknowledged writes are on disk.
        """
        self._stages.admission.drain()
        self._stages.locks.drain()
        self._stages.core.drain()
        self._stages.sessions.refuse_new(_STOPPING)
        await self._stages.wait_idle()
        self._drained = True
        self._stages.ring_opens.collect_all()
        await asyncio.gather(*map(self._flush, self._stages.sessions))
        if self._stages.vhost is not None:
            await self._stages.handles.flush(self._stages.vhost)

    async def _flush(self, session: Session) -> None:
        session.flushed = await self._stages.handles.flush(session)

    async def stop(self) -> None:
        """Notify and end the sessions, wait shortly for requests in flight, and stop the pool."""
        stages = self._stages
        stages.core.drain()
        stages.sessions.refuse_new(_STOPPING)
        for session in stages.sessions:
            self._notify(session)
        stages.sessions.end_all(_STOPPING)
        try:
            await asyncio.wait_for(stages.wait_idle(), _IDLE_TIMEOUT_S)
        except TimeoutError:
            self._log_unfinished()
        self._close()
        self.done.set()

    def _notify(self, session: Session) -> None:
        """Send the shutdown notice: whether everything is done, and which files are flushed."""
        if self._drained:
            all_flushed = len(session.flushed) == len(session.names)
            self._stages.core.announce_drained(session.core, flushed=all_flushed)
        if not session.by_socket:
            text = f"{_STOPPING}; connect again later"
            flushed = session.flushed[:_FLUSHED_MAX]
            notice = wire.refusal(errno.ESHUTDOWN, text, Reason.STOPPING, drained=self._drained, flushed=flushed)
            self._stages.replies.send(session.peer, notice)

    def _log_unfinished(self) -> None:
        requests = self._stages.slow_requests.requests()["requests"]
        for request in requests[:_LOGGED_MAX]:
            client = request["client"] or None
            log.error("unfinished at shutdown: %s", describe_request(request), extra=logs.about(client=client))
        log.error("stopping with %d unfinished requests", len(requests))
