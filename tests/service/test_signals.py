"""Programs with timers: a handler without effect disturbs nothing; one that raises ends only the interrupted call."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import _ring, aio
from aiod_client.ring import attach as ring_attach
from tests.conftest import wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Daemon

pytestmark = pytest.mark.usefixtures("_no_descriptor_is_left")

ROUNDS = 10
BLOCK = bytes(range(256)) * 64


@pytest.fixture(name="daemon")
def daemon_fixture(renewed_daemon: Daemon) -> Daemon:
    """The same one for all tests."""
    return renewed_daemon


@pytest.fixture(params=["zmq", "auto"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture(params=[0.01, 0.001, 0.0003])
def interval_s(request: pytest.FixtureRequest) -> Any:
    """Raised by the handler of the timer's signal."""
    return request.param


@pytest.fixture(params=[False, True], ids=["restart", "interrupt"])
def interrupts(request: pytest.FixtureRequest) -> Any:
    """Whether system calls fail with EINTR (no SA_RESTART)."""
    return request.param


@contextlib.contextmanager
def timer(interval_s: float, *, interrupts: bool) -> Iterator[list[int]]:
    """SIGALRM at short intervals, to a handler that only counts."""
    fired = [0]

    def count(*_: object) -> None:
        fired[0] += 1

    usual = signal.signal(signal.SIGALRM, count)
    signal.siginterrupt(signal.SIGALRM, interrupts)
    signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)
    try:
        yield fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, usual)


def descriptors() -> set[str]:
    """What each is, with its number."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names
        with contextlib.suppress(FileNotFoundError):  # that of the list itself
            found.add(f"{number} {Path(f'/proc/self/fd/{number}').readlink()}")
    return found


@pytest.fixture
def _no_descriptor_is_left(daemon: Any) -> Iterator[None]:
    """By the test; what pyzmq opens for good, with the first payload that it does not copy, does not count."""
    with aiod_client.connect(daemon.endpoint, transport="zmq") as client:
        use(client)
    before = descriptors()
    yield
    gc.collect()
    wait_until(lambda: len(descriptors()) <= len(before), f"no descriptor is left: {descriptors() - before}")


def use(client: aiod_client.Client) -> None:
    with client.open("scratch/file", "w+") as file:
        assert file.pwrite(BLOCK, 0) == len(BLOCK)
        assert file.pread(len(BLOCK), 0) == BLOCK
        into = bytearray(len(BLOCK))
        assert file.pread_into(into, 0) == len(BLOCK)
        futures = file.submit([("write", BLOCK, number * len(BLOCK)) for number in range(20)])
        assert [future.result() for future in futures] == [len(BLOCK)] * 20
        file.flush()
        assert file.append(b"end") == 20 * len(BLOCK)
        futures = file.submit([("read", len(BLOCK), number * len(BLOCK)) for number in range(20)])
        assert [future.result() for future in futures] == [BLOCK] * 20
        assert file.size() == file.stat().size == 20 * len(BLOCK) + 3


async def use_awaited(client: aio.Client) -> None:
    async with await client.open("scratch/file", "w+") as file:
        assert await file.pwrite(BLOCK, 0) == len(BLOCK)
        assert await file.pread(len(BLOCK), 0) == BLOCK
        writes = [file.pwrite(BLOCK, number * len(BLOCK)) for number in range(20)]
        assert await asyncio.gather(*writes) == [len(BLOCK)] * 20
        await file.flush()
        futures = file.submit([("read", len(BLOCK), number * len(BLOCK)) for number in range(20)])
        assert await asyncio.gather(*futures) == [BLOCK] * 20


def test_signals_do_not_disturb_a_blocking_client(
    daemon: Any, transport: Any, interval_s: float, *, interrupts: bool
) -> None:
    with timer(interval_s, interrupts=interrupts) as fired:
        for _ in range(ROUNDS):
            with aiod_client.connect(daemon.endpoint, transport=transport) as client:
                use(client)
                assert client.control("stats")["engines"]
        assert fired[0]


def test_signals_do_not_disturb_an_asyncio_client(
    daemon: Any, transport: Any, interval_s: float, *, interrupts: bool
) -> None:
    async def main() -> None:
        for _ in range(ROUNDS):
            async with aio.connect(daemon.endpoint, transport=transport) as client:
                await use_awaited(client)

    with timer(interval_s, interrupts=interrupts) as fired:
        asyncio.run(main())
        assert fired[0]


# ---- a ring that could not be had -----------------------------------------------------------------------------------


def attach_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As EINTR did when the engine had attached already: its socket is closed, and that is the session's end."""
    usual = ring_attach._attach

    def attach(welcome: Any, endpoint: str) -> _ring.Ring:
        usual(welcome, endpoint)
        raise InterruptedError(4, "Interrupted system call")

    monkeypatch.setattr(ring_attach, "_attach", attach)


def test_a_session_works_after_an_interrupted_attach(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attach_in_vain(monkeypatch)
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/file", "w+") as file:
        wait_until(lambda: daemon.engine["sessions"] == 1 and daemon.engine["rings"] == 0, "what is left has gone")
        assert file.pwrite(BLOCK, 0) == len(BLOCK)
        use(client)
        assert file._link.ring is None
        with pytest.raises(aiod_client.AiodError, match="transport ring: Interrupted"):
            aiod_client.connect(daemon.endpoint, transport="ring").open("scratch/file")


def test_an_asyncio_session_works_after_an_interrupted_attach(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint) as client, await client.open("scratch/file", "w+") as file:
            await asyncio.to_thread(wait_until, lambda: daemon.engine["rings"] == 0, "what is left has gone")
            assert await file.pwrite(BLOCK, 0) == len(BLOCK)
            await use_awaited(client)

    attach_in_vain(monkeypatch)
    asyncio.run(main())


def test_a_resumed_session_works_after_an_interrupted_attach(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        aiod_client.connect(daemon.endpoint, reconnect_timeout=scaled(60)) as client,
        client.open("scratch/file", "w+") as file,
    ):
        assert file.pwrite(BLOCK, 0) == len(BLOCK)
        attach_in_vain(monkeypatch)
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert file.pread(len(BLOCK), 0) == BLOCK
        wait_until(lambda: daemon.engine["sessions"] == 1 and daemon.engine["rings"] == 0, "what is left has gone")
        assert file.pwrite(BLOCK, len(BLOCK)) == len(BLOCK)
        assert file.pread(len(BLOCK), 0) == BLOCK


# ---- handlers that raise --------------------------------------------------------------------------------------------

INTERRUPTIONS = 200


class InterruptionError(Exception):
    """Raised by the handler."""


class Alarm:
    """Raises InterruptionError once, somewhere in the midst of what is done in its `with` block."""

    def __init__(self) -> None:
        self._random = random.Random(5)  # noqa: S311 - no secret
        self._armed = False
        self._took_s = 0.0
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, *_: object) -> None:
        if self._armed:
            raise InterruptionError

    def interrupts(self, use: Callable[[], object]) -> bool:
        """Whether it did."""
        began_s = time.monotonic()
        try:
            self._armed = True
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + self._random.random() * self._took_s)
            use()
            self._armed = False
        except InterruptionError:
            self._armed = False
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._took_s = time.monotonic() - began_s
        return False


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    """Off in the end."""
    usual = signal.getsignal(signal.SIGALRM)
    yield Alarm()
    signal.signal(signal.SIGALRM, usual)


class Reader(threading.Thread):
    """A thread that uses the client, too; signal handlers do not run in it."""

    def __init__(self, file: aiod_client.File) -> None:
        super().__init__()
        self.ends = False
        self.reads = 0
        self.failure: BaseException | None = None
        self._file = file
        self.start()

    def run(self) -> None:
        """Read until told to end."""
        try:
            while not self.ends:
                assert self._file.pread(len(BLOCK), 0) == BLOCK
                (future,) = self._file.submit([("read", len(BLOCK), 0)])
                assert future.result() == BLOCK
                self.reads += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error


def batch(file: aiod_client.File) -> None:
    futures = file.submit([("write", BLOCK, number * len(BLOCK)) for number in range(10)] + [("size",)] * 10)
    for future in futures:
        future.result()


def open_another(client: aiod_client.Client) -> None:
    with client.open("scratch/other", "w+") as file:
        file.pwrite(BLOCK, 0)


def connect_another(endpoint: str, transport: Any) -> None:
    with aiod_client.connect(endpoint, transport=transport, timeout=scaled(60)) as client:
        open_another(client)


@pytest.mark.parametrize(
    "what", ["pread", "pread_into", "pwrite", "flush", "size", "stat", "batch", "list", "open", "connect"]
)
def test_a_signal_handler_that_raises_leaves_a_working_client(
    daemon: Any, transport: Any, alarm: Alarm, what: str
) -> None:
    with (
        aiod_client.connect(
            daemon.endpoint, transport=transport, timeout=scaled(60), reconnect_timeout=scaled(60)
        ) as client,
        client.open("scratch/file", "w+") as file,
    ):
        file.pwrite(BLOCK, 0)
        uses: dict[str, Callable[[], object]] = {
            "pread": lambda: file.pread(len(BLOCK), 0),
            "pread_into": lambda: file.pread_into(bytearray(len(BLOCK)), 0),
            "pwrite": lambda: file.pwrite(BLOCK, 0),
            "flush": file.flush,
            "size": file.size,
            "stat": file.stat,
            "batch": lambda: batch(file),
            "list": lambda: client.list("scratch"),
            "open": lambda: open_another(client),
            "connect": lambda: connect_another(daemon.endpoint, transport),
        }
        reader = Reader(file)
        interrupted = 0
        try:
            for _ in range(INTERRUPTIONS if what != "connect" else INTERRUPTIONS // 4):
                interrupted += alarm.interrupts(uses[what])
                assert file.pread(len(BLOCK), 0) == BLOCK
                (future,) = file.submit([("read", len(BLOCK), 0)])
                assert future.result() == BLOCK
        finally:
            reader.ends = True
            reader.join()
        assert reader.failure is None
        assert reader.reads
        assert interrupted
        wait_until(lambda: len(daemon.json("handles")["handles"]) == 1, "no file but this one is left open")
    wait_until(lambda: daemon.engine["sessions"] == 0, "no session is left")


def test_an_append_that_a_raising_handler_interrupts_is_executed_at_most_once(
    daemon: Any, transport: Any, alarm: Alarm
) -> None:
    """The append is executed once, or not at all."""
    with (
        aiod_client.connect(
            daemon.endpoint, transport=transport, timeout=scaled(60), reconnect_timeout=scaled(60)
        ) as client,
        client.open("scratch/log", "a+") as file,
    ):
        records = [f"<{number}>".encode() for number in range(INTERRUPTIONS)]
        interrupted = {record for record in records if alarm.interrupts(functools.partial(file.append, record))}
        assert interrupted
        file.flush()
        content = (daemon.path / "log").read_bytes()
        for record in records:
            assert content.count(record) in ({0, 1} if record in interrupted else {1})
