"""A store that is full below its file system: the error of a FUA write must reach the next flush as well.

The kernel tells each open file once. The data written before is lost whoever is told; a write that is itself refused,
because the file system is full, has lost nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.patience import scaled
from tests.service.file_systems import mounted, run, thin_ext4
from tests.service.records import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 2**20
STORE_BYTES = 32 * MIB
LOST_BYTES = 16 * MIB
LOST = (errno.ENOSPC, errno.EIO)
"""Errnos of a loop device over a full store: EIO if a part of the request had room."""

BLOCK = b"block" + bytes(4091)


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    """The transport."""
    return request.param


@pytest.fixture
def store(disk_path: Path) -> Iterator[Path]:
    """A file system with more room than its store."""
    with thin_ext4(disk_path, STORE_BYTES) as file_system:
        yield file_system.path


@pytest.fixture
def daemon(new_daemon: Callable[..., Any], store: Path) -> Iterator[Any]:
    """A daemon that serves it as the export `store`."""
    daemon = new_daemon(**{"exports.store": {"path": str(store)}})
    daemon.start()
    yield daemon
    daemon.stop()


@contextlib.contextmanager
def file_of(daemon: Any, transport: Any, mode: str = "w+", **options: Any) -> Iterator[Any]:
    with (
        aiod_client.connect(
            daemon.endpoint, transport=transport, reconnect_timeout=scaled(60), timeout=scaled(60)
        ) as client,
        client.open("store/file", mode, **options) as file,
    ):
        yield file


def lose(file: Any, store: Path) -> None:
    """Write more than the store can hold; the kernel's write-back fails, and no handle gets the error.

    The inode is in the store before: what the file's flush meets is lost data.
    """
    file.pwrite(BLOCK, 0)
    file.flush()
    run("sync", "--file-system", str(store))
    fill(store.parent / "tmpfs" / "filler")
    data = os.urandom(MIB)
    for offset in range(MIB, MIB + LOST_BYTES, MIB):
        assert file.pwrite(data, offset) == MIB
    assert subprocess.run(["sync", "--file-system", str(store)], capture_output=True, check=False).returncode != 0


def check_lost(daemon: Any, file: Any) -> None:
    """Check that every flush and every FUA write fails."""
    for _ in range(2):
        assert refused(file.flush) == errno.EIO
        assert refused(lambda: file.pwrite(BLOCK, 0, fua=True)) == errno.EIO
    assert all(handle["poisoned"] for handle in daemon.json("handles")["handles"])


@pytest.mark.parametrize("direct", [False, True], ids=["buffered", "direct"])
def test_a_failed_fua_write_does_not_consume_the_flush_error(
    daemon: Any, store: Path, transport: Any, *, direct: bool
) -> None:
    with file_of(daemon, transport) as file, file_of(daemon, transport, "r+", direct=direct) as writer:
        lose(file, store)
        assert refused(lambda: writer.pwrite(BLOCK, 0, fua=True)) in LOST
        check_lost(daemon, file)


def test_a_failed_fua_write_by_the_only_handle_does_not_consume_the_flush_error(
    daemon: Any, store: Path, transport: Any
) -> None:
    with file_of(daemon, transport) as file:
        lose(file, store)
        assert refused(lambda: file.pwrite(BLOCK, 0, fua=True)) in LOST
        check_lost(daemon, file)


def test_a_failed_fua_write_after_a_crash_does_not_consume_the_flush_error(
    daemon: Any, store: Path, transport: Any
) -> None:
    """The engine has inherited one descriptor of the file: it must not use it for both writes and flushes."""
    with file_of(daemon, transport) as file:
        lose(file, store)
        os.kill(daemon.engine["pid"], signal.SIGKILL)
        assert refused(lambda: file.pwrite(BLOCK, 0, fua=True)) in LOST
        check_lost(daemon, file)


def test_a_flush_gets_the_errno_of_the_failed_write_back(daemon: Any, store: Path, transport: Any) -> None:
    with file_of(daemon, transport) as file:
        lose(file, store)
        assert refused(file.flush) in LOST
        check_lost(daemon, file)


def test_a_refused_write_does_not_poison_the_file(
    new_daemon: Callable[..., Any], disk_path: Path, transport: Any
) -> None:
    """The file system is full: the write is refused, and earlier writes reach the disk."""
    with mounted("ext4", disk_path) as file_system:
        daemon = new_daemon(**{"exports.store": {"path": str(file_system.path)}})
        daemon.start()
        with file_of(daemon, transport) as file:
            file.pwrite(BLOCK, 0)
            fill(file_system.path / "filler")
            assert refused(lambda: file.pwrite(BLOCK * 256, MIB, fua=True)) == errno.ENOSPC
            file.flush()
            assert file.pwrite(BLOCK, 0, fua=True) == len(BLOCK)
            assert not any(handle["poisoned"] for handle in daemon.json("handles")["handles"])
        daemon.stop()


def fill(path: Path) -> None:
    """Leave no block free."""
    with path.open("wb") as file:
        for nbytes in (64 * MIB, MIB, 4096):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, nbytes)
