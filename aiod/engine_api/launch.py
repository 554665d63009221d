"""The entry that multiprocessing calls in an engine process, so that the supervisor need not import the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiod.util.lasting_imports import lasting_imports

if TYPE_CHECKING:
    import socket

    from aiod.engine_api.settings import EngineSettings


def engine_main(
    settings: EngineSettings, control: socket.socket, fd_store: socket.socket, listener: socket.socket | None
) -> None:
    """Run an engine until the other end of `control` says stop, or is closed. `listener`: the socket for its guest."""
    with lasting_imports():
        from aiod.engine.process import main  # noqa: PLC0415 - in the new process only

    main(settings, control, fd_store, listener)
