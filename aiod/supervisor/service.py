"""The daemon's life: start, serve, drain, stop; and its signals. The one place that wires the supervisor together."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop
import zmq

from aiod import __version__, logs
from aiod.limits import raise_descriptors
from aiod.supervisor import runtime_dir
from aiod.supervisor.control import Control
from aiod.supervisor.engines import Engine, EngineUnavailableError

if TYPE_CHECKING:
    from aiod.config import Config

log = logging.getLogger(__name__)

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1

_AFFINITY_PERIOD_S: Final = 0.5
_LINGER_MS: Final = 500


class Service:
    """One running daemon. Main loop thread only."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engines = {name: Engine(config, name, self._engine_failed) for name in config.engines}
        self._signals = 0
        self._failed = False
        self._stop = asyncio.Event()
        self._cpus = os.sched_getaffinity(0)

    async def run(self) -> int:
        """Serve until a signal says stop; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        self._warn_of_missing_exports()
        for engine in self._engines.values():
            engine.start()
        await self._wait_engines()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        # Whatever ends us, the context's end never waits for messages to peers that do not read.
        context.setsockopt(zmq.BLOCKY, 0)
        try:
            control = Control(self._config, self._engines, context)
        except OSError as error:
            log.critical("%s", error.strerror or error)
            await self._stop_engines()
            return EXIT_FAILED
        control.start()
        follow = asyncio.create_task(self._follow_affinity())
        log.info("aiod %s serves %s", __version__, self._config.front_endpoint)
        await self._stop.wait()
        drained = await self._stop_engines()
        follow.cancel()
        control.close(_LINGER_MS)
        context.term()
        log.info("stopped" if drained else "stopped, with work left undone")
        return EXIT_DONE if drained and not self._failed else EXIT_FAILED

    def _engine_failed(self) -> None:
        """An engine that nobody watches any more: better a daemon that ends, and is started again."""
        self._failed = True
        self._stop.set()

    def _signalled(self, number: signal.Signals) -> None:
        self._signals += 1
        self._stop.set()
        if self._signals == 1:
            log.info("%s: draining, for at most %g s", number.name, self._config.drain_timeout_s)
            return
        log.warning("%s again: ending at once", number.name)
        for engine in self._engines.values():
            engine.abandon()

    def _warn_of_missing_exports(self) -> None:
        for name, export in self._config.exports.items():
            if not Path(export.path).exists():
                log.warning("export %s: %s is not there (yet)", name, export.path)

    async def _wait_engines(self) -> None:
        """The front endpoint opens when the engines serve: whoever gets an answer there finds all of them."""
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
            log.error("%s: serving without it", error)

    async def _stop_engines(self) -> bool:
        timeout_s = self._config.drain_timeout_s
        results = await asyncio.gather(*(engine.stop(timeout_s) for engine in self._engines.values()))
        return all(results) and self._signals < 2  # noqa: PLR2004 - the second signal means at once

    async def _follow_affinity(self) -> None:
        """Pass a changed mask of this main thread on to the engines that inherit it."""
        while True:
            await asyncio.sleep(_AFFINITY_PERIOD_S)
            cpus = os.sched_getaffinity(0)
            if cpus == self._cpus:
                continue
            self._cpus = cpus
            log.info("affinity is %s now: passing it on", sorted(cpus))
            for engine in self._engines.values():
                if engine.inherits_affinity:
                    engine.move_to(cpus)


def serve(config: Config) -> int:
    """Be the daemon; the exit status. Errors of the start are logged with what to do.

    Does not return when an engine had to be left behind inside the kernel, but exits the process.
    """
    alike = logs.configure(config.log_level)
    try:
        runtime_dir.prepare(config.runtime_dir)
        lock_fd = runtime_dir.take_lock(config.runtime_dir)
    except OSError as error:
        log.critical("%s", error)
        return EXIT_FAILED
    raise_descriptors()
    runtime_dir.remove_stale_sockets(config.runtime_dir)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        status = runner.run(_run(config))
    runtime_dir.remove_ring_links(config.runtime_dir)
    alike.report()
    if multiprocessing.active_children():
        # multiprocessing would wait for them at exit, for as long as the kernel holds them.
        logging.shutdown()
        os._exit(status)
    os.close(lock_fd)
    return status


async def _run(config: Config) -> int:
    return await Service(config).run()
