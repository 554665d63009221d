"""Clients call anything at any moment while engines and the daemon die: every call returns, and nothing leaks.

What is in the files is not looked at; for that there is the soak.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import secrets
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.conftest import Daemon, kill, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 12.0
ANSWER_S = scaled(40.0)
"""A call that has not returned after this time counts as lost; longer than every timeout here."""
AFTERWARDS_S = 4.0
"""For what is to be seen of the last engine."""
TASKS = 6
FILES_MAX = 6
MIB = 2**20
ENDINGS = (OSError, CancelledError)
"""Exceptions that calls may raise; aiod's errors are OSErrors."""


class Doings:
    """Calls of one client, blocking or asyncio; the results of an asyncio client's are awaited by the caller."""

    def __init__(self, client: Any, choice: random.Random) -> None:
        self.client = client
        self.files: list[Any] = []
        self._choice = choice

    def next(self) -> Callable[[], Any]:
        """Something."""
        if not self.files:
            return self.open
        return self._choice.choice((self.open, self.close, *(3 * [self.use]), *(3 * [self.submit])))

    def open(self) -> Any:
        """A file, to be put among `files`."""
        mode = self._choice.choice(("w+", "r+", "x+", "a+", "r"))
        return self.client.open(self._path(), mode, timeout=self._timeout())

    def close(self) -> Any:
        """One of the files, if there are many."""
        if len(self.files) < FILES_MAX:
            return self.use()
        return self.files.pop(self._choice.randrange(FILES_MAX)).close(timeout=self._timeout())

    def use(self) -> Any:
        """A file, or a name."""
        file, client, timeout = self._file(), self.client, self._timeout()
        return self._choice.choice(
            (
                lambda: client.rename(self._path(), self._path(), timeout=timeout),
                lambda: client.remove(self._path(), timeout=timeout),
                lambda: client.list("scratch", timeout=timeout),
                lambda: client.stat(self._path(), timeout=timeout),
                lambda: file.pread(4096, 0, timeout=timeout),
                lambda: file.pwrite(bytes(70_000), self._choice.randrange(MIB), timeout=timeout),
                lambda: file.copy_range(self._file(), 0, 65_536, 65_536, timeout=timeout),
                lambda: file.append(bytes(100), timeout=timeout),
                lambda: file.truncate(self._choice.randrange(MIB), timeout=timeout),
                lambda: file.extents(timeout=timeout),
                lambda: file.flush(timeout=timeout),
            )
        )()

    def submit(self) -> list[Any]:
        """A batch, of which some are cancelled; the futures."""
        reads = [("read", self._choice.choice((1, 4096, 300_000)), self._choice.randrange(MIB)) for _ in range(8)]
        writes = [("write", bytes(4096), self._choice.randrange(MIB)) for _ in range(self._choice.randrange(24))]
        futures: list[Any] = self._file().submit([*reads, *writes], timeout=self._timeout())
        for future in self._choice.sample(futures, len(futures) // 4):
            future.cancel()
        return futures

    def _file(self) -> Any:
        return self._choice.choice(self.files)

    def _path(self) -> str:
        return f"scratch/{self._choice.randrange(8)}"

    def _timeout(self) -> float | None:
        return self._choice.choice((None, None, None, 0.0, 0.01, 0.3, 2.0))


class Anything(threading.Thread):
    """Clients, one after the other."""

    def __init__(self, endpoint: str, transport: Any, seed: int, end_s: float) -> None:
        """Until `end_s` (of time.monotonic())."""
        super().__init__(daemon=True)
        self.wrong: list[BaseException] = []
        self.done = 0
        """Calls that have succeeded."""
        self._endpoint = endpoint
        self._choice = random.Random(seed)  # noqa: S311 - a load
        self._options: dict[str, Any] = {"transport": transport, "timeout": ANSWER_S / 2}
        self._end_s = end_s

    def run(self) -> None:
        """Until the end."""
        try:
            while time.monotonic() < self._end_s:
                life_s = min(self._end_s, time.monotonic() + self._choice.choice((0.5, 2.0, 5.0)))
                options = self._options | {"reconnect_timeout": self._choice.choice((0.2, 10.0, 10.0))}
                with contextlib.suppress(OSError):
                    self._live(options, life_s)
        except BaseException as error:  # noqa: BLE001 - the test tells of it
            self.wrong.append(error)

    def _live(self, options: dict[str, Any], life_s: float) -> None:
        with aiod_client.connect(self._endpoint, **options) as client:
            doings = Doings(client, self._choice)
            while time.monotonic() < life_s:
                with contextlib.suppress(*ENDINGS):
                    self._take(doings, doings.next()())
                    self.done += 1

    def _take(self, doings: Doings, result: Any) -> None:
        if isinstance(result, aiod_client.File):
            doings.files.append(result)
        elif isinstance(result, list) and result and hasattr(result[0], "cancel"):
            for future in result:
                with contextlib.suppress(*ENDINGS):
                    future.result(ANSWER_S)
                assert future.done(), "a request has no answer"


class AnythingAwaited(Anything):
    """The same, by several tasks of each client."""

    def _live(self, options: dict[str, Any], life_s: float) -> None:
        asyncio.run(self._tasks(options, life_s))

    async def _tasks(self, options: dict[str, Any], life_s: float) -> None:
        async with aio.connect(self._endpoint, **options) as client:
            await asyncio.gather(*(self._task(client, life_s) for _ in range(TASKS)))

    async def _task(self, client: aio.Client, life_s: float) -> None:
        doings = Doings(client, self._choice)
        while time.monotonic() < life_s:
            with contextlib.suppress(*ENDINGS, asyncio.CancelledError):
                result = doings.next()()
                if isinstance(result, list):
                    _, pending = await asyncio.wait(result, timeout=ANSWER_S)
                    assert not pending, "a request has no answer"
                else:
                    await self._await(doings, result)
                self.done += 1

    async def _await(self, doings: Doings, result: Any) -> None:
        got = await asyncio.wait_for(result, self._choice.choice((0.0005, 0.01, None, None)))
        if isinstance(got, aio.File):
            doings.files.append(got)


class Ends:
    """What ends engines, and daemons."""

    def __init__(self, daemon: Daemon, choice: random.Random) -> None:
        self._daemon = daemon
        self._choice = choice

    def one(self) -> None:
        """One of them, a moment later."""
        time.sleep(self._choice.choice((0.02, 0.1, 0.5, 1.0)))  # not to wait for anything: the moment is at random
        self._choice.choice((self._kill_engine, self._kill_engine, self._kill_daemon, self._restart))()

    def last(self) -> None:
        """The one whose successor is looked at."""
        wait_until(lambda: self._daemon.engine["state"] == "serving", "an engine")
        self._kill_engine()

    def _kill_engine(self) -> None:
        engine = self._daemon.engine
        if engine["state"] == "serving":  # else that is the pid of one that has gone
            kill(engine["pid"])

    def _kill_daemon(self) -> None:
        assert self._daemon.process is not None
        self._daemon.process.kill()
        self._daemon.process.wait()
        self._daemon.start()

    def _restart(self) -> None:
        self._daemon.stop()
        self._daemon.start()


def rings() -> int:
    """Whose memory this process has."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/memfd:aiod")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")  # files dropped, coroutines not begun
def test_every_call_ends_and_nothing_is_left(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    seed = secrets.randbelow(1 << 30)
    before = rings()
    end_s = time.monotonic() + SECONDS
    clients = [
        kind(daemon.endpoint, transport, seed + number, end_s)
        for number, (kind, transport) in enumerate(
            (kind, transport) for kind in (Anything, AnythingAwaited) for transport in ("zmq", "ring")
        )
    ]
    for client in clients:
        client.start()
    ends = Ends(daemon, random.Random(seed))  # noqa: S311 - a schedule
    while time.monotonic() < end_s - AFTERWARDS_S:
        ends.one()
    ends.last()
    for client in clients:
        client.join(ANSWER_S)
    assert [client.wrong for client in clients] == [[] for _ in clients], f"seed {seed}"
    assert not any(client.is_alive() for client in clients), f"seed {seed}: a call has not ended"
    assert all(client.done for client in clients)
    wait_until(lambda: daemon.engine["state"] == "serving", "an engine")
    wait_until(lambda: not any(daemon.engine[what] for what in ("files", "rings", "inflight")), "nothing is left there")
    assert rings() == before
