"""Files that cannot be reopened after a restart of the daemon: removed, or replaced by others."""

from __future__ import annotations

import asyncio
import errno
import functools
import gc
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECONNECT_S = scaled(60.0)


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture
def client(daemon: Any, transport: Any) -> Iterator[aiod_client.Client]:
    """A client that reconnects."""
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client:
        yield client


def test_requests_of_a_removed_file_fail_and_reach_no_other_file(daemon: Any, client: aiod_client.Client) -> None:
    kept, lost = client.open("scratch/kept", "w+"), client.open("scratch/lost", "w+")
    kept.pwrite(b"kept", 0)
    daemon.stop()
    (daemon.path / "lost").unlink()
    waiting = lost.submit([("write", b"waits", 0), ("read", 4, 0), ("flush",)])
    daemon.start()
    assert kept.pread(4, 0) == b"kept"
    with client.open("scratch/new", "w+") as new:
        assert new.pwrite(b"new", 0) == 3
        uses: tuple[Callable[[], Any], ...] = (
            *(functools.partial(future.result, RECONNECT_S) for future in waiting),
            lambda: lost.pwrite(b"wrong", 0),
            lambda: lost.pread(4, 0),
            lambda: lost.truncate(0),
            lost.flush,
            lost.stat,
            lambda: lost.submit([("size",)])[0].result(RECONNECT_S),
            functools.partial(kept.copy_range, lost, 0, 0, 4),
        )
        for use in uses:
            with pytest.raises(FileNotFoundError, match=r"open scratch/lost.*there is no such file"):
                use()
        assert new.pread(8, 0) == b"new"
    lost.close()
    kept.close()


def test_requests_of_a_removed_file_fail_in_asyncio(daemon: Any, transport: Any) -> None:
    async def go() -> None:
        async with aiod_client.aio.connect(
            daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S
        ) as client:
            lost = await client.open("scratch/lost", "w+")
            await asyncio.to_thread(daemon.stop)
            (daemon.path / "lost").unlink()
            await asyncio.to_thread(daemon.start)
            async with await client.open("scratch/new", "w+") as new:
                await new.pwrite(b"new", 0)
                for use in (
                    lambda: lost.pread(4, 0),
                    lambda: lost.pwrite(b"wrong", 0),
                    lost.flush,
                    lambda: lost.submit([("size",)])[0],
                ):
                    with pytest.raises(FileNotFoundError, match=r"open scratch/lost.*there is no such file"):
                        await use()
                assert await new.pread(8, 0) == b"new"
            await lost.close()

    asyncio.run(go())


def test_a_replaced_file_is_not_reopened(daemon: Any, client: aiod_client.Client) -> None:
    lost = client.open("scratch/lost", "w+")
    daemon.stop()
    (daemon.path / "lost").rename(daemon.path / "old")
    (daemon.path / "lost").write_bytes(b"another")
    daemon.start()
    with pytest.raises(OSError, match="another file has this name now") as caught:
        lost.pwrite(b"wrong", 0)
    assert caught.value.errno == errno.ESTALE
    assert (daemon.path / "lost").read_bytes() == b"another"
    lost.close()


def test_a_lost_file_that_exists_again_is_reopened_by_the_next_engine(
    daemon: Any, client: aiod_client.Client, wait_until: Callable[..., None]
) -> None:
    def data() -> bytes | None:
        try:
            return file.pread(4, 0)
        except FileNotFoundError:
            return None

    file = client.open("scratch/file", "w+")
    file.pwrite(b"data", 0)
    file.flush()
    for there in (False, True):
        daemon.stop()
        (daemon.path / ("away" if there else "file")).rename(daemon.path / ("file" if there else "away"))
        daemon.start()
        wait_until(lambda expected=b"data" if there else None: data() == expected, "the client has noticed")
    file.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropping_a_lost_file_does_not_disturb_the_client(
    daemon: Any, client: aiod_client.Client, wait_until: Callable[..., None]
) -> None:
    lost, kept = client.open("scratch/lost", "w+"), client.open("scratch/kept", "w+")
    daemon.stop()
    (daemon.path / "lost").unlink()
    daemon.start()
    with pytest.raises(FileNotFoundError):
        lost.pread(1, 0)
    del lost
    gc.collect()
    (future,) = kept.submit([("write", b"x", 0)])
    wait_until(future.done, "the client goes on")
    kept.close()
    wait_until(lambda: daemon.engine["files"] == 0, "all are closed")
