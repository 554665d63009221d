"""A client whose event loop has ended, or is not the one that runs: close() works, and everything else says so."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import Daemon

PATIENCE_S = scaled(60.0)


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


async def opened(daemon: Daemon, transport: Any) -> tuple[aio.Client, aio.File]:
    """A client, and a file of it with four bytes."""
    client = await aio.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S)
    file = await client.open("scratch/loops", "w+")
    await file.pwrite(b"data", 0)
    return client, file


USES: dict[str, Callable[[aio.Client, aio.File], Any]] = {
    "pread": lambda _, file: file.pread(4, 0),
    "pread_into": lambda _, file: file.pread_into(bytearray(4), 0),
    "pwrite": lambda _, file: file.pwrite(b"more", 0),
    "flush": lambda _, file: file.flush(),
    "size": lambda _, file: file.size(),
    "submit": lambda _, file: file.submit([("size",)])[0],
    "buffer": lambda client, _: client.buffer(4096),
    "open": lambda client, _: client.open("scratch/loops"),
    "read_file": lambda client, _: client.read_file("scratch/loops"),
    "list": lambda client, _: client.list("scratch"),
    "control": lambda client, _: client.control("ping"),
}


def test_after_the_loop_has_ended_every_use_says_so_and_close_works(shared_daemon: Daemon, transport: Any) -> None:
    client, file = asyncio.run(opened(shared_daemon, transport))

    async def use(call: Callable[[aio.Client, aio.File], Any]) -> None:
        with pytest.raises(aiod_client.AiodError, match="event loop that has ended") as caught:
            await call(client, file)
        assert caught.value.errno == errno.EBADF

    for call in USES.values():
        asyncio.run(use(call))
    asyncio.run(file.close())
    asyncio.run(client.close())
    assert (file.closed, client.closed) == (True, True)
    asyncio.run(client.close())


def sessions(daemon: Daemon) -> int:
    """How many sessions the engine has."""
    (engine,) = daemon.json("stats")["engines"]
    return int(engine["sessions"])


def test_closing_after_the_loop_ends_the_session_at_the_daemon(
    shared_daemon: Daemon, transport: Any, wait_until: Callable[..., None]
) -> None:
    before = sessions(shared_daemon)
    client, _ = asyncio.run(opened(shared_daemon, transport))
    assert sessions(shared_daemon) == before + 1
    asyncio.run(client.close())
    wait_until(lambda: sessions(shared_daemon) == before, "the session has ended")


def test_requests_in_flight_when_the_loop_ends_hinder_nobody(shared_daemon: Daemon, transport: Any) -> None:
    async def begin() -> tuple[aio.Client, list[Awaitable[Any]]]:
        client, file = await opened(shared_daemon, transport)
        return client, [*file.submit([("read", 4, 0)] * 40)]

    client, futures = asyncio.run(begin())
    asyncio.run(client.close())
    del client, futures
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_a_client_dropped_after_its_loop_ends_its_session_and_hangs_nowhere(
    shared_daemon: Daemon, transport: Any, wait_until: Callable[..., None]
) -> None:
    before = sessions(shared_daemon)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        opening = asyncio.run(opened(shared_daemon, transport))
        assert not opening[0].closed
        del opening
        gc.collect()
    wait_until(lambda: sessions(shared_daemon) == before, "the session has ended")


def test_a_running_loop_keeps_its_client(shared_daemon: Daemon, transport: Any) -> None:
    ends, ready, found = threading.Event(), threading.Event(), []

    async def main() -> None:
        client, file = await opened(shared_daemon, transport)
        found.append((client, file))
        ready.set()
        await asyncio.to_thread(ends.wait)
        assert await file.pread(4, 0) == b"data"
        await client.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    ((client, file),) = found

    async def use(call: Callable[[], Any]) -> None:
        with pytest.raises(aiod_client.AiodError, match="event loop that is another one"):
            await call()

    for call in (file.size, file.stat, lambda: client.open("scratch/loops"), client.close, file.close):
        asyncio.run(use(call))
    ends.set()
    thread.join(PATIENCE_S)
    assert client.closed
