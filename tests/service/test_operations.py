"""Each row of the table in docs/operations.md, on each file system: the result, and the file's state in the kernel."""

from __future__ import annotations

import errno
import os
import stat
import struct
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service.conftest import FIGETBSZ
from tests.service.file_systems import run
from tests.service.records import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIB = 1024
MIB = 2**20
PATTERN = bytes(range(1, 256)) * 8192  # no zero in it, and no period of a power of two


@pytest.fixture(params=[False, True], ids=["cached", "direct"])
def direct(request: pytest.FixtureRequest, place: Any) -> bool:
    """Whether the file is opened O_DIRECT."""
    if request.param and not place.has_direct:
        pytest.skip(f"{place.name} of this kernel has no O_DIRECT")
    return bool(request.param)


@pytest.fixture
def file(place: Any, direct: bool) -> Iterator[Any]:  # noqa: FBT001 - a fixture
    """A new file, "w+"."""
    with place.open("file", direct=direct) as opened:
        yield opened


@pytest.fixture
def content(place: Any) -> Callable[[], bytes]:
    """Content of the file by plain system calls."""
    return (place.path / "file").read_bytes  # type: ignore[no-any-return]


def allocated(place: Any) -> int:
    """Allocated bytes of the file, after delayed allocation."""
    fd = os.open(place.path / "file", os.O_RDWR)
    try:
        os.fsync(fd)
        return os.fstat(fd).st_blocks * 512
    finally:
        os.close(fd)


# ---- bytes in and out -----------------------------------------------------------------------------------------------


def test_reads_end_where_the_file_ends(file: Any) -> None:
    file.pwrite(PATTERN[:10_001], 0)
    assert file.pread(20_000, 0) == PATTERN[:10_001]
    assert file.pread(20_000, 9_999) == PATTERN[9_999:10_001]
    assert file.pread(1, 10_001) == file.pread(1, 2**60) == file.pread(0, 5) == b""
    assert file.pread(4_099, 513) == PATTERN[513 : 513 + 4_099]
    buffers = [bytearray(length) for length in (1, 511, 0, 4096, 7, 9_000)]
    assert file.preadv(buffers, 3) == 9_998
    assert b"".join(buffers)[:9_998] == PATTERN[3:10_001]
    assert refused(lambda: file.pread(2, 2**63 - 1)) == errno.EINVAL


def test_writes_are_complete_and_leave_the_rest_alone(file: Any, content: Callable[[], bytes]) -> None:
    assert file.pwrite(PATTERN[:9_000], 0) == 9_000
    assert file.pwrite(b"", 2**40) == 0
    assert file.pwrite(b"one", 4_095) == 3
    assert file.pwritev([b"two", b"", bytearray(b"three"), memoryview(b"four")], 511) == 12
    assert file.pwrite(b"five", 20_000, fua=True) == 4
    expected = bytearray(PATTERN[:9_000] + bytes(11_004))
    expected[4_095:4_098], expected[511:523], expected[20_000:] = b"one", b"twothreefour", b"five"
    assert content() == bytes(expected)
    assert file.size() == 20_004


def test_flush_and_size_work(file: Any) -> None:
    assert file.size() == 0
    file.pwrite(b"x", MIB)
    file.flush()
    assert file.size() == MIB + 1


def test_stat_equals_the_kernels(place: Any, file: Any) -> None:
    file.pwrite(PATTERN, 0)
    file.flush()
    os.link(place.path / "file", place.path / "second")
    says, kernel = file.stat(), (place.path / "file").stat()
    assert (says.size, says.allocated) == (len(PATTERN), kernel.st_blocks * 512)
    assert (says.device, says.inode, says.links) == (kernel.st_dev, kernel.st_ino, 2)
    assert (says.mode, says.uid, says.gid) == (kernel.st_mode, kernel.st_uid, kernel.st_gid)
    assert stat.S_ISREG(says.mode)
    times = (says.atime_ns, says.mtime_ns, says.ctime_ns)
    assert times == (kernel.st_atime_ns, kernel.st_mtime_ns, kernel.st_ctime_ns)
    assert says.io_size == kernel.st_blksize
    assert says.block_size in {1 << shift for shift in range(17)}


@pytest.mark.parametrize("transport", ["ring", "zmq"])
@pytest.mark.parametrize("inline_read_max", [0, MIB], ids=["by a worker", "inline"])
def test_reads_leave_the_access_time(new_daemon: Callable[..., Any], transport: Any, inline_read_max: int) -> None:
    """For a file of the daemon's user, also after its content has changed."""
    daemon = new_daemon(**{"engine.main": {"inline_read_max": inline_read_max}})
    daemon.start()
    path, other = daemon.path / "file", daemon.path / "other"
    for each in (path, other):
        each.write_bytes(PATTERN)
        os.utime(each, ns=(1, 2))
    other.read_bytes()
    if other.stat().st_atime_ns == 1:
        pytest.skip("mounted noatime")
    with aiod_client.connect(daemon.endpoint, transport=transport) as client, client.open("scratch/file", "r+") as file:
        for offset in range(0, 64 * KIB, 4 * KIB):
            assert file.pread(KIB, offset) == PATTERN[offset : offset + KIB]
        file.pwrite(b"x", 0)
        assert file.pread(1, 0) == b"x"
        assert file.stat().atime_ns == 1
    assert path.stat().st_atime_ns == 1


# ---- room -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 2 * MIB), (MIB, MIB // 2), (4_097, 300_001), (1, 2), (MIB, 5 * MIB), (9 * MIB, 1), (5, 0)],
)
def test_discard_reads_as_zeroes_and_keeps_the_size(
    place: Any, file: Any, content: Callable[[], bytes], offset: int, length: int
) -> None:
    file.pwrite(PATTERN, 0)
    before = allocated(place)
    file.discard(offset, length)
    expected = bytearray(PATTERN)
    end = min(offset + length, len(PATTERN))
    expected[offset:end] = bytes(max(end - offset, 0))
    assert content() == bytes(expected) == file.pread(len(PATTERN) + 1, 0)
    if end - offset >= MIB // 2:
        assert allocated(place) <= before - MIB // 4


@pytest.mark.parametrize("options", [{}, {"fua": True}, {"unmap": True}, {"unmap": True, "fua": True}], ids=str)
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 2 * MIB), (4_097, 300_001), (1, 2), (MIB, 3 * MIB + 3), (3 * MIB + 1, 4_097), (5, 0)]
)
def test_zeroes_are_written_and_the_file_grows(
    place: Any, file: Any, content: Callable[[], bytes], offset: int, length: int, options: dict[str, bool]
) -> None:
    file.pwrite(PATTERN, 0)
    file.write_zeroes(offset, length, **options)
    expected = bytearray(PATTERN.ljust(offset + length if length else 0, b"\0"))
    expected[offset : offset + length] = bytes(length)
    assert file.size() == len(expected)
    assert content() == bytes(expected)
    if not options.get("unmap"):  # the room stays allocated
        assert allocated(place) >= length


def test_truncate_shrinks_and_grows(file: Any, content: Callable[[], bytes]) -> None:
    file.pwrite(PATTERN, 0)
    for size in (4_097, 100_001, 0, 2**33, 5):
        file.truncate(size)
        assert file.size() == size
    assert content() == bytes(5)
    assert refused(lambda: file.truncate(2**63)) == errno.EINVAL


def test_allocate_reserves_and_grows_unless_told_not_to(place: Any, file: Any, content: Callable[[], bytes]) -> None:
    file.pwrite(PATTERN[:5_000], 0)
    file.allocate(0, 3 * MIB, keep_size=True)
    assert file.size() == 5_000
    assert allocated(place) >= 3 * MIB
    file.allocate(4 * MIB, MIB + 1)
    assert file.size() == 5 * MIB + 1
    assert allocated(place) >= 4 * MIB
    assert content() == PATTERN[:5_000].ljust(5 * MIB + 1, b"\0")
    assert refused(lambda: file.allocate(0, 0)) == errno.EINVAL


def kernel_extents(place: Any, length: int) -> list[tuple[int, int, bool]]:
    """(offset, length, hole) of the file's data and holes, by SEEK_DATA and SEEK_HOLE."""
    fd = os.open(place.path / "file", os.O_RDONLY)
    found: list[tuple[int, int, bool]] = []
    try:
        offset = 0
        while offset < length:
            try:
                data = os.lseek(fd, offset, os.SEEK_DATA)
            except OSError:  # no data from here on
                data = length
            hole = data > offset
            end = data if hole else os.lseek(fd, offset, os.SEEK_HOLE)
            found.append((offset, end - offset, hole))
            offset = end
    finally:
        os.close(fd)
    return found


def told(file: Any, *range_: int) -> list[tuple[int, int, bool]]:
    """The extents, as tuples."""
    return [(extent.offset, extent.length, extent.hole) for extent in file.extents(*range_)]


def test_extents_equal_the_kernels(place: Any, file: Any) -> None:
    assert file.extents() == []
    file.truncate(10 * MIB)
    for offset in (0, 2 * MIB, 7 * MIB):
        file.pwrite(PATTERN[:MIB], offset)
    file.flush()
    expected = kernel_extents(place, 10 * MIB)
    assert told(file) == expected
    assert sum(hole for _, _, hole in expected) == 3
    assert told(file, 2 * MIB + 5, 100) == [(2 * MIB + 5, 100, False)]
    assert told(file, 3 * MIB + 5, 100) == [(3 * MIB + 5, 100, True)]
    assert told(file, 9 * MIB, 50 * MIB) == [(9 * MIB, MIB, True)]
    assert told(file, 10 * MIB, 1) == told(file, 5, 0) == []


def test_extents_continue_beyond_one_completion(place: Any, file: Any) -> None:
    step = 128 * KIB  # btrfs inlines and merges what is smaller
    count = 1_100
    for future in file.submit([("write", PATTERN[: 4 * KIB], number * step) for number in range(count)]):
        future.result(timeout=scaled(60))
    file.flush()
    expected = kernel_extents(place, file.size())
    assert len(expected) == 2 * count - 1
    assert told(file) == expected


# ---- copies and hints -----------------------------------------------------------------------------------------------


def test_a_range_is_copied_within_the_file_system(place: Any, file: Any, content: Callable[[], bytes]) -> None:
    with place.open("source") as source:
        source.pwrite(PATTERN, 0)
        assert file.copy_range(source, 0, 0, MIB) == MIB
        assert file.copy_range(source, 4_097, 2 * MIB + 1, 100_003) == 100_003
        assert file.copy_range(source, len(PATTERN) - 10, 0, 1_000) == 10
        assert file.copy_range(source, len(PATTERN), 0, 1) == file.copy_range(source, 0, 0, 0) == 0
    expected = bytearray(PATTERN[:MIB] + bytes(MIB + 1) + PATTERN[4_097 : 4_097 + 100_003])
    expected[:10] = PATTERN[-10:]
    assert content() == bytes(expected)


def test_a_copy_within_one_file_must_not_overlap(file: Any, content: Callable[[], bytes]) -> None:
    file.pwrite(PATTERN[:100_000], 0)
    assert refused(lambda: file.copy_range(file, 0, 50_000, 50_001)) == errno.EINVAL
    assert refused(lambda: file.copy_range(file, 50_000, 0, 50_001)) == errno.EINVAL
    assert refused(lambda: file.copy_range(file, 5, 5, 10)) == errno.EINVAL
    assert content() == PATTERN[:100_000]
    assert file.copy_range(file, 0, 50_000, 50_000) == 50_000
    assert content() == PATTERN[:50_000] * 2


def test_a_range_is_copied_from_another_file_system(
    place: Any, file: Any, content: Callable[[], bytes], mounts_daemon: Any
) -> None:
    """Where the kernel cannot copy between these file systems, the daemon reads and writes."""
    with place.client.open("scratch/source", "w+") as source:
        source.pwrite(PATTERN, 0)
        assert file.copy_range(source, 3, 1, len(PATTERN)) == len(PATTERN) - 3
    assert content() == b"\0" + PATTERN[3:]
    (mounts_daemon.path / "source").unlink()


def test_prefetch_works_and_only_listed_ioctls_are_allowed(place: Any, file: Any) -> None:
    file.pwrite(PATTERN, 0)
    file.prefetch(0, MIB)
    file.prefetch()
    file.prefetch(10 * MIB, 1)
    value, argument = file.ioctl(FIGETBSZ, bytes(4))
    assert value == 0
    assert struct.unpack("i", argument)[0] == os.statvfs(place.path).f_bsize
    assert refused(lambda: file.ioctl(FIGETBSZ, bytes(8))) == errno.EPERM
    assert refused(lambda: file.ioctl(0x80086601, bytes(8))) == errno.EPERM  # FS_IOC_GETFLAGS, not in the list


# ---- handles --------------------------------------------------------------------------------------------------------


def test_each_operation_checks_the_mode_of_its_handle(place: Any) -> None:
    """The column "handle": every operation with handles for reading, writing, both, and appending."""
    (place.path / "file").write_bytes(PATTERN)
    with place.open("other") as other, place.open("other", "a") as blind:
        calls: dict[str, tuple[Callable[[Any], object], str]] = {
            "pread": (lambda file: file.pread(1, 0), "r r+ w+ a+"),
            "pwrite": (lambda file: file.pwrite(b"x", 0), "r+ w w+"),
            "fua": (lambda file: file.pwrite(b"x", 0, fua=True), "r+ w w+"),
            "append": (lambda file: file.append(b"x"), "r+ w w+ a a+"),
            "flush": (lambda file: file.flush(), "r r+ w w+ a a+"),
            "size": (lambda file: file.size(), "r r+ w w+ a a+"),
            "stat": (lambda file: file.stat(), "r r+ w w+ a a+"),
            "write_zeroes": (lambda file: file.write_zeroes(0, 1), "r+ w w+"),
            "discard": (lambda file: file.discard(0, 1), "r+ w w+"),
            "truncate": (lambda file: file.truncate(100), "r+ w w+"),
            "allocate": (lambda file: file.allocate(0, 1), "r+ w w+"),
            "extents": (lambda file: file.extents(), "r r+ w+ a+"),
            "copy to": (lambda file: file.copy_range(other, 0, 0, 1), "r+ w w+"),
            "copy from": (lambda file: other.copy_range(file, 0, 0, 1), "r r+ w+ a+"),
            "copy from blind": (lambda file: file.copy_range(blind, 0, 0, 1), ""),
            "prefetch": (lambda file: file.prefetch(), "r r+ w+ a+"),
        }
        for mode in ("r", "r+", "w", "w+", "a", "a+"):
            with place.open("file", mode) as file:
                for name, (call, allowed) in calls.items():
                    if mode in allowed.split():
                        call(file)
                    else:
                        assert refused(lambda: call(file)) == errno.EBADF, (mode, name)  # noqa: B023 - called at once


# ---- what the file system forbids ------------------------------------------------------------------------------------


def kernels_answer(path: Path, offset: int) -> int | None:
    """The errno of a plain write of one byte there; None: it succeeded."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.pwrite(fd, b"x", offset)
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)
    return None


def test_operations_beyond_the_largest_file_size_fail(place: Any, file: Any) -> None:
    """EFBIG where plain system calls get it; the largest size differs by file system."""
    (place.path / "other").touch()
    for offset in (2**44, 2**62, 2**63 - 4097):
        expected = kernels_answer(place.path / "other", offset)
        assert expected in (None, errno.EFBIG)
        if expected:
            assert refused(lambda: file.pwrite(b"x", offset)) == expected  # noqa: B023 - called at once
            assert refused(lambda: file.truncate(offset + 1)) == expected  # noqa: B023
        else:
            assert file.pwrite(b"x", offset) == 1
            assert file.size() == offset + 1


def test_operations_that_file_attributes_forbid_fail(place: Any, file: Any) -> None:
    """The attributes affect handles that were opened before."""
    file.pwrite(PATTERN, 0)
    try:
        run("chattr", "+i", str(place.path / "file"))
        assert refused(lambda: file.allocate(0, MIB)) == errno.EPERM
        assert refused(lambda: file.discard(0, MIB)) == errno.EPERM
        run("chattr", "-i", "+a", str(place.path / "file"))
        assert refused(lambda: file.discard(0, MIB)) == errno.EPERM
    finally:
        run("chattr", "-i", "-a", str(place.path / "file"))
    assert file.pread(10, 0) == PATTERN[:10]
