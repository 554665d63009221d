"""A disk that logs all writes and flushes, so that its state after a power cut at any moment can be rebuilt.

A real server, qemu-nbd with its blklogwrites driver, mounted as a file by nbdfuse. The log has the format of the
kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): a superblock, then an entry for each
write, flush and discard, in sectors. qemu-nbd brings the superblock's number of entries up to date with each flush.
"""

from __future__ import annotations

import contextlib
import struct
import subprocess
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.service.faulty_disk import end, wait_for
from tests.service.file_systems import run, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_BYTES: Final = 8 * 2**20
SECTOR_BYTES: Final = 512
FLUSH: Final = 1
FUA: Final = 2
DISCARD: Final = 4
_MAGIC: Final = 0x6A736677736872
_VERSION: Final = 1
_SUPERBLOCK: Final = struct.Struct("<QQQI")  # magic, version, entries, bytes of a sector
_ENTRY: Final = struct.Struct("<QQQQ")  # first sector, sectors, flags, bytes of data besides


class Entry(NamedTuple):
    """Log of the writes and flushes, in the order of completion."""

    offset: int
    length: int
    flags: int
    data: bytes


class LoggedDisk:
    """`path`: the disk, a file of SIZE_BYTES."""

    def __init__(self, base: Path) -> None:
        """Made by logged_disk()."""
        self.point = base / "mounted"
        self.path = self.point / "nbd"
        self._base = base
        self._log = base / "log"

    def flushed(self) -> int:
        """Number of entries up to and with the last flush."""
        with self._log.open("rb") as log:
            head = log.read(_SUPERBLOCK.size)
        magic, version, entries, _ = _SUPERBLOCK.unpack(head) if head else (0, 0, 0, 0)
        assert (magic, version) in {(_MAGIC, _VERSION), (0, 0)}  # 0: no flush yet
        return int(entries)

    def entries(self) -> Iterator[Entry]:
        """All entries of the log."""
        with self._log.open("rb") as log:
            log.seek(SECTOR_BYTES)
            while len(head := log.read(SECTOR_BYTES)) == SECTOR_BYTES:
                sector, count, flags, _ = _ENTRY.unpack_from(head)
                length = count * SECTOR_BYTES
                data = bytes(length) if flags & DISCARD else log.read(length)
                yield Entry(sector * SECTOR_BYTES, length, flags, data)

    @contextlib.contextmanager
    def served(self) -> Iterator[LoggedDisk]:
        """Both servers; the file is at `path` meanwhile."""
        image, socket = self._base / "image", self._base / "socket"
        self.point.mkdir()
        self._log.touch()
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        options = f"driver=blklogwrites,file.driver=file,file.filename={image},log.driver=file,log.filename={self._log}"
        server = subprocess.Popen(
            ["qemu-nbd", "--persistent", "--socket", str(socket), "--image-opts", options],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for(socket, server)
            mount = subprocess.Popen(
                ["nbdfuse", str(self.path), "--unix", str(socket)], stderr=subprocess.PIPE, text=True
            )
            try:
                wait_for(self.path, mount)
                yield self
            finally:
                unmount(self.point)
                end(mount)
        finally:
            server.terminate()
            end(server)


class PowerCut:
    """State of a disk with a volatile cache after a power cut: only writes that a flush followed."""

    def __init__(self, disk: LoggedDisk) -> None:
        self._entries = list(disk.entries())
        self._done = 0
        self.image = bytearray(SIZE_BYTES)

    def after(self, entries: int) -> bytearray:
        """The image after a power cut that follows so many entries; not fewer than in the previous call."""
        last = entries
        while last > self._done and not self._entries[last - 1].flags & FLUSH:
            last -= 1
        for offset, length, _, data in self._entries[self._done : last]:
            self.image[offset : offset + length] = data
        self._done = max(self._done, last)
        return self.image


@contextlib.contextmanager
def logged_disk(base: Path) -> Iterator[LoggedDisk]:
    """A logged disk with its files in `base`; skips the test with a reason where this machine cannot provide one."""
    for command in ("qemu-nbd", "nbdfuse"):
        run(command, "--version")
    with LoggedDisk(base).served() as disk:
        yield disk
