"""After a crash of the daemon, the same file is reopened, but not another one with its name and inode number."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

import aiod_client
from tests.conftest import Daemon, freeze, wait_until
from tests.patience import scaled
from tests.service.faulty_disk import faulty_disk
from tests.service.file_systems import NAMES, mounted, overlay_over

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECONNECT_S = scaled(60.0)
TRANSPORTS: Final[tuple[Literal["zmq", "ring"], ...]] = ("zmq", "ring")
DIRECTORIES = ("plain", "overlay")
ATTEMPTS = 32
"""Number of files to create until one gets the inode number of the removed one, if the file system reuses them."""
MOUNTS_MAX = 8  # another process may mount something meanwhile, and take the device number


@pytest.fixture(params=TRANSPORTS)
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
        path.rename(path.with_name(f"{path.name}-not{attempt}"))
    path.write_bytes(b"another")


@dataclass(frozen=True)
class Case:
    """Two files of a client whose daemon was killed and started again."""

    directory: Path
    same: aiod_client.File
    replaced: aiod_client.File
    """Its name and, if possible, its inode number belong to another file now."""


@pytest.fixture(scope="module", params=NAMES)
def cases(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, Case]]]:
    """By directory and transport: on a file system of each kind, and on an overlayfs above it.

    One crash serves all of them.
    """
    base = Path(tempfile.mkdtemp(prefix="aiod-test-", dir="/var/tmp"))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        plain = stack.enter_context(mounted(request.param, base)).path
        overlay = stack.enter_context(overlay_over(plain))
        directories = {"plain": plain, "overlay": overlay}
        daemon = Daemon(base, **{f"exports.{name}": {"path": str(path)} for name, path in directories.items()})
        stack.callback(daemon.destroy)
        daemon.start()
        made = {name: open_files(stack, daemon, name, path) for name, path in directories.items()}
        kill_all(daemon)
        for name, path in directories.items():
            for transport in made[name]:
                replace(path / f"replaced-{transport}")
        daemon.start()
        yield made


def open_files(stack: contextlib.ExitStack, daemon: Daemon, name: str, directory: Path) -> dict[str, Case]:
    """Files with flushed data in an export, by transport."""
    made: dict[str, Case] = {}
    for transport in TRANSPORTS:
        client = stack.enter_context(
            aiod_client.connect(daemon.endpoint, transport=transport, reconnect_timeout=RECONNECT_S)
        )
        files = [client.open(f"{name}/{kind}-{transport}", "w+") for kind in ("same", "replaced")]
        for file in files:
            file.pwrite(b"data", 0)
            file.flush()
        made[transport] = Case(directory, *files)
    return made


@pytest.fixture
def case(cases: dict[str, dict[str, Case]], directory: str, transport: str) -> Case:
    """One of them."""
    return cases[directory][transport]


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_the_same_file_is_reopened_by_name(case: Case, transport: str) -> None:
    file = case.same
    assert file.pread(4, 0) == b"data"
    assert file.pwrite(b"more", 4) == 4
    file.flush()
    file.close()
    assert (case.directory / f"same-{transport}").read_bytes() == b"datamore"


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_another_file_with_its_name_and_inode_number_is_refused(case: Case, transport: str) -> None:
    file = case.replaced
    with pytest.raises(OSError, match="another file has this name now") as caught:
        file.pwrite(b"wrong", 0)
    assert caught.value.errno == errno.ESTALE
    file.close()
    assert (case.directory / f"replaced-{transport}").read_bytes() == b"another"


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
