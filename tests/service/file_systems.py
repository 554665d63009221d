"""Real file systems and block devices for tests: loop images and a tmpfs, mounted below a directory.

All of it needs root; where something is missing the test is skipped, and the reason names it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
IMAGE_BYTES = 300 * MIB
"""Size of a sparse image: the minimum of mkfs.xfs."""

NAMES = ("ext4", "tmpfs", "xfs", "btrfs")

MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-E", "lazy_itable_init=1"),
    "xfs": ("mkfs.xfs", "-q"),
    "btrfs": ("mkfs.btrfs", "-q"),
}


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system; `path` is its root directory."""

    name: str
    path: Path


def run(*command: str) -> str:
    """Run a command; its output. Skips the test with a reason when the command is missing or fails."""
    if os.getuid() != 0:
        pytest.skip(f"{command[0]} needs root")
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} on this machine (scripts/prerequisites.sh test)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command)}: {done.stderr.strip().splitlines()[:1]}")
    return done.stdout.strip()


_LOCK = Path(tempfile.gettempdir()) / "aiod-test-mount.lock"
_MOUNT_ATTEMPTS = 5


@contextlib.contextmanager
def mounted(name: str, base: Path, size_bytes: int = IMAGE_BYTES) -> Iterator[FileSystem]:
    """A new file system of type `name`, mounted at base/`name`."""
    point = base / name
    point.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        if name == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "none", str(point))
        else:
            image = base / f"{name}.img"
            with image.open("wb") as file:
                file.truncate(size_bytes)
            run(*MKFS[name], str(image))
            _mount_image(name, image, point, stack)
        stack.callback(unmount, point)
        yield FileSystem(name, point)


@contextlib.contextmanager
def overlay_over(path: Path) -> Iterator[Path]:
    """Mount an overlayfs, as containers use it, with layers below `path`; returns its root."""
    lower, upper, work, merged = (path / name for name in ("lower", "upper", "work", "merged"))
    for directory in (lower, upper, work, merged):
        directory.mkdir()
    run("mount", "-t", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={work}", "none", str(merged))
    try:
        yield merged
    finally:
        unmount(merged)


@contextlib.contextmanager
def thin_ext4(base: Path, store_bytes: int) -> Iterator[FileSystem]:
    """An ext4 that promises more than the store below it has, a tmpfs of `store_bytes` at base/tmpfs.

    When that is full write-back gets ENOSPC; EIO where it becomes full in the middle of a request of the loop device.
    Without a journal: one that does not reach the store makes the file system read-only, and fdatasync() says 0 there.
    """
    point = base / "thin"
    point.mkdir()
    with mounted("tmpfs", base, store_bytes) as store, contextlib.ExitStack() as stack:
        image = store.path / "ext4.img"
        with image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        run(*MKFS["ext4"], "-O", "^has_journal", str(image))
        run("tune2fs", "-E", "mount_opts=dioread_lock", str(image))  # else a lost block may be EIO, of its extent
        _mount_image("ext4", image, point, stack)
        stack.callback(unmount, point)
        yield FileSystem("ext4", point)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _mount_image(name: str, image: Path, point: Path, stack: contextlib.ExitStack) -> None:
    """Another process may be using the loop device: reserve it until `stack` ends, so that the next one differs."""
    for _ in range(_MOUNT_ATTEMPTS - 1):
        with contextlib.suppress(pytest.skip.Exception):
            run("mount", "-t", name, str(stack.enter_context(loop_device(image))), str(point))
            return
    run("mount", "-t", name, str(stack.enter_context(loop_device(image))), str(point))


def unmount(point: Path) -> None:
    """Unmount lazily."""
    if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode:
        subprocess.run(["umount", "--lazy", str(point)], capture_output=True, check=False)


@contextlib.contextmanager
def loop_device(file: Path, block_bytes: int = 512) -> Iterator[Path]:
    """A block device over `file` with logical blocks of `block_bytes`."""
    with _alone():
        device = run("losetup", "--find", "--show", "--sector-size", str(block_bytes), str(file))
    try:
        yield type(file)(device)
    finally:
        subprocess.run(["losetup", "--detach", device], capture_output=True, check=False)
