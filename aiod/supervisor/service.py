"""The daemon from start to stop: signals, reloads and draining. Creates and connects the supervisor's parts."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any, Final

import uvloop
import zmq

from aiod import __version__
from aiod.config import ConfigError, load_config
from aiod.config.vhost import ENGINE_PREFIX
from aiod.supervisor import added_disks, runtime_dir
from aiod.supervisor.added_disks import AddedDisks, warn_of_engines
from aiod.supervisor.control_verbs import ControlVerbs
from aiod.supervisor.engine import STOP_MARGIN_S, Engine
from aiod.supervisor.errors import EngineRefusedError, EngineUnavailableError
from aiod.supervisor.exports import warn_of_exports
from aiod.supervisor.front_endpoint import FrontEndpoint
from aiod.supervisor.front_socket import FrontSocket
from aiod.supervisor.front_tcp import FrontTcp
from aiod.supervisor.health import Health
from aiod.supervisor.kernel_check import ways_off, why_unfit
from aiod.supervisor.metrics_server import MetricsServer
from aiod.supervisor.reload import plan
from aiod.supervisor.snapshots import Snapshots
from aiod.supervisor.status_line import StatusLine
from aiod.supervisor.systemd import Notifier
from aiod.util import logs
from aiod.util.process_limits import raise_descriptors

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from aiod.config import Config
    from aiod.supervisor.reload import Change

log = logging.getLogger(__name__)

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1

_AFFINITY_PERIOD_S: Final = 0.5
_LINGER_MS: Final = 500


class Service:
    """One running daemon. Main loop thread only."""

    def __init__(self, config: Config, config_path: Path | None, notifier: Notifier, *, unclean: bool) -> None:
        """`config_path` is the file of `config`; None: it is the embedded default.

        `unclean`: the previous daemon did not stop in order.
        """
        self._config = config
        self._config_path = config_path
        self._notifier = notifier
        self._engines = {name: Engine(config, name, self._internal_error, unclean=unclean) for name in config.engines}
        self._leaving: dict[Engine, asyncio.Task[bool]] = {}  # removed by a reload, or by remove_disk()
        self._added_disks = AddedDisks()
        self._front: FrontEndpoint | None = None
        self._tcp: FrontTcp | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._ready = False
        self._signals = 0
        self._failed = False
        self._stop = asyncio.Event()
        self._cpus = os.sched_getaffinity(0)

    async def run(self) -> int:
        """Serve until a signal, or `aiodctl drain`; the exit status."""
        self._take_signals()
        warn_of_exports(self._config.exports)
        warn_of_engines(self._config)
        for engine in self._engines.values():
            engine.start()
        self._begin(Health(self._engines, lambda: self._config.watchdog_s, self._notifier).run())
        await self._wait_engines()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Even after an error, the context's end must not wait for messages to peers that do not read.
        context.setsockopt(zmq.BLOCKY, 0)
        verbs = ControlVerbs(self._config, self._engines, Snapshots(self._engines), self, self._added_disks)
        metrics = MetricsServer(self._config.metrics, verbs.render_metrics)
        try:
            await metrics.start()
            self._tcp = FrontTcp.of(self._config, context)
            front_socket = FrontSocket(self._config.front_endpoint, self._notifier)
        except OSError as error:
            log.critical("%s", error.strerror or error)
            self._notifier.status(error.strerror or str(error))
            await metrics.close()
            await self._stop_engines()
            return EXIT_FAILED
        self._front = FrontEndpoint(self._config, self._engines, context, front_socket.listener, self._tcp, verbs)
        self._front.start()
        self._begin(StatusLine(self._engines, self._notifier).run())
        self._begin(self._announce())
        self._begin(self._follow_affinity())
        log.info("aiod %s serves %s", __version__, self._config.front_endpoint)
        await self._stop.wait()
        self._notifier.stopping(self._config.drain_timeout_s + STOP_MARGIN_S)
        drained = await self._stop_engines()
        for task in self._tasks:
            task.cancel()
        await metrics.close()
        self._front.close(_LINGER_MS)
        if self._tcp is not None:
            self._tcp.close()
        front_socket.close()
        context.term()
        log.info("stopped" if drained else "stopped with unfinished requests")
        return EXIT_DONE if drained and not self._failed else EXIT_FAILED

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background until the daemon stops; if it fails, the daemon stops."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("internal error in the supervisor: stopping", exc_info=error)
            self._internal_error()

    def _internal_error(self) -> None:
        """Stop the daemon: systemd starts it again, and nothing runs unsupervised."""
        self._failed = True
        self._stop.set()

    # ---- signals

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._reload_by_signal()))

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals == 1:
            log.info("%s: draining for at most %g s", number.name, self._config.drain_timeout_s)
            return
        log.warning("%s again: stopping at once", number.name)
        for engine in (*self._engines.values(), *self._leaving):
            engine.abandon()

    def drain(self) -> None:
        """Stop, as after SIGTERM."""
        log.info("aiodctl drain: draining for at most %g s", self._config.drain_timeout_s)
        self._stop.set()

    async def _reload_by_signal(self) -> None:
        try:
            await self.reload()
        except ConfigError:
            pass  # reload() has logged it
        except OSError as error:
            log.error("SIGHUP: %s", error.strerror or error)
        except Exception:
            log.exception("SIGHUP: internal error in the reload")

    # ---- starting

    async def _wait_engines(self) -> None:
        """Wait until the engines serve: the front endpoint opens then, so that its clients find all of them."""
        engines = asyncio.create_task(self._wait_all())
        stop = asyncio.create_task(self._stopped())
        await asyncio.wait({engines, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        engines.cancel()

    async def _wait_all(self) -> None:
        await asyncio.gather(*(self._wait_engine(engine) for engine in self._engines.values()))

    async def _stopped(self) -> None:
        await self._stop.wait()

    async def _wait_engine(self, engine: Engine) -> None:
        try:
            await engine.wait_serving()
        except EngineUnavailableError as error:
            log.error("%s: serving without this engine", error, extra=logs.about(engine=engine.name))

    async def _announce(self) -> None:
        """Report readiness to systemd when every engine serves; if one never does, systemd's start timeout expires."""
        for engine in list(self._engines.values()):
            while engine.state != "serving":
                try:
                    await engine.wait_serving()
                except EngineUnavailableError as error:
                    log.debug("%s: not ready", error)
        self._ready = True
        self._notifier.ready()

    # ---- reloading

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again, and apply it. Returns what changed, what needs a restart, and late engines.

        Raises ConfigError when it is wrong, OSError when there is no file or the daemon is stopping; then nothing has
        changed.
        """
        path = self._config_path
        if path is None:
            raise OSError(
                errno.EINVAL,
                "the daemon uses its embedded default and has no file to reload; start it with --config",
            )
        async with self._reloading:
            self._refuse_while_stopping()
            self._notifier.reloading()
            try:
                return await self._reload(path)
            except ConfigError as error:
                log.error("reload: nothing was changed: %s", "; ".join(str(error).splitlines()))
                raise
            finally:
                if self._ready:
                    self._notifier.ready()

    def _refuse_while_stopping(self) -> None:
        if self._stop.is_set():
            raise OSError(errno.ESHUTDOWN, "the daemon is stopping; nothing was changed")

    async def _reload(self, path: Path) -> dict[str, Any]:
        # Not on the main loop: the file may be on a slow file system.
        read = await asyncio.to_thread(load_config, path)
        wanted = self._added_disks.merged(read, str(path))
        config, changed, restart = plan(self._config, wanted, str(path))
        late = await self._deliver(config)
        self._config = config
        warn_of_exports({change.key[1]: config.exports[change.key[1]] for change in changed if _is_export(change)})
        warn_of_engines(wanted)
        self._remove({*self._engines} - {*config.engines})
        self._add({*config.engines} - {*self._engines})
        if self._tcp is not None:
            self._tcp.apply(config)
        self._apply_to_front(config)
        logs.set_level(config.log_level)
        lines = [*map(str, changed), *self._leave_disks_to(read)]
        for line in lines:
            log.info("reload: %s", line)
        for change in restart:
            log.warning("reload: %s: needs a restart", change)
        log.info("reloaded %s: %d changed, %d need a restart", path, len(lines), len(restart))
        return {"changed": lines, "restart": [*map(str, restart)], "late": late}

    def _leave_disks_to(self, read: Config) -> list[str]:
        """The file has sections of disks that aiodctl has added: these are the file's now. One line for each."""
        names = self._added_disks.now_in(read)
        for name in names:
            self._added_disks.discard(name)
        return [f"vhost.{name}: aiodctl had added this disk; it belongs to the file now" for name in names]

    async def _deliver(self, config: Config) -> list[str]:
        """Deliver `config` to every engine that stays; the names of those that did not answer.

        Raises ConfigError when an engine refuses it; then all continue with the previous configuration.
        """
        engines = [engine for name, engine in self._engines.items() if name in config.engines]
        answers = await asyncio.gather(*(engine.reload(config) for engine in engines), return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, BaseException)]
        if not refusals:
            return [engine.name for engine, answered in zip(engines, answers, strict=True) if not answered]
        others = [
            engine for engine, answer in zip(engines, answers, strict=True) if not isinstance(answer, BaseException)
        ]
        await self._roll_back(others)
        for refusal in refusals:
            if not isinstance(refusal, EngineRefusedError):
                raise refusal
        raise ConfigError("; ".join(map(str, refusals)))

    async def _roll_back(self, engines: list[Engine]) -> None:
        for answer in await asyncio.gather(
            *(engine.reload(self._config) for engine in engines), return_exceptions=True
        ):
            if isinstance(answer, Exception):
                log.critical("reload: cannot restore the previous configuration: %s", answer)

    def _remove(self, names: set[str]) -> None:
        for name in names:
            engine = self._engines.pop(name)
            task = asyncio.create_task(engine.stop(self._config.drain_timeout_s))
            self._leaving[engine] = task
            task.add_done_callback(functools.partial(self._removed, engine))

    def _removed(self, engine: Engine, _: asyncio.Task[bool]) -> None:
        del self._leaving[engine]

    def _add(self, names: set[str]) -> None:
        for name in names:
            self._engines[name] = engine = Engine(self._config, name, self._internal_error)
            engine.start([task for leaving, task in self._leaving.items() if leaving.name == name])

    # ---- disks of guests

    async def add_disk(self, name: str, section: dict[str, Any]) -> None:
        """Serve one more disk, by the keys of [vhost.NAME] in `section`; return when its file is open.

        Raises ConfigError or OSError with the reason; nothing has changed then.
        """
        async with self._reloading:
            self._refuse_while_stopping()
            self._refuse_name(name)
            before = self._config
            config = added_disks.with_disk(before, name, section)
            engine = Engine(config, ENGINE_PREFIX + name, self._internal_error)
            engine.listen_for_guest()
            self._config = config
            self._engines[engine.name] = engine
            engine.start()
            try:
                await added_disks.wait_open(engine)
            except OSError:
                self._config = before
                self._remove({engine.name})
                await asyncio.wait({self._leaving[engine]}, timeout=STOP_MARGIN_S)
                raise
            self._added_disks.add(name, section)
            self._apply_to_front(config)
            log.info("disk %s was added: %s", name, section)

    def _refuse_name(self, name: str) -> None:
        engine = ENGINE_PREFIX + name
        if name in self._config.vhost:
            raise OSError(errno.EEXIST, f"there is a disk {name} already; aiodctl vhost shows the disks")
        if any(leaving.name == engine for leaving in self._leaving):
            raise OSError(
                errno.EBUSY, f"the disk {name} was removed, and its engine has not ended yet; try again later"
            )

    async def remove_disk(self, name: str, *, force: bool, wait_s: float) -> bool:
        """Remove a disk that was added. Its engine completes the requests in flight: False, if it still does.

        Raises OSError with the reason when the disk stays.
        """
        async with self._reloading:
            self._refuse_while_stopping()
            if name not in self._config.vhost:
                known = ", ".join(sorted(self._config.vhost)) or "none"
                raise OSError(errno.ENOENT, f"there is no disk {name!r}; the disks are: {known}")
            if name not in self._added_disks:
                raise OSError(
                    errno.EINVAL, f"the disk {name} is in {self._config_path}: remove [vhost.{name}] there, and reload"
                )
            engine = self._engines[ENGINE_PREFIX + name]
            if not force:
                await added_disks.refuse_while_connected(engine)
            self._config = added_disks.without_disk(self._config, name)
            self._added_disks.discard(name)
            self._remove({engine.name})
            self._apply_to_front(self._config)
            log.info("disk %s was removed", name)
            ending = self._leaving[engine]
        ended, _ = await asyncio.wait({ending}, timeout=wait_s)
        return bool(ended)

    def _apply_to_front(self, config: Config) -> None:
        if self._front is not None:
            self._front.apply(config)

    # ---- running, stopping

    async def _stop_engines(self) -> bool:
        timeout_s = self._config.drain_timeout_s
        leaving = [*self._leaving.values()]
        results = await asyncio.gather(*leaving, *(engine.stop(timeout_s) for engine in self._engines.values()))
        return all(results) and self._signals < 2  # noqa: PLR2004 - the second signal means at once

    async def _follow_affinity(self) -> None:
        """When the affinity of this main thread changes, set that of the engines that inherit it."""
        while True:
            await asyncio.sleep(_AFFINITY_PERIOD_S)
            cpus = os.sched_getaffinity(0)
            if cpus == self._cpus:
                continue
            self._cpus = cpus
            log.info("affinity is %s now: setting that of the engines", sorted(cpus))
            for engine in self._engines.values():
                if engine.inherits_affinity:
                    engine.move_to(cpus)


def _is_export(change: Change) -> bool:
    """Whether an export was added or changed."""
    return change.key[0] == "exports" and change.after is not None


def serve(config: Config, config_path: Path | None) -> int:
    """Run the daemon; the exit status. Errors of the start are logged with a remedy.

    `config_path`: the file to read at a reload. When a process of an engine does not leave the kernel, this function
    does not return but exits.
    """
    alike = logs.configure(config.log_level)
    notifier = Notifier()
    if (unfit := why_unfit()) is not None:
        log.critical("%s", unfit)
        notifier.status(unfit)
        return EXIT_FAILED
    for way in ways_off():
        log.warning("%s: %s", way["text"], way["remedy"])
    try:
        runtime_dir.prepare(config.runtime_dir)
        lock_fd = runtime_dir.take_lock(config.runtime_dir)
    except OSError as error:
        log.critical("%s", error)
        notifier.status(str(error))
        return EXIT_FAILED
    raise_descriptors()
    unclean = runtime_dir.remove_stale_sockets(config.runtime_dir)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(config, config_path, notifier, unclean=unclean))
    runtime_dir.remove_ring_links(config.runtime_dir)
    alike.report()
    if multiprocessing.active_children():
        # multiprocessing would wait for them at exit, for as long as the kernel holds them.
        logging.shutdown()
        os._exit(status)
    os.close(lock_fd)
    return status


async def _run(config: Config, config_path: Path | None, notifier: Notifier, *, unclean: bool) -> int:
    return await Service(config, config_path, notifier, unclean=unclean).run()
