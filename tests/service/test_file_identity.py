"""After a crash of the daemon, the same file is reopened, but not another one with its name and inode number."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client
from tests.conftest import freeze, wait_until
from tests.patience import scaled
from tests.service.faulty_disk import faulty_disk
from tests.service.file_systems import NAMES, mounted, overlay_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECONNECT_S = scaled(30.0)
ATTEMPTS = 32
MOUNTS_MAX = 8  # another process may mount something meanwhile, and take the device number
"""Number of files to create until one gets the inode number of the removed one, if the file system reuses them."""


@pytest.fixture(params=NAMES)
def file_system(request: pytest.FixtureRequest, disk_path: Path) -> Iterator[Path]:
    """The root of a file system of each kind."""
    with mounted(request.param, disk_path) as made:
        yield made.path


@pytest.fixture(params=["plain", "overlay"])
def directory(request: pytest.FixtureRequest, file_system: Path) -> Iterator[Path]:
    """A directory on it, and one on an overlayfs above it."""
    if request.param == "plain":
        yield file_system
        return
    with overlay_over(file_system) as merged:
        yield merged


@pytest.fixture(params=["zmq", "ring"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


def kill_all(daemon: Any) -> None:
    """Kill the daemon without a flush; no process has the file open then."""
    engine = daemon.engine["pid"]
    freeze(engine)
    daemon.stop(signal.SIGKILL)
    os.kill(engine, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{engine}").exists(), "the engine has gone")


def replace(path: Path) -> None:
    """Replace the file by another one with its name and, if possible, its inode number."""
    number = path.stat().st_ino
    path.unlink()
    for attempt in range(ATTEMPTS):
        path.write_bytes(b"another")
        if path.stat().st_ino == number:
            return
        path.rename(path.with_name(f"not{attempt}"))
    path.write_bytes(b"another")


def test_the_same_file_is_reopened_by_name(directory: Path, transport: Any, new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(**{"exports.here": {"path": str(directory)}})
    daemon.start()
    with (
        aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client,
        client.open("here/file", "w+") as file,
    ):
        file.pwrite(b"data", 0)
        file.flush()
        kill_all(daemon)
        daemon.start()
        assert file.pread(4, 0) == b"data"
        assert file.pwrite(b"more", 4) == 4
        file.flush()
    assert (directory / "file").read_bytes() == b"datamore"


def test_another_file_with_its_name_and_inode_number_is_refused(
    directory: Path, transport: Any, new_daemon: Callable[..., Any]
) -> None:
    daemon = new_daemon(**{"exports.here": {"path": str(directory)}})
    daemon.start()
    with aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client:
        file = client.open("here/file", "w+")
        file.pwrite(b"data", 0)
        file.flush()
        kill_all(daemon)
        replace(directory / "file")
        daemon.start()
        with pytest.raises(OSError, match="another file has this name now") as caught:
            file.pwrite(b"wrong", 0)
        assert caught.value.errno == errno.ESTALE
        file.close()
    assert (directory / "file").read_bytes() == b"another"


def test_on_fuse_a_file_of_the_same_mount_is_reopened(
    disk_path: Path, transport: Any, new_daemon: Callable[..., Any]
) -> None:
    with faulty_disk(disk_path) as disk:
        daemon = new_daemon(**{"exports.disk": {"path": str(disk.path)}})
        daemon.start()
        with (
            aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S) as client,
            client.open("disk", "r+") as file,
        ):
            file.pwrite(b"data", 0)
            file.flush()
            kill_all(daemon)
            daemon.start()
            assert file.pread(4, 0) == b"data"


def test_on_fuse_a_file_of_another_mount_is_not_reopened(
    disk_path: Path, transport: Any, new_daemon: Callable[..., Any]
) -> None:
    """The second mount has the device number and the inode numbers of the first."""
    current = disk_path / "current"
    daemon = new_daemon(**{"exports.disk": {"path": str(current / "nbd")}})
    for attempt in range(MOUNTS_MAX):
        first, second = disk_path / f"first{attempt}", disk_path / f"second{attempt}"
        first.mkdir()
        second.mkdir()
        with faulty_disk(first) as disk:
            current.symlink_to(disk.point)
            before = disk.path.stat()
            daemon.start()
            client = aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S)
            file = client.open("disk", "r+")
            file.pwrite(b"data", 0)
            file.flush()
            kill_all(daemon)
        current.unlink()
        with faulty_disk(second) as disk, client:
            current.symlink_to(disk.point)
            now = disk.path.stat()
            daemon.start()
            with pytest.raises(OSError, match="another file has this name now") as caught:
                file.pread(4, 0)
            assert caught.value.errno == errno.ESTALE
            file.close()
            client.close()
            daemon.stop()
        current.unlink()
        if (now.st_dev, now.st_ino) == (before.st_dev, before.st_ino):
            return
    pytest.fail("other processes took the device number each time")
