"""Engine processes: spawned from the main thread, watched, started again with back-off.

A replacement starts only when the old process has been reaped and its lock is free: SIGKILL is not the end of a pwrite
that is under way. Until then the engine's exports answer EIO, naming the process that died.

A killed process with one thread inside a system call is a zombie whose descriptors are all still open: neither the
sentinel nor the control channel tells that it has died. So its state is looked at now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import itertools
import logging
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiod.engine_api.control_channel import Channel, ChannelError
from aiod.engine_api.launch import engine_main
from aiod.engine_api.settings import new_incarnation
from aiod.supervisor.fd_store import Keeper
from aiod.util import logs
from aiod.util.process_limits import descriptors_max

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import SpawnProcess

    from aiod.config import Config
    from aiod.engine_api.settings import EngineSettings

log = logging.getLogger(__name__)

_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 10.0
_HEALTHY_S: Final = 30.0
_LOCK_POLL_S: Final = 0.05
START_TIMEOUT_S: Final = 30.0
"""How long an engine may take to serve."""
_STOP_TIMEOUT_S: Final = 10.0
_FAREWELL_TIMEOUT_S: Final = 5.0
"""How long an engine that could not be drained may take to end its sessions."""
_REAP_TIMEOUT_S: Final = 3.0
"""How long a killed process is waited for: a thread inside a system call can keep it for ever."""
STOP_MARGIN_S: Final = 2 * _STOP_TIMEOUT_S + _FAREWELL_TIMEOUT_S + _REAP_TIMEOUT_S
"""How long `Engine.stop` may take beyond the drain."""
_LOOK_PERIOD_S: Final = 0.25
_RELOAD_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 1.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class EngineUnavailableError(OSError):
    """The engine does not answer: it is not there, or it is stuck."""


class EngineRefusedError(EngineUnavailableError):
    """The engine has answered that it cannot do what it was asked for."""


class Engine:
    """One engine: its process now, and the ones before. Main loop thread only."""

    def __init__(self, config: Config, name: str, failed: Callable[[], None], *, unclean: bool = False) -> None:
        """`failed()` when it can no longer be kept running, for a reason that is a mistake of ours or the machine's.

        `unclean`: a daemon before this one has not stopped in order, and clients of its engine may come back.
        """
        self.name = name
        self.state = "starting"
        self.endpoint: str | None = None
        self.tcp_port: int | None = None
        self.incarnation = 0
        self.restarts = 0
        self._failed = failed
        self._config = config
        engine = config.engines[name]
        self.max_threads = engine.max_threads
        self.min_threads = engine.min_threads
        self._told: Config | None = None  # by which its process serves
        self._refusal: EngineRefusedError | None = None  # why it does not serve by the last one
        self._process: SpawnProcess | None = None
        self._channel: Channel | None = None
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._last_pid = 0
        self._last_end = ""
        self._verdict = ""  # why we have killed it, or are about to
        self._started_s = 0.0
        self._stopping = asyncio.Event()
        self._serving = asyncio.Event()
        self._reaped = asyncio.Event()
        self._supervision: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._keeper = Keeper(descriptors_max() // 2 // len(config.engines))
        self._unclean = unclean
        self._log = logging.LoggerAdapter(log, logs.about(engine=name))

    @property
    def pid(self) -> int:
        """Of the process now or, while there is none, of the last one."""
        return self._last_pid

    @property
    def inherits_affinity(self) -> bool:
        """Whether its main thread follows the supervisor's mask."""
        return not self._config.engines[self.name].cpus

    def why_unavailable(self) -> str:
        """A sentence for those who ask while it is not serving."""
        if self._stopping.is_set():
            return f"engine {self.name} is stopping with the daemon; connect again later"
        if self._last_end:
            return f"engine {self.name} {self._last_end}; it is being started again, try later"
        return f"engine {self.name} is starting; try again later"

    @property
    def running(self) -> bool:
        """Whether there is a process of that pid, and it is ours."""
        return self._process is not None

    @property
    def age_s(self) -> float:
        """For how long its process has run; 0.0 while there is none."""
        return time.monotonic() - self._started_s if self._process is not None else 0.0

    # ---- life

    def start(self) -> None:
        """Keep a process of it running until `stop`."""
        self._supervision = asyncio.create_task(self._supervise())
        self._supervision.add_done_callback(self._supervised)

    def _supervised(self, supervision: asyncio.Task[None]) -> None:
        if not supervision.cancelled() and (error := supervision.exception()) is not None:
            self._log.critical("engine %s cannot be kept running: stopping", self.name, exc_info=error)
            self.state = "failed"
            self._failed()

    async def wait_serving(self) -> None:
        """Return when it serves. Raises EngineUnavailableError if it does not come up."""
        try:
            await asyncio.wait_for(self._serving.wait(), START_TIMEOUT_S)
        except TimeoutError:
            raise EngineUnavailableError(f"engine {self.name} did not come up within {START_TIMEOUT_S:g} s") from None

    async def _supervise(self) -> None:
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
        self._keeper.forget()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when it is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _run_once(self) -> None:
        """One process, from its start to its reaping."""
        self.state = "starting"
        self.incarnation = max(new_incarnation(), self.incarnation + 1)
        self._told = self._config
        try:
            process, ours, keeper_end = _spawn(self.name, self._settings())
        except OSError as error:
            self._last_end = f"could not be started ({error.strerror or error})"
            return
        self._process = process
        self._started_s, self._verdict = time.monotonic(), ""
        self._reaped.clear()
        self._last_pid = process.pid or 0
        self._log.info("engine %s: started as pid %d", self.name, self._last_pid)
        self._unclean = False  # the grace period has begun, and is not to begin again
        self._channel = await Channel.open(ours)
        listening = asyncio.create_task(self._listen(self._channel))
        keeping = asyncio.create_task(self._keeper.serve(keeper_end))
        await self._wait_exited(process)
        await asyncio.gather(listening, keeping)
        self._keeper.let_go()
        process.join()
        self._gone(process)

    async def _listen(self, channel: Channel) -> None:
        """Take its answers and events until it has closed its end, which is the last but one thing it does."""
        try:
            async for message in channel:
                self._take(message)
        except (ChannelError, KeyError, TypeError) as error:
            self._log.critical("engine %s (pid %d): %r: killing it", self.name, self.pid, error)
            self.kill()
        finally:
            channel.close()
            self._channel = None
            self._lost("is ending")

    async def _wait_exited(self, process: SpawnProcess) -> None:
        """Return when the process has exited; killed but not yet gone, it does not count as serving."""
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        loop.add_reader(process.sentinel, exited.set)
        zombie, hung_up_s = False, 0.0
        try:
            while not await _set_within(exited, _LOOK_PERIOD_S):
                if not zombie and (zombie := _is_zombie(self._last_pid)):
                    self._lost("was killed, and a request of it is still inside the kernel")
                    self._log.error("engine %s %s", self.name, self._last_end)
                hung_up_s = hung_up_s + _LOOK_PERIOD_S if self._channel is None and not zombie else 0.0
                if hung_up_s > _STOP_TIMEOUT_S:
                    self._log.error("engine %s (pid %d) has hung up and does not exit: killing it", self.name, self.pid)
                    self.kill()
        finally:
            loop.remove_reader(process.sentinel)

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("event") == "serving" and not self._stopping.is_set():
            self.endpoint, self.tcp_port = message["endpoint"], message["tcp_port"]
            self.state = "serving"
            self._serving.set()
            self._log.info("engine %s: serving at %s", self.name, self.endpoint)
            self._telling = asyncio.create_task(self._tell_config())
            return
        answer = self._answers.pop(message.get("id", 0), None)
        if answer is None or answer.done():
            return  # whoever asked has given up
        if message.get("ok"):
            answer.set_result(message.get("body"))
        else:
            answer.set_exception(EngineRefusedError(f"engine {self.name}: {message.get('error')}"))

    def _lost(self, how: str) -> None:
        """It serves no more: nobody is sent there, and nobody waits for its answers."""
        self.endpoint = None
        self._serving.clear()
        self._last_end = f"(pid {self._last_pid}) {how}"
        if not self._stopping.is_set():
            self.state = "failed"
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(EngineUnavailableError(self.why_unavailable()))
        self._answers.clear()

    def _gone(self, process: SpawnProcess) -> None:
        """The process has been reaped."""
        self._process = None
        code = process.exitcode or 0
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"exited with status {code}"
        self._lost(self._verdict or how)
        process.close()
        self._remove_sockets()
        self._reaped.set()

    def _remove_sockets(self) -> None:
        """What a process that was killed has left; one that stopped in order has removed its own."""
        own = f"engine-{self.name}-{self.incarnation}"
        for stale in Path(self._config.runtime_dir).glob(f"{own}.*"):
            self._log.debug("removing %s, left by pid %d", stale, self._last_pid)
            try:
                stale.unlink(missing_ok=True)
            except OSError as error:
                self._log.warning("cannot remove %s, left by pid %d: %s", stale, self._last_pid, error.strerror)

    def _settings(self) -> EngineSettings:
        """As configured, but for the limits that `resize` has changed."""
        settings = self._config.engine_settings(self.name, self.incarnation)
        return dataclasses.replace(
            settings, max_threads=self.max_threads, min_threads=self.min_threads, unclean=self._unclean
        )

    async def _wait_lock_free(self) -> None:
        """The kernel gives the lock back when the last thread of the old process has left its last system call."""
        path = self._config.engine_settings(self.name, 0).lock_path
        told = False
        while not self._stopping.is_set() and not _lock_is_free(path):
            if not told:
                self._log.warning("engine %s: waiting for pid %d to leave its last system call", self.name, self.pid)
                told = True
            await self._pause(_LOCK_POLL_S)

    # ---- verbs

    async def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """The body of its answer to `verb`. Raises EngineUnavailableError, EngineRefusedError."""
        channel = self._channel
        if channel is None or self.state in {"starting", "failed"}:
            raise EngineUnavailableError(self.why_unavailable())
        number = next(self._ids)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            # Sending waits as well, when a stopped process has let its end fill up.
            async with asyncio.timeout(timeout_s):
                await channel.send({"id": number, "verb": verb, "arguments": arguments})
                return await answer
        except TimeoutError:
            raise EngineUnavailableError(
                f"engine {self.name} (pid {self.pid}) did not answer {verb} in {timeout_s:g} s"
            ) from None
        except ConnectionError as error:
            raise EngineUnavailableError(f"engine {self.name} (pid {self.pid}): {error}") from error
        finally:
            self._answers.pop(number, None)

    async def resize(self, max_threads: int, min_threads: int, timeout_s: float) -> Any:
        """Change its pool's limits, now and for later starts; its pool's figures. Raises EngineUnavailableError."""
        pool = await self.ask("resize", timeout_s, max_threads=max_threads, min_threads=min_threads)
        self.max_threads, self.min_threads = max_threads, min_threads
        self._log.info("engine %s: min_threads is %d, max_threads %d now", self.name, min_threads, max_threads)
        return pool

    async def reload(self, config: Config) -> bool:
        """Serve by `config`, which differs only in what needs no restart; at once if it serves, else when it does.

        False when it did not answer: then it is told later. Raises EngineRefusedError when it cannot; then it goes on
        with the configuration of before.
        """
        previous = self._config, self.max_threads, self.min_threads
        before, after = self._config.engines[self.name], config.engines[self.name]
        # Limits that `resize` has set stay, unless the file has others now.
        if before.max_threads != after.max_threads or before.min_threads != after.min_threads:
            self.max_threads, self.min_threads = after.max_threads, after.min_threads
        self._config = config
        self._telling = asyncio.create_task(self._tell_config())
        await asyncio.wait({self._telling}, timeout=_RELOAD_TIMEOUT_S)
        if self._telling.done() and self._refusal is not None:
            self._config, self.max_threads, self.min_threads = previous
            raise self._refusal
        return self._telling.done()

    async def _tell_config(self) -> None:
        """Until it has been told; one that is stuck is ended by others, and its successor needs no telling."""
        self._refusal = None
        while self._told is not self._config and self.state == "serving":
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
                self._told = config

    def move_to(self, cpus: set[int]) -> None:
        """Give its main thread, and so every worker born from now on, the affinity `cpus`."""
        if self._process is None:
            return
        try:
            os.sched_setaffinity(self._last_pid, cpus)
        except OSError as error:
            self._log.warning("engine %s (pid %d) keeps its CPUs: %s", self.name, self._last_pid, error.strerror)

    async def stop(self, drain_timeout_s: float) -> bool:
        """Drain, stop and reap it. False when work was left undone, or when it is left behind inside the kernel."""
        self._stopping.set()
        drained = True
        if self.state == "serving":
            self.state = "draining"
            drained = await self._drain_and_stop(drain_timeout_s)
        self.kill()
        return await self._wait_ended() and drained

    async def _drain_and_stop(self, drain_timeout_s: float) -> bool:
        """Let it finish what is in flight, and exit. False when it did not."""
        drained = True
        try:
            await self.ask("drain", drain_timeout_s)
        except EngineUnavailableError as error:
            self._log.error("engine %s (pid %d) was not drained (%s)", self.name, self.pid, error)
            drained = False
        try:
            # One that was not drained says what it leaves behind, and tells its clients; then it is killed.
            await self.ask("stop", _STOP_TIMEOUT_S if drained else _FAREWELL_TIMEOUT_S)
            if drained:
                await asyncio.wait_for(self._reaped.wait(), _STOP_TIMEOUT_S)
        except (EngineUnavailableError, TimeoutError) as error:
            self._log.error("engine %s (pid %d) did not stop in order (%s): killing it", self.name, self.pid, error)
            return False
        return drained

    async def _wait_ended(self) -> bool:
        """Wait until its process has been reaped. False when the kernel does not let go of it."""
        if self._supervision is not None:
            await asyncio.wait({self._supervision}, timeout=_REAP_TIMEOUT_S)
        if self._process is None:
            return True
        self._log.error(
            "engine %s: pid %d is still inside a system call, %g s after SIGKILL: leaving it behind",
            self.name,
            self._last_pid,
            _REAP_TIMEOUT_S,
        )
        return False

    def end_stuck(self, silent_s: float) -> None:
        """Kill it, whose main loop has been silent for `silent_s` seconds; reaped, it is started again."""
        self._verdict = f"did not answer for {silent_s:.0f} s and was killed"
        self._log.critical("engine %s (pid %d) has not answered for %.0f s: killing it", self.name, self.pid, silent_s)
        self.kill()
        # One that cannot die yet is not to be waited for.
        self._lost(self._verdict)

    def kill(self) -> None:
        """End it at once; no new one is started after `stop` was called."""
        if self._process is not None and self._process.is_alive():
            self._process.kill()

    def abandon(self) -> None:
        """Start none any more, and end what there is."""
        self._stopping.set()
        self.kill()


def _spawn(name: str, settings: EngineSettings) -> tuple[SpawnProcess, socket.socket, socket.socket]:
    """Start an engine process; returns it with our ends of its control channel and of its keeper's socket.

    Raises OSError. Main thread only.
    """
    control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    keeper, its_keeper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its_control, its_keeper:
        process = multiprocessing.get_context("spawn").Process(
            target=engine_main, args=(settings, its_control, its_keeper), name=f"aiod-engine-{name}"
        )
        try:
            _start_deaf(process)
        except BaseException:
            control.close()
            keeper.close()
            raise
    return process, control, keeper


def _start_deaf(process: SpawnProcess) -> None:
    """Start it with SIGINT and SIGTERM blocked: those of a terminal may reach it before it has come to ignore them."""
    # multiprocessing starts its tracker with the first process, and unblocks both signals then.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_helpers() -> None:
    """End the process that multiprocessing has started beside the engines: systemd would kill it, and say so.

    It ends with the last engine: only when none is left behind.
    """
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined] # noqa: SLF001 - there is no other way


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    """Whether the main thread of `pid`, our child, has ended. Other threads of it may still be there."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False  # reaped: all of it has ended
    return status.rpartition(")")[2].split()[0] == "Z"


def _lock_is_free(path: str) -> bool:
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


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
