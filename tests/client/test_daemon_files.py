"""Files of the real daemon through both clients: modes of open(), contents on disk, error messages."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import aiod_client
from aiod_client import aio
from tests.patience import scaled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = scaled(60.0)
LARGE_BYTES = 37 * 1024 * 1024 + 12_345


@pytest.fixture
def client(shared_daemon: Any) -> Iterator[aiod_client.Client]:
    """A client of a daemon whose export is emptied afterwards."""
    with aiod_client.connect(shared_daemon.endpoint, timeout=PATIENCE_S) as connected:
        yield connected
    for entry in shared_daemon.path.iterdir():
        if not entry.is_dir():  # of other tests
            entry.unlink()


@pytest.fixture
def path(shared_daemon: Any) -> Path:
    """The export's directory."""
    directory: Path = shared_daemon.path
    return directory


def test_the_first_program_of_the_documentation_runs(client: aiod_client.Client, path: Path) -> None:
    with client.open("scratch/disk.img", "w+") as file:
        assert file.pwrite(b"data", 0) == 4
        file.flush()
        assert file.pread(4, 0) == b"data"
        buffer = bytearray(3)
        assert file.pread_into(buffer, 1) == 3
        assert buffer == b"ata"
        futures = file.submit([("read", 4096, 0), ("write", b"data", 8192), ("flush",)])
        assert [future.result(timeout=PATIENCE_S) for future in futures][1:] == [4, 0]
        assert file.size() == 8196
    assert (path / "disk.img").read_bytes() == b"data" + bytes(8188) + b"data"


def test_the_first_program_runs_with_asyncio_and_uvloop(client: aiod_client.Client, path: Path) -> None:
    async def main(name: str) -> None:
        async with aio.connect(client.endpoint) as own, await own.open(f"scratch/{name}", "x+") as file:
            assert await file.pwrite(b"data", 0) == 4
            await file.flush()
            assert await file.pread(4096, 0) == b"data"
            writes = (file.pwrite(bytes([number]), number) for number in range(200))
            assert await asyncio.gather(*writes) == [1] * 200
            assert await file.pread(1000, 0) == bytes(range(200))

    asyncio.run(main("asyncio"))
    uvloop.run(main("uvloop"))
    assert (path / "uvloop").read_bytes() == (path / "asyncio").read_bytes() == bytes(range(200))


def test_modes_and_permissions_mean_what_they_mean_to_the_built_in_open(client: aiod_client.Client, path: Path) -> None:
    with client.open("scratch/new", "x", 0o640) as file:
        file.pwrite(b"12345", 0)
        with pytest.raises(OSError, match="read") as caught:
            file.pread(1, 0)
        assert caught.value.errno == errno.EBADF
    assert stat.S_IMODE((path / "new").stat().st_mode) == 0o640 & ~_umask()
    with pytest.raises(FileExistsError):
        client.open("scratch/new", "x")
    with client.open("scratch/new") as file, pytest.raises(OSError, match="writ") as caught:
        file.pwrite(b"x", 0)
    assert caught.value.errno == errno.EBADF
    with client.open("scratch/new", "r+b") as file:
        file.pwrite(b"x", 1)
    assert (path / "new").read_bytes() == b"1x345"
    client.open("scratch/new", "w").close()
    assert (path / "new").read_bytes() == b""


def _umask() -> int:
    old = os.umask(0)
    os.umask(old)
    return old


def test_errors_are_of_their_own_class_and_name_the_file(client: aiod_client.Client, path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        client.open("scratch/missing")
    assert missing.value.filename == "scratch/missing"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        client.open("nowhere/x")
    with pytest.raises(PermissionError):
        client.open("scratch/../escape")
    with pytest.raises(IsADirectoryError):
        client.open("scratch")
    os.mkfifo(path / "fifo")
    with pytest.raises(OSError, match="fifo") as fifo:
        client.open("scratch/fifo")
    assert fifo.value.errno == errno.EINVAL
    with client.open("scratch/still", "w+") as file:
        assert file.pwrite(b"here", 0) == 4


def test_a_large_write_and_read_travel_in_parts(client: aiod_client.Client, path: Path) -> None:
    data = os.urandom(1 << 20) * 37 + os.urandom(12_345)
    with client.open("scratch/large", "w+") as file:
        assert file.pwrite(data, 0) == LARGE_BYTES
        assert (path / "large").read_bytes() == data
        assert file.pread(LARGE_BYTES * 2, 0) == data
        assert file.pread(LARGE_BYTES, 1000) == data[1000:]
        buffer = bytearray(LARGE_BYTES)
        assert file.pread_into(buffer, 77) == LARGE_BYTES - 77
        assert buffer[: LARGE_BYTES - 77] == data[77:]


def test_a_hundred_thousand_requests_at_once_complete(client: aiod_client.Client, path: Path) -> None:
    with client.open("scratch/many", "w+") as file:
        futures = file.submit([("write", number.to_bytes(4), number * 4) for number in range(100_000)])
        assert all(future.result(PATIENCE_S) == 4 for future in futures)
        assert (path / "many").read_bytes() == b"".join(number.to_bytes(4) for number in range(100_000))
        futures = file.submit([("read", 4, number * 4) for number in range(100_000)])
        assert all(future.result(PATIENCE_S) == number.to_bytes(4) for number, future in enumerate(futures))


def test_payloads_of_all_sizes_in_one_batch_arrive(client: aiod_client.Client, path: Path) -> None:
    sizes = [0, 1, 100, 65_535, 65_536, 65_537, 0, 300_000, 7] * 20
    offsets = [sum(sizes[:index]) for index in range(len(sizes))]
    payloads = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    with client.open("scratch/payloads-of-all-sizes", "w+") as file:
        futures = file.submit([("write", *pair) for pair in zip(payloads, offsets, strict=True)])
        assert [future.result(PATIENCE_S) for future in futures] == sizes
        assert (path / "payloads-of-all-sizes").read_bytes() == b"".join(payloads)
        futures = file.submit([("read", *pair) for pair in zip(sizes, offsets, strict=True)])
        assert [future.result(PATIENCE_S) for future in futures] == payloads


def test_a_write_and_a_read_of_no_bytes_return_nothing(client: aiod_client.Client) -> None:
    with client.open("scratch/nothing", "w+") as file:
        assert file.pwrite(b"", 0) == 0
        assert file.pread(0, 0) == b""
        assert file.pread(10, 1 << 40) == b""
        assert file.pread_into(bytearray(), 0) == 0


def test_many_threads_with_many_files_each_get_their_own_data(client: aiod_client.Client, path: Path) -> None:
    def one(number: int) -> None:
        with client.open(f"scratch/thread{number}", "w+") as file:
            for turn in range(50):
                assert file.pwrite(bytes([number]) * 1000, turn * 1000) == 1000
            file.flush()
            assert file.pread(50_001, 0) == bytes([number]) * 50_000

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(12), timeout=PATIENCE_S))
    assert len(list(path.glob("thread*"))) == 12


def test_closing_a_file_waits_for_its_requests_in_flight(client: aiod_client.Client, path: Path) -> None:
    file = client.open("scratch/closing", "w")
    futures = file.submit([("write", bytes([1]) * 4096, number * 4096) for number in range(2000)])
    file.close()
    assert all(future.result(PATIENCE_S) == 4096 for future in futures)
    assert (path / "closing").stat().st_size == 2000 * 4096


def test_directory_operations_change_the_directory(client: aiod_client.Client, path: Path) -> None:
    client.mkdir("scratch/names")
    for number in range(3):
        client.open(f"scratch/names/{number}", "w").close()
    (path / "names" / "link").symlink_to("0")
    listed = client.list("scratch/names")
    assert sorted(entry.name for entry in listed) == ["0", "1", "2", "link"]
    assert {entry.name: entry.kind for entry in listed}["link"] == "link"
    with pytest.raises(FileExistsError) as caught:
        client.rename("scratch/names/0", "scratch/names/1", replace=False)
    assert caught.value.filename == "scratch/names/0"
    client.rename("scratch/names/0", "scratch/names/1")
    client.sync("scratch/names")
    assert client.stat("scratch/names/1").inode == (path / "names" / "1").stat().st_ino
    with pytest.raises(OSError, match="names") as full:
        client.rmdir("scratch/names")
    assert full.value.errno == errno.ENOTEMPTY
    for name in ("1", "2", "link"):
        client.remove(f"scratch/names/{name}")
    client.rmdir("scratch/names")
    assert not (path / "names").exists()
