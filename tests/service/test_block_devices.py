"""Exports that are block devices, with logical blocks of 512 and of 4096 bytes: real loop devices."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from tests.conftest import Daemon
from tests.patience import scaled
from tests.service import file_systems
from tests.service.records import failure, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

KIB = 1024
MIB = 2**20
SIZE_BYTES = 64 * MIB
PATTERN = bytes(range(1, 256)) * 8192

BLKGETSIZE64 = 0x80081272
BLKSSZGET = 0x1268


class Device(NamedTuple):
    """A loop device that is served, and its backing file."""

    block_bytes: int
    image: Path
    endpoint: str


@pytest.fixture(scope="module", params=[512, 4096])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A loop device with blocks of each size, served as `device`, and always O_DIRECT as `direct`."""
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    image = base / "image"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    try:
        with file_systems.loop_device(image, request.param) as path:
            export = {"path": str(path), "ioctls": [{"number": BLKGETSIZE64, "bytes": 8}]}
            made = Daemon(base, **{"exports.device": export, "exports.direct": {**export, "direct": True}})
            try:
                made.start()
                yield Device(request.param, image, made.endpoint)
            finally:
                made.destroy()
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=["device", "direct"])
def file(request: pytest.FixtureRequest, device: Device) -> Iterator[Any]:
    """The device, open for reading and writing."""
    with aiod_client.connect(device.endpoint, timeout=scaled(60)) as client, client.open(request.param, "r+") as opened:
        opened.pwrite(PATTERN, 0)
        yield opened


def test_size_and_stat_of_a_device(file: Any, device: Device) -> None:
    assert file.size() == SIZE_BYTES
    says = file.stat()
    assert (says.size, says.block_size) == (SIZE_BYTES, device.block_bytes)
    assert stat.S_ISBLK(says.mode)


def test_reads_and_writes_at_any_offset(file: Any, device: Device) -> None:
    expected = bytearray(PATTERN)
    for offset, length in ((0, 4096), (1, 1), (511, 2), (4_095, 4_098), (100_001, 300_003)):
        data = bytes([offset % 251]) * length
        assert file.pwrite(data, offset, fua=True) == length
        expected[offset : offset + length] = data
    file.flush()
    assert file.pread(len(PATTERN), 0) == expected
    assert device.image.read_bytes()[: len(PATTERN)] == expected


def test_at_the_end_of_the_device_reads_are_short_and_writes_fail(file: Any) -> None:
    assert file.pread(MIB, SIZE_BYTES - 10) == bytes(10)
    assert file.pread(1, SIZE_BYTES) == file.pread(1, 2**60) == b""
    assert failure(lambda: file.pwrite(b"x", SIZE_BYTES)) == (errno.ENOSPC, 0)
    assert failure(lambda: file.pwrite(b"x", 2**60)) == (errno.ENOSPC, 0)
    for inside in (8192, 10):
        number, written = failure(lambda: file.pwrite(b"x" * MIB, SIZE_BYTES - inside))  # noqa: B023 - called at once
        assert number == errno.ENOSPC
        assert written <= inside
        assert file.pread(MIB, SIZE_BYTES - inside)[:written] == b"x" * written
        file.write_zeroes(SIZE_BYTES - inside, inside)
    assert file.size() == SIZE_BYTES


def test_discard_releases_space_of_the_device(file: Any, device: Device) -> None:
    file.flush()
    before = device.image.stat().st_blocks
    file.discard(0, MIB)
    assert device.image.stat().st_blocks <= before - MIB // 512
    assert file.pread(len(PATTERN), 0) == bytes(MIB) + PATTERN[MIB:]  # a loop device reads as zeroes then
    for offset, length in ((1, device.block_bytes), (device.block_bytes, 100)):
        assert refused(lambda: file.discard(offset, length)) == errno.EINVAL  # noqa: B023 - called at once
    file.discard(0, 0)
    assert file.pread(MIB, 10 * KIB + MIB) == PATTERN[10 * KIB + MIB :].ljust(MIB, b"\0")


@pytest.mark.parametrize("options", [{}, {"unmap": True}, {"fua": True}], ids=str)
def test_write_zeroes_works_at_any_offset(file: Any, options: dict[str, bool]) -> None:
    expected = bytearray(PATTERN)
    for offset, length in ((0, 64 * KIB), (100_001, 300_003), (MIB + 4096, 8192), (2 * MIB - 1, 1)):
        file.write_zeroes(offset, length, **options)
        expected[offset : offset + length] = bytes(length)
        assert file.pread(len(PATTERN), 0) == expected[: len(PATTERN)]


def test_operations_without_meaning_for_a_device_are_refused(file: Any) -> None:
    assert refused(lambda: file.truncate(MIB)) == errno.EINVAL
    assert refused(lambda: file.append(b"x")) == errno.EINVAL
    assert refused(lambda: file.allocate(0, MIB)) == errno.EOPNOTSUPP
    assert file.size() == SIZE_BYTES


def test_extents_report_the_whole_device_as_data(file: Any) -> None:
    assert [(extent.offset, extent.length, extent.hole) for extent in file.extents(5, MIB)] == [(5, MIB, False)]
    assert sum(extent.length for extent in file.extents()) == SIZE_BYTES
    assert not any(extent.hole for extent in file.extents())
    file.prefetch(0, MIB)


def test_copy_range_within_the_device(file: Any) -> None:
    assert file.copy_range(file, 3, 10 * MIB + 1, 100_001) == 100_001
    assert file.pread(100_001, 10 * MIB + 1) == PATTERN[3 : 3 + 100_001]
    assert file.copy_range(file, SIZE_BYTES - 5, 0, 100) == 5


def test_only_ioctls_that_the_export_lists_are_allowed(file: Any) -> None:
    value, argument = file.ioctl(BLKGETSIZE64, bytes(8))
    assert (value, struct.unpack("Q", argument)[0]) == (0, SIZE_BYTES)
    assert refused(lambda: file.ioctl(BLKGETSIZE64, bytes(4))) == errno.EPERM
    assert refused(lambda: file.ioctl(BLKGETSIZE64)) == errno.EPERM
    assert refused(lambda: file.ioctl(BLKSSZGET, bytes(4))) == errno.EPERM
