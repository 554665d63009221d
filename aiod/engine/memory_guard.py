"""Bounds the engine's memory: messages that libzmq buffers, unseen by the engine, have no other bound.

Above `memory_max` the guard ends the session with the most bytes in flight and unread, if that is many; else all
sessions, and the engine continues with a new socket under a new name; if that has not helped either, the process exits
and the supervisor starts another one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Final

import zmq

from aiod.util.process_limits import private_bytes, resident_bytes, trim_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiod.engine.stages import Stages

log = logging.getLogger(__name__)

EXIT_MEMORY: Final = 4
"""Exit status when the memory could not be brought below memory_max."""

_PERIOD_S: Final = 0.1
_SETTLE_S: Final = 2.0
"""Time that memory may take to become free after sessions were ended."""
_FACTOR_MAX: Final = 4
"""Above this multiple of memory_max the process exits at once."""
_LARGE_SHARE: Final = 16
"""A session with more than this fraction of memory_max is ended alone."""


class MemoryGuard:
    """Checks the resident memory ten times a second. Main loop thread only."""

    def __init__(self, stages: Stages, rebound: Callable[[], None]) -> None:
        """`rebound()` is called when the engine has a new endpoint."""
        self._stages = stages
        self._rebound = rebound
        self._has_rebound = False  # since memory was last below the limit
        self._last_action_s = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to check."""
        self._check()

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        limit = self._stages.settings.memory_max
        if self._resident_bytes() > limit:
            trim_memory()
        resident = self._resident_bytes()
        if resident > limit:
            self._reduce(resident, limit)
        else:
            self._has_rebound, self._last_action_s = False, -math.inf
        self._timer = asyncio.get_running_loop().call_later(_PERIOD_S, self._check)

    def _resident_bytes(self) -> int:
        """Resident memory without the rings, which have a limit of their own, and without the memory of a guest."""
        if self._stages.settings.vhost is not None:
            return private_bytes()
        return resident_bytes() - self._stages.core.ring_bytes

    def _reduce(self, resident: int, limit: int) -> None:
        largest = self._stages.sessions.largest()
        settled = time.monotonic() > self._last_action_s + _SETTLE_S
        if resident > _FACTOR_MAX * limit or (settled and self._has_rebound):
            log.critical("%d bytes resident, memory_max is %d: exiting to be restarted", resident, limit)
            os._exit(EXIT_MEMORY)
        if largest is not None and largest.core.unacknowledged_bytes > limit // _LARGE_SHARE:
            log.error("%d bytes resident, more than memory_max (%d)", resident, limit)
            self._stages.sessions.end(largest, "it does not read its replies, and the engine is out of memory")
            if largest.peer.transport is not None:
                largest.peer.transport.shut_down(largest.peer)
            self._last_action_s = time.monotonic()
        elif settled:
            self._rebind(resident, limit)

    def _rebind(self, resident: int, limit: int) -> None:
        sessions = self._stages.sessions
        log.error(
            "%d bytes resident, more than memory_max (%d): ending %d sessions and dropping their buffered messages",
            resident,
            limit,
            len(sessions),
        )
        sessions.end_all("the engine is out of memory")
        self._has_rebound, self._last_action_s = True, time.monotonic()
        try:
            self._stages.transports.rebind()
        except (OSError, zmq.ZMQError) as error:
            log.critical("cannot serve any more (%s): exiting to be restarted", error)
            os._exit(EXIT_MEMORY)
        self._rebound()
