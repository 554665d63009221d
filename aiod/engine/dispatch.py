"""Hands SUBMIT and CANCEL to the core: one native call per batch, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod_protocol.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import zmq

    from aiod._core import Completions, Core
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings


class Dispatch:
    """Main loop thread only."""

    def __init__(
        self,
        core: Core,
        settings: EngineSettings,
        completed: Callable[[Session, Completions], None],
        pool_changed: Callable[[], None],
        several_queued: Callable[[], None],
        pause: Callable[[], None],
    ) -> None:
        """`completed` gets requests that completed inline, or were refused.

        `pool_changed` is called after requests were queued, `several_queued` if several are in flight then, and `pause`
        when bytes_inflight_max is reached.
        """
        self._core = core
        self._settings = settings
        self._completed = completed
        self._pool_changed = pool_changed
        self._several_queued = several_queued
        self._pause = pause

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits from now on."""
        self._settings = settings

    def submit(self, session: Session, received: int, records: bytes, payloads: Sequence[zmq.Frame]) -> None:
        """Submit a batch. Raises WireError when it is malformed; none of its requests was executed then."""
        try:
            completions = self._core.submit(session.core, received, records, payloads)
        except ValueError as error:
            raise WireError(f"SUBMIT: {error}") from error
        if completions is not None:
            self._completed(session, completions)
        inflight = self._core.inflight
        if inflight:
            self._pool_changed()
            if inflight > 1:
                self._several_queued()
            if self._core.message_bytes_inflight > self._settings.bytes_inflight_max:
                self._pause()

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """Cancel the queued requests among `cookies`; returns their number. Their completions come as usual."""
        return self._core.cancel(session.core, cookies)
