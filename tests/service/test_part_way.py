"""Writes that fail part-way, at a full file system or a limit: `written` is exact."""

from __future__ import annotations

import errno
import itertools
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service import file_systems
from tests.service.records import failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1024
MIB = 2**20
CHUNK = bytes(range(1, 256)) * (4 * MIB // 255)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest, new_daemon: Callable[..., Any], disk_path: Path) -> Iterator[Any]:
    """A file system of 16 MB and its client: (path, client)."""
    with file_systems.mounted(request.param, disk_path, 16 * MIB) as made:
        daemon = new_daemon(**{"exports.small": {"path": str(made.path)}})
        daemon.start()
        with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client:
            yield made.path, client
        daemon.stop()  # so that nothing is in use there


def until_full(step: Callable[[int], object]) -> tuple[int, int]:
    """Call step(0), step(1), ... until ENOSPC; returns the number of successes, and `written` of the failure."""
    for number in itertools.count():
        try:
            step(number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number, getattr(error, "written", 0)
    raise AssertionError


@pytest.mark.parametrize("direct", [False, True])
def test_a_write_into_a_full_file_system_reports_the_bytes_written(small: Any, direct: bool) -> None:  # noqa: FBT001 - a parameter
    path, client = small
    with client.open("small/file", "w+", direct=direct) as file:
        count, written = until_full(lambda number: file.pwrite(CHUNK, number * len(CHUNK)))
        assert written < len(CHUNK)
        done = count * len(CHUNK) + written
        assert done >= 8 * MIB
        content = (path / "file").read_bytes()
        assert len(content) >= done
        assert content[:done] == (CHUNK * 5)[:done]


def test_a_failed_split_write_reports_the_bytes_of_its_finished_parts(small: Any) -> None:
    """The first parts fit, and count as written."""
    path, client = small
    data = CHUNK * 6
    with client.open("small/file", "w+") as file:
        number, written = failure(lambda: file.pwrite(data, 5))
        assert number == errno.ENOSPC
        assert len(CHUNK) <= written < len(data)
        assert (path / "file").read_bytes()[5 : 5 + written] == data[:written]


def test_appends_into_a_full_file_system_report_the_bytes_written(small: Any) -> None:
    path, client = small
    with client.open("small/file", "a+") as file:
        record = CHUNK[: 300 * KIB + 1]
        offsets: list[int] = []
        count, written = until_full(lambda _: offsets.append(file.append(record)))
        assert offsets == [number * len(record) for number in range(count)]
        end = count * len(record)
        assert end >= 8 * MIB
        content = (path / "file").read_bytes()
        assert content[: end + written] == record * count + record[:written]
        assert file.size() == len(content)


def test_write_zeroes_and_copy_range_into_a_full_file_system_report_the_bytes_written(small: Any) -> None:
    path, client = small
    with client.open("small/source", "w+") as source, client.open("small/file", "w+") as file:
        for offset in (0, len(CHUNK)):
            source.pwrite(CHUNK, offset)
        assert file.copy_range(source, 0, 0, len(CHUNK)) == len(CHUNK)
        number, written = failure(lambda: file.copy_range(source, 0, len(CHUNK), 2 * len(CHUNK)))
        assert number == errno.ENOSPC
        assert (path / "file").read_bytes()[len(CHUNK) : len(CHUNK) + written] == (CHUNK * 2)[:written]
        file.truncate(0)
        number, written = failure(lambda: file.write_zeroes(0, 64 * MIB))
        assert number == errno.ENOSPC
        assert not any((path / "file").read_bytes()[:written])
        assert number == failure(lambda: file.allocate(0, 64 * MIB))[0]


def test_a_write_beyond_rlimit_fsize_reports_the_bytes_written(new_daemon: Callable[..., Any]) -> None:
    """Bytes below RLIMIT_FSIZE are written, and counted."""
    daemon = new_daemon()
    limit = MIB + 100
    daemon.start(prefix=["prlimit", f"--fsize={limit}"])
    path = daemon.path / "file"
    with aiod_client.connect(daemon.endpoint, timeout=scaled(60)) as client, client.open("scratch/file", "w+") as file:
        assert failure(lambda: file.pwrite(CHUNK, 10)) == (errno.EFBIG, limit - 10)
        assert path.read_bytes() == bytes(10) + CHUNK[: limit - 10]
        assert failure(lambda: file.pwrite(b"x", limit)) == (errno.EFBIG, 0)
        assert failure(lambda: file.append(b"x")) == (errno.EFBIG, 0)
        assert failure(lambda: file.truncate(limit + 1))[0] == errno.EFBIG
        assert failure(lambda: file.allocate(0, limit + 1))[0] == errno.EFBIG
        file.truncate(limit - 3)
        assert failure(lambda: file.append(b"12345")) == (errno.EFBIG, 3)
        assert path.read_bytes()[-4:] == CHUNK[limit - 14 : limit - 13] + b"123"
        number, written = failure(lambda: file.write_zeroes(0, limit + 1))
        assert number == errno.EFBIG
        assert written <= limit
        with client.open("scratch/direct", "w+", direct=True) as direct:
            number, written = failure(lambda: direct.pwrite(CHUNK, 0))
            assert number == errno.EFBIG
            assert (daemon.path / "direct").read_bytes()[:written] == CHUNK[:written]
