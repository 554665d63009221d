"""A disk with real errors: the errno reaches the caller, a failed flush poisons the file, flushes are shared."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import aiod_client
from tests.patience import scaled
from tests.service import file_systems
from tests.service.faulty_disk import SIZE_BYTES, FaultyDisk, faulty_disk
from tests.service.records import failure, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 2**20
FLUSHERS = 16
PATTERN = bytes(range(1, 256)) * 8192


class Served(NamedTuple):
    """A faulty disk, served as the export `disk`."""

    disk: FaultyDisk
    daemon: Any
    client: aiod_client.Client

    def open(self, **options: Any) -> Any:
        """The disk, opened with O_DIRECT."""
        return self.client.open("disk", "r+", direct=True, **options)


@pytest.fixture
def served(new_daemon: Callable[..., Any], disk_path: Path) -> Iterator[Served]:
    """A daemon that serves a faulty disk."""
    with faulty_disk(disk_path) as disk:
        daemon = new_daemon(**{"exports.disk": {"path": str(disk.path)}})
        daemon.start()
        with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client:
            yield Served(disk, daemon, client)
        daemon.stop()


def test_operations_succeed_on_a_healthy_disk(served: Served) -> None:
    with served.open() as file:
        assert file.size() == SIZE_BYTES
        assert file.pwrite(PATTERN, 1001) == len(PATTERN)
        assert file.pread(len(PATTERN) + 10, 1000) == b"\0" + PATTERN + bytes(9)
        before = served.disk.arrived("Flush")
        file.flush()
        assert served.disk.arrived("Flush") == before + 1
        assert served.disk.image.read_bytes()[1001 : 1001 + len(PATTERN)] == PATTERN
        file.pwrite(b"through", 0, fua=True)
        assert served.disk.arrived("Flush") == before + 2
        file.write_zeroes(0, MIB)
        assert served.disk.arrived("Zero") == 1
        file.discard(MIB, MIB)
        assert served.disk.arrived("Trim") == 1
        assert not any(served.disk.image.read_bytes()[: 2 * MIB])
        assert refused(lambda: file.allocate(0, MIB)) == errno.EOPNOTSUPP  # this file system cannot
        assert [(extent.offset, extent.length, extent.hole) for extent in file.extents()] == [
            (0, SIZE_BYTES, False)
        ]  # nor does it know


def test_a_flush_on_fuse_uses_each_descriptor_that_has_written(served: Served) -> None:
    """The disk is a file of a FUSE server, which may cache writes until the same open file is synced."""
    arrived = served.disk.arrived
    with served.client.open("disk", "r") as reader, served.open() as first, served.open() as second:
        before = arrived("Flush")
        first.pwrite(b"1", 0)
        second.pwrite(b"2", 512)
        reader.flush()
        assert arrived("Flush") == before + 2
        first.pwrite(b"1", 0, fua=True)
        assert arrived("Flush") == before + 3
        second.pwrite(b"2", 512)
        with served.disk.failing("flush"):
            second.close()  # nobody could flush by it any more
        assert refused(first.flush) == errno.EIO


def test_failed_reads_and_writes_reach_the_client(served: Served) -> None:
    with served.open() as file:
        with served.disk.failing("pread"):
            assert failure(lambda: file.pread(4096, 0)) == (errno.EIO, 0)
        with served.disk.failing("pwrite"):
            assert failure(lambda: file.pwrite(PATTERN, 0)) == (errno.EIO, 0)
            assert file.pread(10, 0) == bytes(10)
        with served.disk.failing("zero"):
            assert failure(lambda: file.write_zeroes(0, MIB)) == (errno.EIO, 0)
        with served.disk.failing("trim"):
            assert refused(lambda: file.discard(0, MIB)) == errno.EIO
        assert file.pwrite(PATTERN, 0) == len(PATTERN)
        file.flush()  # a failed plain write poisons nothing
        assert file.pread(len(PATTERN), 0) == PATTERN


@pytest.mark.page_cache("the write fails, and not the flush")
def test_unwritable_blocks_fail_the_flush(served: Served) -> None:
    """A long write may be done below the bad blocks; `written` counts at most the bytes on the disk."""
    with served.client.open("disk", "r+") as file, served.disk.bad_from(MIB):
        assert failure(lambda: file.pwrite(PATTERN[: 2 * MIB - 8192], 0)) == (errno.EIO, MIB)
        assert served.disk.image.read_bytes()[:MIB] == PATTERN[:MIB]
    with served.open() as file, served.disk.bad_from(5 * MIB):
        data = PATTERN * 4
        number, written = failure(lambda: file.pwrite(data[: 8 * MIB - 4096], 0))
        assert number == errno.EIO
        assert 4 * MIB <= written <= 5 * MIB
        assert served.disk.image.read_bytes()[:written] == data[:written]


@pytest.mark.parametrize(
    "call", [lambda file: file.flush(), lambda file: file.pwrite(b"x", 0, fua=True)], ids=["flush", "fua"]
)
def test_a_failed_flush_poisons_the_file_until_all_its_handles_are_closed(
    served: Served, call: Callable[[Any], object]
) -> None:
    with served.open() as first:
        with served.open() as second:
            second.pwrite(b"data", 0)
            with served.disk.failing("flush"):
                assert refused(lambda: call(first)) == errno.EIO
            reached = served.disk.arrived("Flush")
            for file in (first, second):
                assert refused(file.flush) == errno.EIO
                assert refused(lambda: file.pwrite(b"x", 0, fua=True)) == errno.EIO  # noqa: B023 - called at once
            assert served.disk.arrived("Flush") == reached  # the kernel would have said yes
            assert second.pread(3, 1) == b"ata"
            assert second.pwrite(b"data", 0) == 4
            assert [handle["poisoned"] for handle in served.daemon.json("handles")["handles"]] == [True, True]
        with served.open() as third:
            assert refused(third.flush) == errno.EIO
    with served.open() as file:
        file.flush()
        file.pwrite(b"x", 0, fua=True)


def test_a_failed_group_commit_fails_all_its_members(served: Served) -> None:
    with served.open() as file:
        with contextlib.ExitStack() as well, served.disk.failing("flush"):
            well.enter_context(served.disk.holding("flush"))
            futures = file.submit([("flush",)] * FLUSHERS)
            well.close()
            errors = [future.exception(timeout=scaled(60)) for future in futures]
        assert [getattr(error, "errno", None) for error in errors] == [errno.EIO] * FLUSHERS
        assert refused(file.flush) == errno.EIO


def test_concurrent_flushes_share_what_reaches_the_disk(served: Served, wait_until: Callable[..., None]) -> None:
    """Flushes that arrive during the first one share the next."""
    with served.open() as file:
        for number in range(FLUSHERS):
            file.pwrite(bytes([number + 1]) * 512, number * 512)
        with served.disk.holding("flush"):
            futures = file.submit([("flush",)])
            wait_until(lambda: served.disk.arrived("Flush"), "a flush at the disk")
            futures += file.submit([("flush",)] * (FLUSHERS - 1))
            wait_until(lambda: served.daemon.engine["inflight"] == FLUSHERS, "all flushes at the engine")
        assert [future.result(timeout=scaled(60)) for future in futures] == [0] * FLUSHERS
    assert 2 <= served.disk.arrived("Flush") < FLUSHERS  # none but the first by the one that had started already
    stored = served.disk.image.read_bytes()
    assert stored[: 512 * FLUSHERS] == b"".join(bytes([number + 1]) * 512 for number in range(FLUSHERS))


@pytest.mark.page_cache("the write fails, and not the flush")
def test_a_flush_error_that_the_kernel_forgets_is_still_reported(
    new_daemon: Callable[..., Any], disk_path: Path
) -> None:
    """A block device over the disk: the kernel reports a failed write-back once; the next fdatasync succeeds."""
    with faulty_disk(disk_path) as disk, file_systems.loop_device(disk.path, 512) as device:
        daemon = new_daemon(**{"exports.device": {"path": str(device)}})
        daemon.start()
        with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client, client.open("device", "r+") as file:
            kernel = os.open(device, os.O_RDWR)
            try:
                file.pwrite(PATTERN[:MIB], 0)
                with disk.failing("pwrite"):
                    assert refused(file.flush) == errno.EIO
                    with pytest.raises(OSError, match="Input/output error"):
                        os.fdatasync(kernel)
                os.fdatasync(kernel)  # as if nothing had been
                assert not any(disk.image.read_bytes()[:MIB])
                for _ in range(2):
                    assert refused(file.flush) == errno.EIO
            finally:
                os.close(kernel)
        with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client, client.open("device", "r+") as file:
            file.pwrite(PATTERN[:MIB], 0)
            file.flush()
            assert disk.image.read_bytes()[:MIB] == PATTERN[:MIB]
        daemon.stop()
