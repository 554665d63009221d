"""Credit held back for a larger batch is used soon, whatever drives the session, although requests in flight hang."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest

import aiod_client
from aiod_client import aio
from aiod_protocol.wire import MessageType
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.client.conftest import Peer

PATIENCE_S = scaled(60.0)
DEPTH = 16  # two free: a batch


@pytest.fixture
def peer(new_peer: Callable[..., Peer]) -> Iterator[Peer]:
    """A peer that holds requests and gets no heartbeats: only the timer of the held credit drives the session."""
    with new_peer(depth_max=DEPTH, heartbeat_s=1000.0) as made:
        made.files["file"] = bytearray(100)
        yield made


@pytest.fixture
def file(peer: Peer) -> Iterator[aiod_client.File]:
    """An open file of 100 bytes, whose requests do not complete."""
    with aiod_client.connect(peer.endpoint, timeout=PATIENCE_S) as client:
        file = client.open("scratch/file")
        peer.hold = True
        yield file


def wait_until(condition: Callable[[], object]) -> None:
    """Poll until `condition()` is true."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def execute_one(peer: Peer) -> None:
    """Complete the oldest request that the peer holds."""
    held = peer._held
    peer._held = deque([held.popleft()])
    peer._execute()
    peer._held = held


def hang_and_hold(peer: Peer, file: aiod_client.File) -> None:
    """Use all but one of the credit for requests that hang, and submit two more."""
    file.submit([("read", 1, 0)] * (DEPTH - 1))
    peer.wait_seen(MessageType.SUBMIT)
    file.submit([("read", 1, 0)] * 2)


def test_held_credit_is_used_while_no_thread_waits(peer: Peer, file: aiod_client.File) -> None:
    hang_and_hold(peer, file)
    wait_until(lambda: sum(peer.batches) == DEPTH)


def test_held_credit_is_used_while_the_maintenance_thread_leads(peer: Peer, file: aiod_client.File) -> None:
    link = file._link
    file.submit([("read", 1, 0)] * (DEPTH - 1))
    wait_until(lambda: link.leading.leader is link.maintenance.thread)
    file.submit([("read", 1, 0)] * 2)
    wait_until(lambda: sum(peer.batches) == DEPTH)


def test_held_credit_is_used_while_threads_wait_that_have_not_submitted(peer: Peer, file: aiod_client.File) -> None:
    def read() -> None:
        with contextlib.suppress(aiod_client.AiodError):  # when the client is closed
            file.pread(1, 0)

    threads = [threading.Thread(target=read) for _ in range(DEPTH + 4)]
    for thread in threads:
        thread.start()
    link = file._link
    wait_until(lambda: link.session.pending == DEPTH + 4)
    peer.wait_seen(MessageType.SUBMIT, DEPTH)
    peer.do(lambda: execute_one(peer))
    wait_until(lambda: sum(peer.batches) == DEPTH + 1)
    file._client.close()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_held_credit_is_used_by_tasks(peer: Peer) -> None:
    async def main() -> None:
        async with aio.connect(peer.endpoint) as client:
            file = await client.open("scratch/file")
            peer.hold = True
            futures = file.submit([("read", 1, 0)] * (DEPTH - 1))
            await asyncio.to_thread(peer.wait_seen, MessageType.SUBMIT)
            futures += file.submit([("read", 1, 0)] * 2)
            await asyncio.to_thread(wait_until, lambda: sum(peer.batches) == DEPTH)
            await asyncio.to_thread(peer.release)
            assert await asyncio.gather(*futures) == [b"\0"] * (DEPTH + 1)
            assert not file._link._holding
            await file.close()

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S * 2))
    assert peer.complaints == []
