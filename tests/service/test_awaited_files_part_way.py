"""asyncio files with a position: what fails part-way continues without duplicates, unknown appends are not repeated."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from aiod_client.aio import files
from tests.conftest import freeze, kill, wait_until
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tests.conftest import Daemon

KIB = 1024
LIMIT = 100 * KIB + 7
DATA = bytes(range(1, 252)) * (300 * KIB // 251)
RECORD = b"one record\n"
PATIENCE_S = scaled(60.0)

TRANSPORTS = pytest.mark.parametrize("transport", ["zmq", "ring"])


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run it on a loop of its own."""
    asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


def limit(daemon: Daemon, file_bytes: int) -> None:
    """Set the engine's limit of file sizes."""
    resource.prlimit(daemon.engine["pid"], resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))


@TRANSPORTS
def test_after_a_short_write_the_buffer_keeps_the_unwritten_bytes(daemon: Daemon, transport: Any) -> None:
    async def main(mode: str, size: int) -> None:
        async with aio.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
            await client.write_file("scratch/file", b"")  # by a ring that is made before the limit
            limit(daemon, LIMIT)
            file = await files.open("scratch/file", mode, size, client=client)
            with pytest.raises(OSError, match="EFBIG"):
                await write_all(file)
            assert (daemon.path / "file").read_bytes() == DATA[:LIMIT]
            with pytest.raises(OSError, match="EFBIG"):
                await file.flush()
            limit(daemon, resource.RLIM_INFINITY)
            await file.write(DATA[await file.tell() :])
            await file.close()
        assert (daemon.path / "file").read_bytes() == DATA

    for mode in ("ab", "wb"):
        for size in (4 * KIB, 128 * KIB, 512 * KIB):
            run(main(mode, size))


async def write_all(file: files.BinaryFile) -> None:
    """Write DATA in pieces that are not multiples of a buffer's size."""
    for start in range(0, len(DATA), 40 * KIB):
        await file.write(DATA[start : start + 40 * KIB])
    await file.flush()


@TRANSPORTS
def test_without_a_buffer_the_error_says_how_much_is_written(daemon: Daemon, transport: Any) -> None:
    async def main(mode: str) -> None:
        async with aio.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client:
            await client.write_file("scratch/file", b"")
            limit(daemon, LIMIT)
            async with files.open("scratch/file", mode, 0, client=client) as file:
                with pytest.raises(OSError, match="EFBIG") as caught:
                    await file.write(DATA)
                assert caught.value.written == await file.tell() == LIMIT  # type: ignore[attr-defined]
                limit(daemon, resource.RLIM_INFINITY)
                await file.write(DATA[LIMIT:])
        assert (daemon.path / "file").read_bytes() == DATA

    run(main("ab"))
    run(main("wb"))


@TRANSPORTS
def test_an_append_of_unknown_outcome_is_not_repeated(daemon: Daemon, transport: Any) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client:
            file = await files.open("scratch/log", "a", client=client)
            await file.write(RECORD.decode())
            pid = daemon.engine["pid"]
            freeze(pid)
            killer = threading.Thread(target=kill_when_sent, args=(file.buffer.raw._link, pid))
            killer.start()
            with pytest.raises(OSError, match="unknown whether done"):
                await file.flush()
            killer.join()
            uses: list[Callable[[], Any]] = [file.flush, lambda: file.write("x" * 10**6), file.close]
            for use in uses:
                with pytest.raises(aiod_client.AiodError, match=r"scratch/log: unknown whether done: .*open it again"):
                    await use()
            assert file.closed
            assert (daemon.path / "log").read_bytes() == b""

    run(main())


def kill_when_sent(link: Any, pid: int) -> None:
    wait_until(lambda: link.pending, "the append is sent")
    kill(pid)


@TRANSPORTS
@pytest.mark.parametrize("mode", ["ab", "wb"])
def test_a_cancelled_flush_writes_everything_once(daemon: Daemon, transport: Any, mode: str) -> None:
    async def main() -> None:
        async with (
            aio.connect(daemon.endpoint, transport=transport, timeout=PATIENCE_S) as client,
            files.open("scratch/log", mode, client=client) as file,
        ):
            await file.write(RECORD)
            with frozen(daemon):
                for _ in range(2):
                    flush = asyncio.ensure_future(file.flush())
                    while not file.raw._link.pending:  # noqa: ASYNC110 - nothing tells that it is sent
                        await asyncio.sleep(0)
                    flush.cancel()
                    await asyncio.wait([flush])
                    assert flush.cancelled()
            await file.write(RECORD)
            await file.flush()
            assert await file.tell() == 2 * len(RECORD)
            assert (daemon.path / "log").read_bytes() == 2 * RECORD

    run(main())


@contextlib.contextmanager
def frozen(daemon: Daemon) -> Iterator[None]:
    """The engine does nothing meanwhile."""
    pid = daemon.engine["pid"]
    freeze(pid)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
