"""A file system on a disk that promises more room than it has: an image on a tmpfs, over a loop device."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

from tests.service.file_systems import loop_device, run, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20
ROOM_BYTES = 64 * MIB
PROMISED_BYTES = 120 * MIB
"""One block group: all metadata is written by mkfs, so that a lack of room hits data alone (ENOSPC, not EIO)."""


class ThinDisk:
    """`path`: the root of an ext4 on it."""

    def __init__(self, path: Path, store: Path) -> None:
        """Made by thin_disk(); `store` holds the image."""
        self.path = path
        self._filler = store / "filler"

    def fill(self) -> None:
        """From now on the disk has no room for a new block, of which the file system knows nothing."""
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while True:
                filler.write(bytes(MIB))

    def write_back(self) -> None:
        """Have the kernel write all dirty pages, as it does by itself in time; nobody is told of an error."""
        subprocess.run(["sync", "--file-system", str(self.path)], capture_output=True, check=False)


@contextlib.contextmanager
def thin_disk(base: Path) -> Iterator[ThinDisk]:
    """An ext4 of PROMISED_BYTES on ROOM_BYTES, below `base`. Skips the test where mounts are impossible."""
    store, point = base / "store", base / "thin"
    store.mkdir()
    point.mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "none", str(store))
    try:
        image = store / "image"
        with image.open("wb") as file:
            file.truncate(PROMISED_BYTES)
        run("mkfs.ext4", "-q", "-N", "64", "-E", "lazy_itable_init=0,nodiscard", "-O", "^has_journal", str(image))
        with loop_device(image) as device:
            run("mount", "-t", "ext4", "-o", "errors=continue,dioread_lock", str(device), str(point))
            try:
                yield ThinDisk(point, store)
            finally:
                unmount(point)
    finally:
        unmount(store)
