"""One process of an engine, from its start until it has been reaped.

A killed process with a thread inside a system call is a zombie whose descriptors are all still open: neither the
sentinel nor the control channel reports its death. So its state in /proc is polled.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiod.engine_api.launch import engine_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

HANG_UP_TIMEOUT_S: Final = 10.0
"""Time that a process may take to exit after it has closed its control channel."""
_POLL_PERIOD_S: Final = 0.25
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class EngineProcess:
    """Main thread only."""

    def __init__(self, settings: EngineSettings, listener: socket.socket | None) -> None:
        """Start the process, with the socket for its guest. Raises OSError."""
        self._settings = settings
        self._process, self.control_end, self.fd_store_end = _spawn(settings, listener)
        self._started_s = time.monotonic()
        self.pid = self._process.pid or 0
        self.kill_reason = ""
        """Why the supervisor has killed it; empty: it has not."""

    @property
    def age_s(self) -> float:
        """Time since its start."""
        return time.monotonic() - self._started_s

    def kill(self) -> None:
        """Send SIGKILL, if the process is alive."""
        if self._process.is_alive():
            self._process.kill()

    async def wait_exited(self, has_hung_up: Callable[[], bool], is_zombie: Callable[[], None]) -> None:
        """Return when the process can be reaped; kill it if it has hung up and does not exit.

        `has_hung_up()`: whether its control channel is closed. `is_zombie()` is called once, when it was killed but
        still has a thread inside the kernel.
        """
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        loop.add_reader(self._process.sentinel, exited.set)
        zombie, hung_up_s = False, 0.0
        try:
            while not await _set_within(exited, _POLL_PERIOD_S):
                if not zombie and (zombie := _is_zombie(self.pid)):
                    is_zombie()
                hung_up_s = hung_up_s + _POLL_PERIOD_S if has_hung_up() and not zombie else 0.0
                if hung_up_s > HANG_UP_TIMEOUT_S:
                    log.error(
                        "engine %s (pid %d) has closed its control channel and does not exit: killing it",
                        self._settings.name,
                        self.pid,
                    )
                    self.kill()
        finally:
            loop.remove_reader(self._process.sentinel)

    def reap(self) -> str:
        """Reap it after `wait_exited`, and remove its sockets. Returns how it ended."""
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        self._remove_sockets()
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with status {code}"
        return self.kill_reason or how

    def _remove_sockets(self) -> None:
        """Remove the sockets of a process that was killed; one that stopped in order has removed its own."""
        own = f"engine-{self._settings.name}-{self._settings.incarnation}"
        for stale in Path(self._settings.runtime_dir).glob(f"{own}.*"):
            log.debug("removing %s, left by pid %d", stale, self.pid)
            try:
                stale.unlink(missing_ok=True)
            except OSError as error:
                log.warning("cannot remove %s, left by pid %d: %s", stale, self.pid, error.strerror)


def _spawn(
    settings: EngineSettings, listener: socket.socket | None
) -> tuple[SpawnProcess, socket.socket, socket.socket]:
    """Start the process; returns it with the supervisor's ends of its control channel and its descriptor store."""
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    fd_store, its_fd_store = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_control, its_fd_store:
        process = multiprocessing.get_context("spawn").Process(
            target=engine_main,
            args=(settings, its_control, its_fd_store, listener),
            name=f"aiod-engine-{settings.name}",
        )
        try:
            _start_with_signals_blocked(process)
        except BaseException:
            control.close()
            fd_store.close()
            raise
    return process, control, fd_store


def _start_with_signals_blocked(process: SpawnProcess) -> None:
    """Start it with SIGINT and SIGTERM blocked: a terminal's may arrive before the process ignores them."""
    _do_without_resource_tracker()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _do_without_resource_tracker() -> None:
    """Let multiprocessing find its resource tracker already running, with /dev/null as the pipe to it.

    The tracker removes the semaphores and shared memory that processes of multiprocessing leave behind. aiod creates
    neither with multiprocessing, and the tracker would be one more Python process in each daemon.
    """
    tracker: Any = resource_tracker._resource_tracker  # noqa: SLF001 - there is no public way
    if tracker._fd is None:  # noqa: SLF001
        tracker._fd = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # noqa: SLF001


def lock_is_free(path: str) -> bool:
    """Whether no process holds the engine's lock `path`."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    """Whether the main thread of our child `pid` has ended. Other threads of it may still exist."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False  # reaped: all of it has ended
    return status.rpartition(")")[2].split()[0] == "Z"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
