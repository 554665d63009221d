"""One engine process: its entry, its lock, and its main loop."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from aiod import _core
from aiod.engine.fd_store_client import receive_all
from aiod.engine.memory_guard import MemoryGuard
from aiod.engine.shutdown import Shutdown
from aiod.engine.stages import Stages
from aiod.engine.supervisor_commands import SupervisorCommands
from aiod.engine_api.control_channel import Channel
from aiod.util import logs
from aiod.util.process_limits import raise_descriptors

if TYPE_CHECKING:
    import socket

    from aiod.engine.fd_store_client import Inherited
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

EXIT_LOCKED: Final = 3
"""Exit status when another process still holds this engine's lock."""


class Engine:
    """The stages of this process, its memory guard, and the supervisor's commands. Main loop thread only."""

    def __init__(
        self,
        settings: EngineSettings,
        channel: Channel,
        fd_store: socket.socket,
        inherited: Inherited,
        listener: socket.socket | None,
    ) -> None:
        """Bind the endpoints and create the pool. Raises OSError when either fails."""
        self._stages = Stages(settings, fd_store, inherited, listener)
        shutdown = Shutdown(self._stages, self._close)
        self._commands = SupervisorCommands(channel, self._stages, shutdown)
        self._memory_guard = MemoryGuard(self._stages, self._commands.report_serving)

    async def run(self) -> None:
        """Serve until the supervisor says stop, or is gone."""
        self._stages.start()
        self._memory_guard.start()
        await self._commands.serve()

    def _close(self) -> None:
        self._memory_guard.stop()
        self._stages.stop()


def _take_lock(settings: EngineSettings) -> None:
    """Take the engine's lock and never release it: the kernel does, when the last worker has left its last system call.

    Neither the return of main() nor SIGKILL ends a pwrite that is under way. A write by io_uring does not even keep the
    process: the io_uring itself holds the lock.
    """
    fd = os.open(settings.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.critical("another engine %s still holds %s", settings.name, settings.lock_path)
        sys.exit(EXIT_LOCKED)
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    _core.keep_open_in_urings(fd)


async def _serve(
    settings: EngineSettings,
    control: socket.socket,
    fd_store: socket.socket,
    inherited: Inherited,
    listener: socket.socket | None,
) -> None:
    channel = await Channel.open(control)
    engine = Engine(settings, channel, fd_store, inherited, listener)
    # The imported modules live as long as the process: keep them out of every garbage collection.
    gc.freeze()
    await engine.run()


def main(
    settings: EngineSettings, control: socket.socket, fd_store: socket.socket, listener: socket.socket | None
) -> None:
    """Run an engine until the other end of `control` says stop, or is closed.

    `fd_store` is the engine's end of the descriptor store's socket (engine_api/fd_store_messages.py), `listener` the
    socket for its guest, if it serves one. Signals of the terminal and of the control group are the supervisor's
    business; the engine ignores them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("/proc/self/comm").write_text(f"aiod/{settings.name}"[:15])
    logs.configure(settings.log_level, ENGINE=settings.name)
    raise_descriptors()
    _take_lock(settings)
    _core.keep_large_blocks()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, control, fd_store, receive_all(fd_store), listener))
