"""Every acknowledged flush survives a power cut, on a disk that logs its writes and flushes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from tests.conftest import wait_until
from tests.patience import scaled
from tests.service.file_systems import loop_device
from tests.service.logged_disk import DISCARD, FLUSH, LoggedDisk, PowerCut, logged_disk
from tests.soak import blocks
from tests.soak.blocks import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WRITERS = 4
BLOCKS = 16
"""Blocks that each writer writes."""
ROUNDS = 24


class Promise(NamedTuple):
    """Generations acknowledged as durable, and the length of the disk's log at that time."""

    entries: int
    generations: dict[int, int]
    """Block to the least generation that it must have."""


class Writer(threading.Thread):
    """Writes its own blocks and makes them durable, by flush or by FUA."""

    def __init__(self, disk: LoggedDisk, file: aiod_client.File, number: int, *, flushes: bool = True) -> None:
        super().__init__()
        self.promises: list[Promise] = []
        self.error: Exception | None = None
        self._disk = disk
        self._file = file
        self._addresses = range(number * BLOCKS, (number + 1) * BLOCKS)
        self._flushes = flushes

    def run(self) -> None:
        """ROUNDS of it."""
        try:
            for generation in range(1, ROUNDS + 1):
                self._write(generation, fua=generation % 3 == 0)
        except Exception as error:  # noqa: BLE001 - for the test's own thread
            self.error = error

    def _write(self, generation: int, *, fua: bool) -> None:
        some = self._addresses[generation % 5 :: 1 + generation % 3]
        batch = [("write", blocks.make(address, generation), address * BLOCK_BYTES) for address in some]
        if fua:
            for address, (_, data, offset) in zip(some, batch, strict=True):
                self._file.pwrite(data, offset, fua=True)
                self._promise({address: generation})
            return
        for future in self._file.submit(batch):
            future.result()
        if self._flushes:
            self._file.flush()
        self._promise(dict.fromkeys(some, generation))

    def _promise(self, generations: dict[int, int]) -> None:
        self.promises.append(Promise(self._disk.flushed(), generations))


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture(params=["file", "block device"])
def served(
    request: pytest.FixtureRequest, new_daemon: Callable[..., Any], disk_path: Path
) -> Iterator[tuple[LoggedDisk, Any]]:
    """The disk and a daemon with the export `disk` of it: as a file, or below a block device with a page cache."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(logged_disk(disk_path))
        path = disk.path
        if request.param == "block device":
            path = stack.enter_context(loop_device(disk.path, 512))
        daemon = new_daemon(**{"exports.disk": {"path": str(path)}})
        daemon.start()
        yield disk, daemon
        daemon.stop()


def write(
    served: tuple[LoggedDisk, Any], transport: Any, meanwhile: Any = None, *, flushes: bool = True
) -> list[Promise]:
    """The acknowledgements of all writers."""
    disk, daemon = served
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=scaled(60)) as client:
        writers = [Writer(disk, client.open("disk", "r+"), number, flushes=flushes) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        if meanwhile is not None:
            meanwhile(writers)
        for writer in writers:
            writer.join()
            assert writer.error is None, writer.error
    return sorted((promise for writer in writers for promise in writer.promises), key=lambda promise: promise.entries)


def broken(disk: LoggedDisk, promises: list[Promise]) -> list[str]:
    """Blocks that a power cut at the time of an acknowledgement would have lost."""
    power_cut = PowerCut(disk)
    lost = []
    for promise in promises:
        image = power_cut.after(promise.entries)
        for address, least in promise.generations.items():
            found = blocks.generation_of(bytes(image[address * BLOCK_BYTES : (address + 1) * BLOCK_BYTES]), address)
            if found is None or found < least:
                lost.append(f"block {address}: {least} was durable, {found} is there after {promise.entries} entries")
    return lost


def test_every_acknowledged_flush_survives_a_power_cut(served: tuple[LoggedDisk, Any], transport: Any) -> None:
    promises = write(served, transport)
    assert len(promises) > WRITERS * ROUNDS
    assert broken(served[0], promises) == []


def test_every_acknowledged_flush_survives_a_power_cut_after_an_engine_crash(
    served: tuple[LoggedDisk, Any], transport: Any
) -> None:
    def kill(writers: list[Writer]) -> None:
        wait_until(lambda: all(len(writer.promises) > ROUNDS // 4 for writer in writers), "they are at work")
        os.kill(served[1].engine["pid"], signal.SIGKILL)

    promises = write(served, transport, kill)
    assert served[1].engine["restarts"] == 1
    assert broken(served[0], promises) == []


def test_unflushed_writes_are_missing_after_a_power_cut(served: tuple[LoggedDisk, Any], transport: Any) -> None:
    """So the tests above can fail."""
    assert broken(served[0], write(served, transport, flushes=False)) != []


def test_the_disk_logs_writes_and_flushes(disk_path: Path) -> None:
    with logged_disk(disk_path) as disk:
        fd = os.open(disk.path, os.O_RDWR)
        try:
            assert disk.flushed() == 0
            os.pwrite(fd, b"A" * 4096, 8192)
            os.fdatasync(fd)
            assert disk.flushed() == 2
            os.pwrite(fd, b"B" * 4096, 8192)
            os.pwrite(fd, b"C" * 512, 0)
        finally:
            os.close(fd)
        first, flush, second, third = [*disk.entries()][:4]
        assert first[:2] == second[:2] == (8192, 4096)
        assert (first.data, second.data, third.data) == (b"A" * 4096, b"B" * 4096, b"C" * third.length)
        assert flush.flags & FLUSH
        assert not (first.flags | second.flags | third.flags) & (FLUSH | DISCARD)
        power_cut = PowerCut(disk)
        assert not any(power_cut.after(1))
        assert power_cut.after(3)[8192:12288] == b"A" * 4096
        assert not any(power_cut.after(4)[:512])
