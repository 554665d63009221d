"""Answers to aiodctl and clients while an engine cannot be started, or cannot be killed."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import aiod_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1024 * 1024


def test_an_engine_that_fails_to_start_is_retried(daemon: Any, wait_until: Callable[..., None]) -> None:
    """There is no descriptor left: the supervisor logs that and retries."""
    first = daemon.engine
    allowed = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # The two that come free as the engine dies are not enough for its successor.
    in_use = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (in_use, allowed[1]))
    os.kill(first["pid"], signal.SIGKILL)
    wait_until(lambda: "could not be started (Too many open files)" in daemon.log, "it is notified")
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, allowed)
    wait_until(lambda: daemon.engine["state"] == "serving", "a new engine")
    assert daemon.engine["pid"] != first["pid"]
    assert daemon.stop() == 0


def test_a_killed_engine_leaves_no_socket_file(daemon: Any, wait_until: Callable[..., None]) -> None:
    os.kill(daemon.engine["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.engine["restarts"] == 1 and daemon.engine["state"] == "serving", "a new engine")
    incarnation = daemon.engine["incarnation"]
    assert [path.name for path in daemon.runtime_dir.glob("engine-*.sock")] == [f"engine-main-{incarnation}.sock"]


@pytest.fixture
def frozen_path(disk_path: Path) -> Iterator[Path]:
    """A mounted file system that a test may freeze: a writing process then stays in the kernel, even when killed."""
    if os.getuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "umount", "fsfreeze"))):
        pytest.skip("freezing a file system needs root, mkfs.ext4 and fsfreeze")
    image, mount = disk_path / "image", disk_path / "mnt"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    assert run("mkfs.ext4", "-q", image) == 0
    if run("mount", "-o", "loop", image, mount) != 0:
        pytest.skip("no loop devices here")
    yield mount
    run("fsfreeze", "-u", mount)
    assert run("umount", "-l", mount) == 0


def run(program: str, *arguments: str | Path) -> int:
    """Run it; its exit status."""
    return subprocess.run([str(shutil.which(program)), *arguments], check=False, capture_output=True).returncode


def test_a_killed_engine_with_a_write_in_the_kernel_is_replaced_after_the_write(
    new_daemon: Callable[..., Any], frozen_path: Path, wait_until: Callable[..., None]
) -> None:
    """SIGKILL does not end a pwrite: until it ends, EIO names the pid, and a stop does not wait for it."""
    (frozen_path / "file").write_bytes(b"old")
    os.sync()
    daemon = new_daemon(**{"exports.frozen": {"path": str(frozen_path)}, "": {"drain_timeout_s": 600.0}})
    daemon.start()
    pid = daemon.engine["pid"]
    with aiod_client.connect(daemon.endpoint, timeout=5) as client:
        file = client.open("frozen/file", "r+")
        assert run("fsfreeze", "-f", frozen_path) == 0
        file.submit([("write", b"new", 0)])
        wait_until(lambda: b"D" in states(pid), "the write is in the kernel")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: daemon.json("exports")["exports"][0]["state"] == "failed", "its death is noticed")
        with aiod_client.connect(daemon.endpoint) as other, pytest.raises(OSError, match=f"pid {pid}") as caught:
            other.open("frozen/file")
        assert caught.value.errno == errno.EIO
        assert daemon.engine["restarts"] == 0
        assert daemon.stop() == 1
    assert f"pid {pid} is still inside a system call" in daemon.log


def states(pid: int) -> set[bytes]:
    """The states of all threads of `pid`, as the kernel's letters."""
    return {path.read_bytes().rpartition(b")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")}
