"""Clients that connect when they are first used: who shares one, what a failure leaves behind, and how they close."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from aiod_client import aio, lazy
from aiod_client.errors import DaemonUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.client.conftest import Peer


@pytest.fixture
def wanted(socket_dir: Path) -> Iterator[lazy.Settings]:
    """Settings for a peer in `socket_dir`."""
    found = lazy.settings(f"ipc://{socket_dir}/aiod.sock", None, None, "auto")
    yield found
    lazy.close(found)


def test_what_is_wanted_alike_is_one_client(peer: Peer, wanted: lazy.Settings) -> None:
    assert wanted.endpoint == peer.endpoint
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(lazy.blocking_client(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(map(id, found))) == 1
    assert lazy.blocking_client(wanted._replace(timeout=1.0)) is not found[0]
    lazy.close(wanted._replace(timeout=1.0))


def test_clients_of_several_daemons_get_what_they_prefer(peer: Peer, socket_dir: Path) -> None:
    several = f"ipc://{socket_dir}/none.sock,{peer.endpoint}"
    wanted = lazy.settings(several, None, None, "zmq", prefer=[peer.endpoint], host_timeout=7)
    assert wanted == lazy.settings(several, None, None, "zmq", prefer=peer.endpoint, host_timeout=7)

    async def awaited() -> aio.Client:
        return await lazy.awaited_client(wanted)

    for client in (lazy.blocking_client(wanted), asyncio.run(awaited())):
        assert client.endpoint == peer.endpoint
        assert client._hosts.prefer == (peer.endpoint,)
        assert client._hosts.timeout_s == 7
    lazy.close(wanted)
    assert lazy.settings(several, None, None, "zmq", prefer="").prefer == ()


def test_tasks_of_a_loop_share_a_client(peer: Peer, wanted: lazy.Settings) -> None:
    async def both() -> None:
        first, second = await asyncio.gather(lazy.awaited_client(wanted), lazy.awaited_client(wanted))
        assert first is second
        assert first is await lazy.awaited_client(wanted)

    asyncio.run(both())
    assert not peer.complaints


def test_after_a_failure_the_next_use_tries_again(
    new_peer: Callable[..., Peer], wanted: lazy.Settings, socket_dir: Path
) -> None:
    async def use() -> None:
        with pytest.raises(DaemonUnreachableError):
            await lazy.awaited_client(wanted)
        with new_peer():
            assert not (await lazy.awaited_client(wanted)).closed
            lazy.close(wanted)

    with pytest.raises(DaemonUnreachableError):
        lazy.blocking_client(wanted)
    asyncio.run(use())
    assert socket_dir.exists()


def test_the_first_that_asks_may_be_cancelled(
    peer: Peer, wanted: lazy.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = lazy._connect
    asked: list[asyncio.Event] = []

    async def slowly(settings: lazy.Settings) -> aio.Client:
        asked.append(asyncio.Event())
        await asked[-1].wait()
        return await connect(settings)

    async def use() -> None:
        first = asyncio.create_task(lazy.awaited_client(wanted))
        second = asyncio.create_task(lazy.awaited_client(wanted))
        while not asked:  # noqa: ASYNC110 - until another task has come there
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        asked[0].set()
        assert not (await second).closed

    monkeypatch.setattr(lazy, "_connect", slowly)
    asyncio.run(use())
    assert len(asked) == 1
    assert not peer.complaints


def test_close_within_the_loop_does_not_wait_for_it(peer: Peer, wanted: lazy.Settings) -> None:
    async def use() -> None:
        client = await lazy.awaited_client(wanted)
        lazy.close(wanted)
        other = await lazy.awaited_client(wanted)
        assert other is not client
        while not client.closed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert not other.closed

    asyncio.run(use())
    assert not peer.complaints


def test_close_from_another_thread_closes_the_client_of_a_running_loop(peer: Peer, wanted: lazy.Settings) -> None:
    async def get() -> Any:
        return await lazy.awaited_client(wanted)

    client = lazy.in_background(get())
    lazy.close(wanted)
    assert client.closed
    assert not lazy.in_background(get()).closed
    assert not peer.complaints
