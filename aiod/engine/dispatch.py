"""SUBMIT and CANCEL to the core: one native call a batch, whatever its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod_client.wire import WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import zmq

    from aiod._core import Completions, Core
    from aiod.engine.session import Session
    from aiod.engine_api.settings import EngineSettings


class Dispatch:
    """Batches on their way to the pool. Main loop thread only."""

    def __init__(
        self,
        core: Core,
        settings: EngineSettings,
        completed: Callable[[Session, Completions], None],
        pool_changed: Callable[[], None],
        pause: Callable[[], None],
    ) -> None:
        """`completed` sends what was done at once; `pool_changed` after requests were queued; `pause` stops intake."""
        self._core = core
        self._settings = settings
        self._completed = completed
        self._pool_changed = pool_changed
        self._pause = pause

    def apply(self, settings: EngineSettings) -> None:
        """Use other limits from now on."""
        self._settings = settings

    def submit(self, session: Session, received: int, records: bytes, payloads: Sequence[zmq.Frame]) -> None:
        """Admit a batch. Raises WireError when it is malformed as a whole; nothing of it was executed then."""
        try:
            completions = self._core.submit(session.core, received, records, payloads)
        except ValueError as error:
            raise WireError(f"SUBMIT: {error}") from error
        if completions is not None:
            self._completed(session, completions)
        if self._core.inflight:
            self._pool_changed()
            if self._core.message_bytes_inflight > self._settings.bytes_inflight_max:
                self._pause()

    def cancel(self, session: Session, cookies: list[int]) -> int:
        """End what is still queued of `cookies`: how many. The completions come as all others do."""
        return self._core.cancel(session.core, cookies)
