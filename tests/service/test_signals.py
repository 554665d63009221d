"""Programs with interval timers: a handler that does nothing is noticed by nobody, in whatever it interrupts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import _ring, aio, ring_attach
from tests.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("_no_descriptor_is_left")

ROUNDS = 10
BLOCK = bytes(range(256)) * 64


@pytest.fixture(params=["zmq", "auto"])
def transport(request: pytest.FixtureRequest) -> Any:
    """Both ways."""
    return request.param


@pytest.fixture(params=[0.01, 0.001, 0.0003])
def interval_s(request: pytest.FixtureRequest) -> Any:
    """Of the timer."""
    return request.param


@pytest.fixture(params=[False, True], ids=["restart", "interrupt"])
def interrupts(request: pytest.FixtureRequest) -> Any:
    """Whether system calls end with EINTR (no SA_RESTART)."""
    return request.param


@contextlib.contextmanager
def timer(interval_s: float, *, interrupts: bool) -> Iterator[list[int]]:
    """SIGALRM again and again, to a handler that only counts."""
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


def test_blocking(daemon: Any, transport: Any, interval_s: float, *, interrupts: bool) -> None:
    with timer(interval_s, interrupts=interrupts) as fired:
        for _ in range(ROUNDS):
            with aiod_client.connect(daemon.endpoint, transport=transport) as client:
                use(client)
                assert client.control("stats")["engines"]
        assert fired[0]


def test_awaited(daemon: Any, transport: Any, interval_s: float, *, interrupts: bool) -> None:
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


def test_a_failed_attach_leaves_a_session_that_works(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attach_in_vain(monkeypatch)
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/file", "w+") as file:
        wait_until(lambda: daemon.engine["sessions"] == 1 and daemon.engine["rings"] == 0, "what is left has gone")
        assert file.pwrite(BLOCK, 0) == len(BLOCK)
        use(client)
        assert file._link.ring is None
        with pytest.raises(aiod_client.AiodError, match="transport ring: Interrupted"):
            aiod_client.connect(daemon.endpoint, transport="ring").open("scratch/file")


def test_a_failed_attach_leaves_a_session_that_works_awaited(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint) as client, await client.open("scratch/file", "w+") as file:
            await asyncio.to_thread(wait_until, lambda: daemon.engine["rings"] == 0, "what is left has gone")
            assert await file.pwrite(BLOCK, 0) == len(BLOCK)
            await use_awaited(client)

    attach_in_vain(monkeypatch)
    asyncio.run(main())


def test_a_failed_attach_after_the_engines_death_too(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        aiod_client.connect(daemon.endpoint, reconnect_timeout=30) as client,
        client.open("scratch/file", "w+") as file,
    ):
        assert file.pwrite(BLOCK, 0) == len(BLOCK)
        attach_in_vain(monkeypatch)
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert file.pread(len(BLOCK), 0) == BLOCK
        wait_until(lambda: daemon.engine["sessions"] == 1 and daemon.engine["rings"] == 0, "what is left has gone")
        assert file.pwrite(BLOCK, len(BLOCK)) == len(BLOCK)
        assert file.pread(len(BLOCK), 0) == BLOCK
