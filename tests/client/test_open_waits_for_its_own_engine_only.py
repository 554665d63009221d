"""An engine that hangs delays opens of its own files only."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.blocking import client as blocking
from aiod_client.connection.converse import converse
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)


class HungEngine:
    """A socket that accepts connections and never sends a message."""

    def __init__(self, directory: Path, peer: Peer) -> None:
        """Serve the export `hung` of the daemon `peer`."""
        self.endpoint = f"ipc://{directory}/engine-hung.sock"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.bind(f"{directory}/engine-hung.sock")
        self._socket.listen(64)
        self._connections: list[socket.socket] = []
        self._usual = peer._locate
        peer.answers[MessageType.LOCATE] = self._locate

    def _locate(self, message: list[Any]) -> list[Any]:
        if message[2] != "hung":
            return self._usual(message)
        return [MessageType.REPLY, message[1], 0, None, {"engine": "hung", "endpoint": self.endpoint}]

    def wait_asked(self) -> None:
        """Wait until a client has come: its probe, and then the connection for its HELLO."""
        self._connections += [self._socket.accept()[0] for _ in range(2)]

    def close(self) -> None:
        """End its connections."""
        for connection in (*self._connections, self._socket):
            connection.close()


@pytest.fixture
def hung(socket_dir: Path, peer: Peer) -> Iterator[HungEngine]:
    """An engine that hangs, beside the one of `peer`."""
    peer.files["file"] = bytearray(100)
    engine = HungEngine(socket_dir, peer)
    yield engine
    engine.close()


def test_a_thread_opens_another_engines_file_while_one_engine_hangs(peer: Peer, hung: HungEngine) -> None:
    ends: list[OSError] = []

    def wait_for_the_hung_one() -> None:
        with pytest.raises(OSError, match="the client is closed") as caught:
            client.open("hung/file")
        ends.append(caught.value)

    client = aiod_client.connect(peer.endpoint, timeout=PATIENCE_S * 3)
    thread = threading.Thread(target=wait_for_the_hung_one)
    thread.start()
    hung.wait_asked()
    with client.open("scratch/file", timeout=PATIENCE_S) as file:
        assert file.size() == 100
    with client.open(
        "other/file", timeout=PATIENCE_S
    ) as file:  # the engine is known, but not yet as the engine of this export
        assert file.size() == 100
    with pytest.raises(TimeoutError, match="another thread's open"):
        client.open("hung/file", timeout=0.001)
    assert thread.is_alive()
    client.close()
    thread.join(PATIENCE_S)
    assert len(ends) == 1
    assert len(client._turns) == 0


def test_a_task_opens_another_engines_file_while_one_engine_hangs(peer: Peer, hung: HungEngine) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint, timeout=PATIENCE_S * 3) as client:
            task = asyncio.create_task(client.open("hung/file"))
            await asyncio.to_thread(hung.wait_asked)
            async with await client.open("scratch/file", timeout=PATIENCE_S) as file:
                assert await file.size() == 100
            with pytest.raises(TimeoutError, match="open of export hung"):
                await client.open("hung/file", timeout=0.01)
            assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gc.collect()
            assert len(client._turns) == 0

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))


def test_a_file_of_a_known_engine_is_opened_while_the_front_hangs(peer: Peer) -> None:
    peer.files["file"] = bytearray(100)

    async def main() -> None:
        async with aio.connect(peer.endpoint, timeout=PATIENCE_S * 3) as client:
            await (await client.open("scratch/file")).close()
            peer.answers[MessageType.LOCATE] = lambda _: None
            task = asyncio.create_task(client.open("unknown/file"))
            await asyncio.to_thread(peer.wait_seen, MessageType.LOCATE, 2)
            await (await client.open("scratch/file", timeout=PATIENCE_S)).close()
            assert not task.done()
            task.cancel()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))


def test_threads_that_open_files_of_one_engine_share_its_session(peer: Peer) -> None:
    peer.files["file"] = bytearray(100)
    together = threading.Barrier(16)
    links: list[object] = []

    def run(number: int) -> None:
        together.wait(PATIENCE_S)
        with client.open(f"export{number % 4}/file") as file:
            links.append(file._link)

    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        threads = [threading.Thread(target=run, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(links) == 16
        assert len(set(links)) == 1
        assert peer.seen.count(MessageType.LOCATE) == 4
        assert len(client._turns) == 0


def test_tasks_that_open_files_of_one_engine_share_its_session(peer: Peer) -> None:
    peer.files["file"] = bytearray(100)

    async def main() -> None:
        async with aio.connect(peer.endpoint, timeout=PATIENCE_S) as client:
            files = await asyncio.gather(*(client.open(f"export{number % 4}/file") for number in range(16)))
            assert len({file._link for file in files}) == 1
            await asyncio.gather(*(file.close() for file in files))
            assert len(client._turns) == 0

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))
    assert peer.seen.count(MessageType.LOCATE) == 4


def test_an_open_that_interrupts_the_same_threads_open_raises_edeadlk(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.files["file"] = bytearray(100)
    errnos: list[int | None] = []

    def interrupted(*arguments: Any) -> Any:
        if not errnos:
            errnos.append(None)
            with pytest.raises(aiod_client.AiodError, match="finalizer") as caught:
                client.open("scratch/file")
            errnos[0] = caught.value.errno
        return converse(*arguments)

    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        monkeypatch.setattr(blocking, "converse", interrupted)
        with client.open("scratch/file") as file:
            assert file.size() == 100
    assert errnos == [errno.EDEADLK]
