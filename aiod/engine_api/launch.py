"""What the supervisor has multiprocessing start: so that the supervisor itself need not import the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from aiod.engine_api.settings import EngineSettings


def engine_main(settings: EngineSettings, control: socket.socket, fd_store: socket.socket) -> None:
    """Be an engine process until the other end of `control` says stop or is gone."""
    from aiod.engine.process import main  # noqa: PLC0415 - in the new process only

    main(settings, control, fd_store)
