"""Builds the stages of an engine and connects them. The only module that knows all of them.

The way of a request: message router (frames to a message) -> sessions (whose is it) -> dispatch (core: admission, pool,
workers) -> completion (reap) -> replies. An OPEN or CLOSE goes through admission and handles instead of dispatch, a
NAME through admission and directory operations.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiod import _core
from aiod.engine.admission import Admission
from aiod.engine.completion import Completion
from aiod.engine.directory_operations import DirectoryOperations
from aiod.engine.dispatch import Dispatch
from aiod.engine.export_rate_limits import ExportRateLimits
from aiod.engine.fd_store_client import FdStoreClient
from aiod.engine.grace_period import GRACE_S, GracePeriod
from aiod.engine.handles import Handles
from aiod.engine.locks import TAGS_FROM, Locks
from aiod.engine.lost_mounts import LostMounts
from aiod.engine.message_handlers import MessageHandlers
from aiod.engine.message_router import MessageRouter
from aiod.engine.pool_maintenance import PoolMaintenance
from aiod.engine.replies import Replies
from aiod.engine.ring_locks import RingLocks
from aiod.engine.ring_opens import RingOpens
from aiod.engine.rings import Rings
from aiod.engine.sessions import Sessions
from aiod.engine.slow_requests import SlowRequestWatch
from aiod.engine.transports import Transports
from aiod.engine.uring import Uring
from aiod.engine.vhost import VhostDisk
from aiod.util import logs
from aiod.util.process_limits import descriptors_max

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from aiod.engine.fd_store_client import Inherited
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_STOP_TIMEOUT_MS = 1000


class Stages:
    """The stages of one engine. Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        fd_store_end: socket.socket,
        inherited: Inherited,
        listener: socket.socket | None,
    ) -> None:
        """Bind the endpoints and create the pool. Raises OSError when either fails.

        `fd_store_end` is the engine's end of the descriptor store's socket, `inherited` what came from it,
        `listener` the socket for a guest, if the engine serves one.
        """
        self.settings = settings
        self._idle = asyncio.Event()
        self.core = core = _make_core(settings)
        self._share_workers()
        self.replies = Replies(self._end_session)
        self.rate_limits = ExportRateLimits(core)
        self.rate_limits.apply(settings)
        self.fd_store = FdStoreClient(core, fd_store_end, inherited, self.rate_limits.of)
        clients = {token: pid for token, pid in self.fd_store.clients.items() if token != VhostDisk.token}
        self.grace_period = GracePeriod(core, clients, self._grace_period_over, unclean=settings.unclean)
        self.sessions = Sessions(settings, core, lambda: self.transports.paused, self._session_ended)
        self.uring = Uring()
        self.admission = Admission(settings, descriptors_max() // 2)
        self.ring_opens = RingOpens(settings, core, self.fd_store, self.rate_limits.of, descriptors_max() // 2)
        self.locks = Locks(settings, core, self.replies.reply)
        self.handles = Handles(
            settings,
            core,
            self.admission,
            self.replies.reply,
            self.fd_store,
            self.rate_limits.of,
            self.uring,
            self.ring_opens,
            self.locks,
            self.sessions.renew,
        )
        self.directory_operations = DirectoryOperations(
            settings, core, self.admission.admit_directory_request, self.replies.reply, self.rate_limits.of
        )
        self.slow_requests = SlowRequestWatch(settings, core, self._describers(), self._time_out)
        self.lost_mounts = LostMounts(core, self.sessions, self.handles.move)
        self.pool_maintenance = PoolMaintenance(settings, core)
        self.vhost = self._make_vhost(listener)
        self.completion = self._make_completion()
        self.dispatch = Dispatch(
            core,
            settings,
            self.completion.send,
            self.pool_maintenance.pool_changed,
            self.completion.look_soon,
            self._pause,
        )
        self._handlers = MessageHandlers(
            self.sessions,
            self.fd_store,
            self.grace_period,
            self.handles,
            self.directory_operations,
            self.dispatch,
            self.pool_maintenance,
            self.replies,
        )
        self.rings = Rings(settings, core, self.sessions, self._handlers, RingLocks(self._handlers))
        self.message_router = MessageRouter(self._handlers, self.replies, settings.depth_max * 2)
        self.transports = Transports(settings, self.message_router.receive)
        _warn_of_ioprio(settings)
        self.uring.warn(settings)

    def _make_completion(self) -> Completion:
        return Completion(
            self.core,
            self.replies.send_to,
            self._control_finished,
            self.directory_operations.finished,
            self.sessions.end,
            self._ring_attached,
            self.handles.close_for_ring,
            self._reaped,
        )

    def _make_vhost(self, listener: socket.socket | None) -> VhostDisk | None:
        if self.settings.vhost is None or listener is None:
            return None
        return VhostDisk(self.settings, self.core, self.fd_store, self.rate_limits.of, self.uring, listener)

    def _control_finished(self, control: _core.Control) -> None:
        if self.vhost is not None and self.vhost.waits_for(control):
            self.vhost.opened(control)
        elif control[0] >= TAGS_FROM:
            self.locks.finished(control)
        else:
            self.handles.finished(control)

    def start(self) -> None:
        """Begin to serve."""
        self.completion.start()
        self.pool_maintenance.start()
        self.sessions.start()
        self.slow_requests.start()
        self.lost_mounts.start()
        self.transports.start()
        self.rings.start()
        self.ring_opens.start()
        self.grace_period.start()
        self.locks.start()
        if self.vhost is not None:
            self.vhost.start()
        self.fd_store.start(GRACE_S + self.settings.session_timeout_ms / 1000)

    def stop(self) -> None:
        """Stop the workers, and close the sockets."""
        if self.vhost is not None:
            self.vhost.stop()
        self.fd_store.stop()
        self.grace_period.stop()
        self.locks.stop()
        self.rings.stop()
        self.ring_opens.stop()
        self.sessions.stop()
        self.pool_maintenance.stop()
        self.slow_requests.stop()
        self.lost_mounts.stop()
        self.completion.stop()
        if not self.core.stop(_STOP_TIMEOUT_MS):
            log.error("%d workers are still inside a system call", self.core.pool_stats()["active_threads"])
        self.transports.close()

    def apply(self, settings: EngineSettings) -> None:
        """Use other settings from now on. Open files, requests in flight and granted credit stay as they are.

        If a stage raises, all of them use the previous settings again.
        """
        previous = self.settings
        try:
            self._apply(settings)
        except Exception:
            self._apply(previous)
            raise

    def _apply(self, settings: EngineSettings) -> None:
        self.settings = settings
        logs.set_level(settings.log_level)
        self.core.resize(settings.max_threads, settings.min_threads)
        self._share_workers()
        self.rate_limits.apply(settings)
        self.sessions.apply(settings)
        self.transports.apply(settings)
        self.admission.apply(settings)
        self.dispatch.apply(settings)
        self.rings.apply(settings)
        self.handles.apply(settings)
        self.locks.apply(settings)
        self.ring_opens.apply(settings)
        self.directory_operations.apply(settings)
        if self.vhost is not None:
            self.vhost.apply(settings)
        self.slow_requests.apply(settings)
        self.pool_maintenance.pool_changed()
        _warn_of_ioprio(settings)
        self.uring.warn(settings)

    async def wait_idle(self) -> None:
        """Return when no request is in flight."""
        while self.core.inflight:
            self._idle.clear()
            await self._idle.wait()

    def _share_workers(self) -> None:
        settings = self.settings
        self.core.share(
            reserve_threads=settings.reserve_threads,
            active_max=settings.active_max,
            active_bytes_max=settings.active_bytes_max,
        )

    def _describers(self) -> dict[str, Callable[[int], tuple[str, str]]]:
        """Per operation that has a tag: the function that tells client and file of the tag."""
        return {
            "open": self.handles.describe,
            "close": self.handles.describe,
            "name": self.directory_operations.describe,
            "lock": self.locks.describe,
            "unlock": self.locks.describe,
        }

    # Stages that are created before the one they call get one of these.

    def _end_session(self, session: Session, reason: str) -> None:
        self.sessions.end(session, reason)

    def _grace_period_over(self) -> None:
        self._handlers.release_resumed()

    def _pause(self) -> None:
        self.transports.pause()

    def _ring_attached(self, result: _core.AttachResult) -> None:
        self.rings.finished(result)

    def _session_ended(self, session: Session) -> None:
        token = session.token
        self.locks.ended(session)
        self.fd_store.end_session(token)
        self.ring_opens.ended(token)
        self.grace_period.done(token)

    def _time_out(self, older_than_s: float) -> None:
        """Answer the opens and directory operations that have hung since then."""
        self.handles.time_out(older_than_s)
        self.directory_operations.time_out(older_than_s)

    def _reaped(self) -> None:
        """Resume intake and wake `wait_idle`, when the completions just reaped allow it."""
        if self.transports.paused and self.core.message_bytes_inflight <= self.settings.bytes_inflight_max // 2:
            self.transports.resume()
        if not self._idle.is_set() and self.core.inflight == 0:  # the count asks every ring: only while it matters
            self._idle.set()


def _make_core(settings: EngineSettings) -> _core.Core:
    return _core.Core(
        settings.name,
        max_threads=settings.max_threads,
        min_threads=settings.min_threads,
        idle_timeout_ms=settings.idle_timeout_ms,
        spawn_retry_ms=settings.spawn_retry_ms,
        inline_read_max=settings.inline_read_max,
        buffer_cache_max=settings.buffer_cache_max,
        rings_max=max(1, settings.rings_max, settings.vhost.queues if settings.vhost is not None else 0),
        ring_poll_max_us=settings.ring_poll_max_us,
    )


def _warn_of_ioprio(settings: EngineSettings) -> None:
    """Log a warning when workers may not set the I/O priority that the configuration asks for."""
    wanted = [name for name, export in settings.exports.items() if export.ioprio]
    if wanted and not _core.may_set_ioprio():
        log.warning("ioprio of %s has no effect: a unit needs SystemCallFilter=ioprio_set", ", ".join(wanted))
