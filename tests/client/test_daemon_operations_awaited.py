"""Every operation of the asyncio client at the real daemon, once; the blocking client checks the effects."""

from __future__ import annotations

import asyncio
import errno
import stat
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from aiod_client import aio
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

PATIENCE_S = scaled(60.0)
KIB = 1024


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run `coroutine` to its end."""
    asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


@pytest.fixture
def path(daemon: Any) -> Path:
    """The export's directory, of this test alone."""
    directory: Path = daemon.path
    return directory


def test_each_operation_on_a_file_has_its_effect(daemon: Any, path: Path) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint) as client, await client.open("scratch/file", "x+") as file:
            assert await file.pwritev([b"one", b"", b"two"], 0, fua=True) == 6
            first, second = bytearray(2), bytearray(10)
            assert await file.preadv([first, second], 1) == 5
            assert first + second[:3] == b"netwo"
            await file.truncate(256 * KIB)
            await file.write_zeroes(0, 3, fua=True)
            await file.discard(64 * KIB, 128 * KIB)
            await file.allocate(256 * KIB, 4 * KIB, keep_size=True)
            await file.prefetch()
            assert await file.pread(6, 0) == b"\0\0\0two"
            status = await file.stat()
            assert (status.size, status.inode) == (256 * KIB, (path / "file").stat().st_ino)
            extents = await file.extents()
            assert sum(extent.length for extent in extents) == 256 * KIB
            assert extents[-1].hole
            async with await client.open("scratch/copy", "x+") as copy:
                assert await copy.copy_range(file, 3, 0, 3) == 3
                assert await copy.append(b" more") == 3
                assert await copy.pread(100, 0) == b"two more"
            with pytest.raises(OSError, match="ioctl") as caught:
                await file.ioctl(0x1234)
            assert caught.value.errno == errno.EPERM
            with pytest.raises(aiod_client.AiodError, match="closed"):
                await file.copy_range(copy, 0, 0, 1)

    run(main())
    with aiod_client.connect(daemon.endpoint) as client, client.open("scratch/file") as file:
        assert file.extents() == file.submit([("extents", 0, 1 << 40)])[0].result(PATIENCE_S)
        assert stat.S_ISREG(file.stat().mode)


def test_each_directory_operation_has_its_effect(daemon: Any, path: Path) -> None:
    async def main() -> None:
        async with aio.connect(daemon.endpoint) as client:
            await client.mkdir("scratch/dir", 0o700)
            await (await client.open("scratch/dir/a", "w")).close()
            await client.rename("scratch/dir/a", "scratch/dir/b")
            await client.sync("scratch/dir")
            assert await client.list("scratch/dir") == [("b", "file", 0)]
            assert (await client.stat("scratch/dir/b")).size == 0
            await (await client.open("scratch/dir/a", "w")).close()
            with pytest.raises(FileExistsError):
                await client.rename("scratch/dir/a", "scratch/dir/b", replace=False)
            with pytest.raises(OSError, match="these are two exports") as caught:
                await client.rename("scratch/dir/a", "other/a")
            assert caught.value.errno == errno.EXDEV
            for name in ("a", "b"):
                await client.remove(f"scratch/dir/{name}")
            assert stat.S_IMODE((path / "dir").stat().st_mode) == 0o700
            await client.rmdir("scratch/dir")
            with pytest.raises(FileNotFoundError):
                await client.stat("scratch/dir")

    run(main())
    assert list(path.iterdir()) == []
