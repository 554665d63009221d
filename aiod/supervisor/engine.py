"""An engine: keeps a process of it running until it is stopped, and delivers its configuration.

A replacement starts only when the old process has been reaped and its lock is free, since SIGKILL does not end a pwrite
that is under way. Until then the engine's exports answer EIO, naming the process that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Final

from aiod.engine_api.control_channel import Channel, ChannelError
from aiod.engine_api.settings import new_incarnation
from aiod.supervisor.control_client import ControlClient
from aiod.supervisor.engine_process import EngineProcess, lock_is_free
from aiod.supervisor.errors import EngineRefusedError, EngineUnavailableError
from aiod.supervisor.fd_store import FdStore
from aiod.supervisor.vhost_socket import VhostSocket
from aiod.util import logs
from aiod.util.process_limits import descriptors_max

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiod.config import Config
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 10.0
_HEALTHY_S: Final = 30.0
"""A process that ran for longer starts the back-off anew."""
_LOCK_POLL_S: Final = 0.05
START_TIMEOUT_S: Final = 30.0
"""Time that an engine may take until it serves."""
_STOP_TIMEOUT_S: Final = 10.0
_UNDRAINED_STOP_TIMEOUT_S: Final = 5.0
"""Time that an engine that could not be drained may take to end its sessions."""
_REAP_TIMEOUT_S: Final = 3.0
"""Time that a killed process may take: a thread inside a system call can keep it for ever."""
STOP_MARGIN_S: Final = 2 * _STOP_TIMEOUT_S + _UNDRAINED_STOP_TIMEOUT_S + _REAP_TIMEOUT_S
"""Time that `Engine.stop` may take beyond the drain."""
_RELOAD_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 1.0


class Engine:
    """One engine: its current process, its state, and its configuration. Main loop thread only."""

    def __init__(self, config: Config, name: str, failed: Callable[[], None], *, unclean: bool = False) -> None:
        """`failed()` is called when the engine cannot be kept running, because of an internal error.

        `unclean`: the previous daemon did not stop in order, so clients of its engine may resume.
        """
        self.name = name
        self.state = "starting"
        self.endpoint: str | None = None
        self.tcp_port: int | None = None
        self.uring_missing = ""
        """Why it has no io_uring; "": it has one, or has not served yet."""
        self.incarnation = 0
        self.restarts = 0
        self._failed = failed
        self._config = config
        self._delivered: Config | None = None  # the one that its process uses
        self._delivery: asyncio.Task[None] | None = None
        self._refusal: EngineRefusedError | None = None  # of the configuration delivered last
        engine = config.engines[name]
        self.max_threads = engine.max_threads
        self.min_threads = engine.min_threads
        self._process: EngineProcess | None = None
        self._control: ControlClient | None = None
        self._last_pid = 0
        self._last_end = ""
        self._stopping = asyncio.Event()
        self._serving = asyncio.Event()
        self._reaped = asyncio.Event()
        self._supervision: asyncio.Task[None] | None = None
        self._fd_store = FdStore(descriptors_max() // 2 // len(config.engines))
        self._unclean = unclean
        self.disk = config.disk_of(name)
        """The disk that it serves to a guest; None: it serves clients."""
        self._guest_socket = VhostSocket(self.disk.socket) if self.disk is not None else None
        self._log = logging.LoggerAdapter(log, logs.about(engine=name))

    @property
    def pid(self) -> int:
        """Pid of the current process or, while there is none, of the last one."""
        return self._last_pid

    @property
    def inherits_affinity(self) -> bool:
        """Whether its main thread follows the supervisor's affinity mask."""
        return not self._config.engines[self.name].cpus

    @property
    def running(self) -> bool:
        """Whether there is a process with that pid, and it is ours."""
        return self._process is not None

    @property
    def age_s(self) -> float:
        """Time since the start of its process; 0.0 while there is none."""
        return self._process.age_s if self._process is not None else 0.0

    @property
    def poisoned_files(self) -> int:
        """Number of its open files whose flush has failed."""
        return self._fd_store.poisoned

    def why_unavailable(self) -> str:
        """A message for clients that ask while the engine is not serving."""
        if self._stopping.is_set():
            return f"engine {self.name} is stopping with the daemon; connect again later"
        if self._last_end:
            return f"engine {self.name} {self._last_end}; it is being started again, try later"
        return f"engine {self.name} is starting; try again later"

    # ---- supervision

    def listen_for_guest(self) -> None:
        """Listen for the VMM now, instead of at the start. Raises OSError with a message."""
        if self._guest_socket is not None:
            self._guest_socket.listen()

    def start(self, former: Collection[asyncio.Task[bool]] = ()) -> None:
        """Keep a process of it running until `stop`, from the end of `former` on: engines of this name that stop."""
        self._supervision = asyncio.create_task(self._supervise(former))
        self._supervision.add_done_callback(self._supervision_ended)

    def _supervision_ended(self, supervision: asyncio.Task[None]) -> None:
        if not supervision.cancelled() and (error := supervision.exception()) is not None:
            self._log.critical("engine %s cannot be kept running: stopping", self.name, exc_info=error)
            self.state = "failed"
            self._failed()

    async def wait_serving(self) -> None:
        """Return when it serves. Raises EngineUnavailableError after START_TIMEOUT_S."""
        try:
            await asyncio.wait_for(self._serving.wait(), START_TIMEOUT_S)
        except TimeoutError:
            raise EngineUnavailableError(f"engine {self.name} did not come up within {START_TIMEOUT_S:g} s") from None

    async def _supervise(self, former: Collection[asyncio.Task[bool]]) -> None:
        if former:
            await self._wait_ended_or_stopping(former)
        backoff_s = _BACKOFF_MIN_S
        while not self._stopping.is_set():
            began_s = time.monotonic()
            await self._run_once()
            if self._stopping.is_set():
                break
            if time.monotonic() - began_s > _HEALTHY_S:
                backoff_s = _BACKOFF_MIN_S
            self.state = "failed"
            self._log.error("engine %s %s: starting it again in %g s", self.name, self._last_end, backoff_s)
            await self._pause(backoff_s)
            await self._wait_lock_free()
            self.restarts += 1
            backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
        self.state = "stopped"
        self._fd_store.clear()
        if self._guest_socket is not None:
            self._guest_socket.close()

    async def _wait_ended_or_stopping(self, former: Collection[asyncio.Task[bool]]) -> None:
        """A former engine has the lock, the socket of a disk, and requests that are to end first."""
        ended = asyncio.create_task(asyncio.wait(former))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        stopping.cancel()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not while it is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _run_once(self) -> None:
        """Run one process, from its start until it has been reaped."""
        self.state = "starting"
        self.incarnation = max(new_incarnation(), self.incarnation + 1)
        self._delivered = self._config
        try:
            listener = self._guest_socket.listen() if self._guest_socket is not None else None
            process = EngineProcess(self._settings(), listener)
        except OSError as error:
            self._last_end = f"could not be started ({error.strerror or error})"
            return
        self._process = process
        self._reaped.clear()
        self._last_pid = process.pid
        self._log.info("engine %s: started as pid %d", self.name, process.pid)
        self._unclean = False  # the grace period has begun, and must not begin again
        channel = await Channel.open(process.control_end)
        self._control = control = ControlClient(self.name, process.pid, channel, self._is_serving)
        listening = asyncio.create_task(self._listen(control))
        storing = asyncio.create_task(self._fd_store.serve(process.fd_store_end))
        await process.wait_exited(lambda: control.closed, self._is_zombie)
        await asyncio.gather(listening, storing)
        self._fd_store.disconnect()
        self._process = None
        self._unavailable(process.reap())
        self._control = None
        self._reaped.set()

    async def _listen(self, control: ControlClient) -> None:
        try:
            await control.listen()
        except (ChannelError, KeyError, TypeError) as error:
            self._log.critical("engine %s (pid %d): %r: killing it", self.name, self.pid, error)
            self.kill()
        finally:
            self._unavailable("is ending")

    def _is_serving(self, event: dict[str, Any]) -> None:
        if self._stopping.is_set():
            return
        self.endpoint, self.tcp_port = event["endpoint"], event["tcp_port"]
        self.uring_missing = event["uring_missing"]
        self.state = "serving"
        self._serving.set()
        self._log.info("engine %s: serving at %s", self.name, self.endpoint)
        self._delivery = asyncio.create_task(self._deliver_config())

    def _is_zombie(self) -> None:
        """The process was killed, but has not ended: it does not count as serving."""
        self._unavailable("was killed, and a request of it is still inside the kernel")
        self._log.error("engine %s %s", self.name, self._last_end)

    def _unavailable(self, how: str) -> None:
        """It does not serve any more: clients are not sent there, and questions to it fail."""
        self.endpoint = None
        self._serving.clear()
        self._last_end = f"(pid {self._last_pid}) {how}"
        if not self._stopping.is_set():
            self.state = "failed"
        if self._control is not None:
            self._control.fail_all(self.why_unavailable())

    async def _wait_lock_free(self) -> None:
        """Wait until the kernel releases the lock: the last thread of the process has left its last system call."""
        path = self._config.engine_settings(self.name, 0).lock_path
        logged = False
        while not self._stopping.is_set() and not lock_is_free(path):
            if not logged:
                self._log.warning("engine %s: waiting for pid %d to leave its last system call", self.name, self.pid)
                logged = True
            await self._pause(_LOCK_POLL_S)

    async def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """The body of its answer to `verb`. Raises EngineUnavailableError, EngineRefusedError."""
        if self._control is None or self._control.closed or self.state in {"starting", "failed"}:
            raise EngineUnavailableError(self.why_unavailable())
        return await self._control.ask(verb, timeout_s, **arguments)

    def end_stuck(self, silent_s: float) -> None:
        """Kill it, since its main loop has been silent for `silent_s` seconds; it is started again when reaped."""
        if self._process is not None:
            self._process.kill_reason = f"did not answer for {silent_s:.0f} s and was killed"
        self._log.critical("engine %s (pid %d) has not answered for %.0f s: killing it", self.name, self.pid, silent_s)
        self.kill()
        # A process that cannot die yet is not to be waited for.
        self._unavailable(f"did not answer for {silent_s:.0f} s and was killed")

    def kill(self) -> None:
        """Kill its process; no new one is started after `stop` was called."""
        if self._process is not None:
            self._process.kill()

    # ---- configuration

    def _settings(self) -> EngineSettings:
        """The settings by the configuration, with the limits that `resize` has changed."""
        settings = self._config.engine_settings(self.name, self.incarnation)
        return dataclasses.replace(
            settings, max_threads=self.max_threads, min_threads=self.min_threads, unclean=self._unclean
        )

    async def resize(self, max_threads: int, min_threads: int, timeout_s: float) -> Any:
        """Change its pool's limits, now and for later starts; returns the pool's statistics.

        Raises EngineUnavailableError.
        """
        pool = await self.ask("resize", timeout_s, max_threads=max_threads, min_threads=min_threads)
        self.max_threads, self.min_threads = max_threads, min_threads
        self._log.info("engine %s: min_threads is %d, max_threads %d now", self.name, min_threads, max_threads)
        return pool

    async def reload(self, config: Config) -> bool:
        """Use `config`, which differs only in keys that need no restart; an engine that starts gets it when it serves.

        False: it did not answer, and gets `config` later. Raises EngineRefusedError when it cannot use `config`; it
        continues with the previous configuration.
        """
        previous = self._config, self.max_threads, self.min_threads
        before, after = self._config.engines[self.name], config.engines[self.name]
        # Limits that `resize` has set stay, unless the file has changed them.
        if before.max_threads != after.max_threads or before.min_threads != after.min_threads:
            self.max_threads, self.min_threads = after.max_threads, after.min_threads
        self._config = config
        self._delivery = asyncio.create_task(self._deliver_config())
        await asyncio.wait({self._delivery}, timeout=_RELOAD_TIMEOUT_S)
        if self._delivery.done() and self._refusal is not None:
            self._config, self.max_threads, self.min_threads = previous
            raise self._refusal
        return self._delivery.done()

    async def _deliver_config(self) -> None:
        """Send the configuration until it is accepted or refused.

        The health check kills a process that is stuck, and the next process starts with the new configuration.
        """
        self._refusal = None
        while self._delivered is not self._config and self.state == "serving":
            config = self._config
            try:
                await self.ask("reload", _RELOAD_TIMEOUT_S, settings=self._settings().to_message())
            except EngineRefusedError as error:
                self._log.error("%s: continuing with the previous configuration", error)
                self._refusal = error
                return
            except EngineUnavailableError as error:
                self._log.error("%s: continuing with the previous configuration until it answers", error)
                await self._pause(_RETRY_S)
            else:
                self._delivered = config

    def move_to(self, cpus: set[int]) -> None:
        """Set the affinity of its main thread, which later workers inherit, to `cpus`."""
        if self._process is None:
            return
        try:
            os.sched_setaffinity(self._last_pid, cpus)
        except OSError as error:
            self._log.warning(
                "engine %s (pid %d): cannot set its affinity: %s", self.name, self._last_pid, error.strerror
            )

    # ---- stopping

    async def stop(self, drain_timeout_s: float) -> bool:
        """Drain, stop and reap it. False when requests were unfinished, or the process does not leave the kernel."""
        self._stopping.set()
        drained = True
        if self.state == "serving":
            self.state = "draining"
            drained = await self._drain_and_stop(drain_timeout_s)
        self.kill()
        return await self._wait_ended() and drained

    async def _drain_and_stop(self, drain_timeout_s: float) -> bool:
        """Let it finish its requests, and exit. False when it did not."""
        drained = True
        try:
            await self.ask("drain", drain_timeout_s)
        except EngineUnavailableError as error:
            self._log.error("engine %s (pid %d) was not drained (%s)", self.name, self.pid, error)
            drained = False
        try:
            # An engine that was not drained logs its unfinished requests and notifies its clients; then it is killed.
            await self.ask("stop", _STOP_TIMEOUT_S if drained else _UNDRAINED_STOP_TIMEOUT_S)
            if drained:
                await asyncio.wait_for(self._reaped.wait(), _STOP_TIMEOUT_S)
        except (EngineUnavailableError, TimeoutError) as error:
            self._log.error("engine %s (pid %d) did not stop in order (%s): killing it", self.name, self.pid, error)
            return False
        return drained

    async def _wait_ended(self) -> bool:
        """Wait until its process has been reaped. False when the kernel does not release it."""
        if self._supervision is not None:
            await asyncio.wait({self._supervision}, timeout=_REAP_TIMEOUT_S)
        if self._process is None:
            return True
        self._log.error(
            "engine %s: pid %d is still inside a system call, %g s after SIGKILL: stopping without it",
            self.name,
            self._last_pid,
            _REAP_TIMEOUT_S,
        )
        return False

    def abandon(self) -> None:
        """Kill its process, and start none any more."""
        self._stopping.set()
        self.kill()
