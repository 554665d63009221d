"""A client that has no memory for an answer: each request ends nevertheless."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.session import in_flight, session
from tests.patience import scaled

STEPS = [(session, "complete_records"), (in_flight, "fill_records")]


def fail_once(monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]) -> None:
    """Have the step raise MemoryError, when it has done what it does, the first time."""
    module, name = step
    real = getattr(module, name)

    def failing(*arguments: Any) -> Any:
        monkeypatch.setattr(module, name, real)
        real(*arguments)
        raise MemoryError

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize("step", STEPS)
def test_the_blocking_client_ends_each_request(
    shared_daemon: Any, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    (shared_daemon.path / "file").write_bytes(b"data")
    with (
        aiod_client.connect(shared_daemon.endpoint, transport="zmq", reconnect_timeout=scaled(30)) as client,
        client.open("scratch/file") as file,
    ):
        fail_once(monkeypatch, step)
        with pytest.raises(MemoryError):
            file.pread(4, 0)
        futures = file.submit([("read", 4, 0)] * 3)
        assert [future.result(scaled(30)) for future in futures] == [b"data"] * 3


@pytest.mark.parametrize("step", STEPS)
def test_the_asyncio_client_ends_each_request(
    shared_daemon: Any, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    (shared_daemon.path / "file").write_bytes(b"data")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it hears of the MemoryError
        async with (
            aio.connect(shared_daemon.endpoint, transport="zmq", reconnect_timeout=scaled(30)) as client,
            await client.open("scratch/file") as file,
        ):
            fail_once(monkeypatch, step)
            reads = [asyncio.ensure_future(file.pread(4, 0)) for _ in range(3)]
            assert await asyncio.wait_for(asyncio.gather(*reads), scaled(30)) == [b"data"] * 3

    asyncio.run(main())
